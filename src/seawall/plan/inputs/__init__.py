"""Inputs of a plan: workload, platforms, prices and the question."""
