"""Counters that all pods share: port; in the session store, SQLite or DynamoDB, or in memory."""
