"""Sessions and shared counters: the store port, its adapters, export and migration."""
