"""Output: terminal and HTML report."""
