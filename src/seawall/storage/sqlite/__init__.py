"""The session store in SQLite: the embedded default."""
