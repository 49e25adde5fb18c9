"""Observability: metrics, traces and their export over OTLP, and filters of logs."""
