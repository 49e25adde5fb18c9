"""What tenants may spend, tokens and money by day and month, and what turns cost."""
