"""Output of a plan: terminal, HTML report and charts."""
