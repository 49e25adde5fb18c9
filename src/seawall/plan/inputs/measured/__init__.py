"""Measurements and bills of tools elsewhere, in place of what a plan assumes."""
