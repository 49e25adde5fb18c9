"""Answers and reads that several may have: kept for a while, and produced once at a time."""
