"""What can go wrong between us and an upstream.

::

    TransportError
    ├── ConnectFailed        no connection could be made
    ├── ConnectionBroken     it was closed before the response was whole
    ├── ProtocolError        what came is not HTTP/1.1, or its head is too large
    ├── BodyTooLong          the body exceeds the limit that the caller set
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
    """Root of the errors of this package."""


class ConnectFailed(TransportError):
    """No connection could be made."""


class ConnectionBroken(TransportError):
    """The connection was closed before the response was whole."""


class ProtocolError(TransportError):
    """What came is not HTTP/1.1, or its head is too large."""


class BodyTooLong(TransportError):
    """The body exceeds the limit that the caller set."""


class TransportTimeout(TransportError):
    """The deadline passed."""
