"""Agents: definitions, tools, the loop between model and tools."""
