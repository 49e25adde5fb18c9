"""Durable sessions: the store port and its adapters."""
