"""Asynchronous AWS client without boto: credentials, signatures, DynamoDB."""
