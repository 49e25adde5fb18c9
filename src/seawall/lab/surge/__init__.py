"""The surge driver: a crowd of customers, each with a streamed turn, and what they saw."""
