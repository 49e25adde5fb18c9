"""An address to call, taken apart once."""

from typing import Self
from urllib.parse import urlsplit

from msgspec import Struct

__all__ = ["Endpoint", "Origin"]


class Origin(Struct, frozen=True):
    """Where connections go; those to one origin are interchangeable."""

    host: str
    port: int
    secure: bool


class Endpoint(Struct, frozen=True):
    """An origin and a request target, with the `Host` header ready to send."""

    origin: Origin
    target: bytes
    authority: bytes

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take an absolute http or https URL apart.

        Raises:
            ValueError: it is not one, or carries control characters or credentials.
        """
        if any(character <= " " or character == "\x7f" for character in url):
            raise ValueError(f"a URL must not contain spaces or control characters: {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url!r}")
        if parts.username or parts.password:
            raise ValueError("a URL must not carry a user name or password")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        default = port == (443 if secure else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(
            Origin(parts.hostname, port, secure),
            target.encode("ascii"),
            (host if default else f"{host}:{port}").encode("ascii"),
        )
