"""Agents: definitions, and the loop between model and tools."""
