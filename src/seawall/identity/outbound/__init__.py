"""Credentials with which tools call the upstreams that are configured."""
