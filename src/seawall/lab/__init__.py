"""Local experiments: a simulated model and a surge driver."""
