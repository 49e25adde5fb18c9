"""Admission control: which turns start, wait, or are refused."""
