"""Budgets of tenants and quotas of provider accounts: tokens and money per window."""
