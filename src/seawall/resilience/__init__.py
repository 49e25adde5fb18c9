"""Resilience primitives: circuit breaker, concurrency limit, retries. Pure: time is passed in."""
