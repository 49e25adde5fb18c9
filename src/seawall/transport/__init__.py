"""Bytes to and from upstreams: HTTP/1.1 client and server-sent events."""
