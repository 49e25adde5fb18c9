"""Who may enter, who waits, who is refused."""
