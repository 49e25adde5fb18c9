"""Caches: answers and tool results that are reused, and single flight."""
