"""The stages of a turn, in order."""
