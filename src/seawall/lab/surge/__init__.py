"""The surge driver: many virtual users, each with a streamed turn, and their measurements."""
