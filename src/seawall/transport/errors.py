"""Errors of the HTTP client.

::

    TransportError
    ├── ConnectFailed        no connection could be made
    ├── ConnectionBroken     the connection was closed before the response was complete
    ├── ProtocolError        the response is not HTTP/1.1, or its head is too large
    ├── BodyTooLong          the body exceeds the caller's limit
    └── TransportTimeout     the deadline passed
"""

__all__ = [
    "BodyTooLong",
    "ConnectFailed",
    "ConnectionBroken",
    "ProtocolError",
    "TransportError",
    "TransportTimeout",
]


class TransportError(Exception):
    """Base class of the errors of this package."""


class ConnectFailed(TransportError):
    """No connection could be made."""


class ConnectionBroken(TransportError):
    """The connection was closed before the response was complete."""


class ProtocolError(TransportError):
    """The response is not HTTP/1.1, or its head is too large."""


class BodyTooLong(TransportError):
    """The body exceeds the caller's limit."""


class TransportTimeout(TransportError):
    """The deadline passed."""
