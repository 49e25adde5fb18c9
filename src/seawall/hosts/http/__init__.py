"""The HTTP host: an ASGI application and its server."""
