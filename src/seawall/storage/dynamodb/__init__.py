"""Sessions and counters in DynamoDB."""
