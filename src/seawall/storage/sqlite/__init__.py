"""Sessions and counters in SQLite."""
