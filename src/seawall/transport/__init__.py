"""HTTP/1.1 client, request parser and server-sent events."""
