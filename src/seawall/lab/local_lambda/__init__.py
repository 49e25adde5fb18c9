"""A local Lambda: Runtime API, environments as real processes, ways to call the function."""
