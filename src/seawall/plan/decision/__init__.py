"""The decision: configurations, cost and comparison of platforms."""
