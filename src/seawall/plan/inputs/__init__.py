"""Inputs of a plan: workload, platforms, prices, the question."""
