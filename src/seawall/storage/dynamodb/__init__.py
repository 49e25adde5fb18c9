"""The session store in DynamoDB, shared by all servers."""
