"""The decision: sizing, cost and comparison of platforms."""
