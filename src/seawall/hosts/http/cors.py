"""Cross-origin resource sharing: https://fetch.spec.whatwg.org/#http-cors-protocol.

Imported only if `[server.cors]` is configured.
"""

import re
from collections.abc import Mapping

from seawall.config import CorsSettings

__all__ = ["Cors"]

Header = tuple[bytes, bytes]

_names = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:[ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*\Z")
_MAX_NAMES_BYTES = 2_048
_PREFLIGHT_VARY = (
    b"vary",
    b"origin, access-control-request-method, access-control-request-headers",
)


class Cors:
    """The CORS headers of the settings, prepared once.

    Attributes:
        origins: Allowed origins, without "*".
    """

    def __init__(self, settings: CorsSettings) -> None:
        self._any = "*" in settings.origins
        self.origins = frozenset(each.encode() for each in settings.origins if each != "*")
        shared: list[Header] = []
        if settings.credentials:
            shared.append((b"access-control-allow-credentials", b"true"))
        exposed = ", ".join(settings.expose).encode()
        self._vary = [] if self._any else [(b"vary", b"origin")]
        self._shared = shared
        self._readable = [*shared, (b"access-control-expose-headers", exposed), *self._vary]
        self._methods = ", ".join(settings.methods).encode()
        self._any_header = "*" in settings.headers
        self._headers = ", ".join(settings.headers).encode()
        self._max_age = b"%d" % settings.max_age_seconds

    def answer(self, origin: bytes | None) -> list[Header]:
        """Headers of a response, given the request's `Origin`."""
        if (allowed := self._allowed(origin)) is None:
            return self._vary
        return [(b"access-control-allow-origin", allowed), *self._readable]

    def preflight(self, headers: Mapping[bytes, bytes]) -> list[Header] | None:
        """Headers for a preflight request; None if it is not one, or not allowed."""
        allowed = self._allowed(headers.get(b"origin"))
        if allowed is None or b"access-control-request-method" not in headers:
            return None
        names = self._headers
        if self._any_header:  # the wildcard itself would not cover `Authorization`
            asked = headers.get(b"access-control-request-headers", b"")
            names = asked if len(asked) <= _MAX_NAMES_BYTES and _names.match(asked) else b""
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-allow-methods", self._methods),
            (b"access-control-allow-headers", names),
            (b"access-control-max-age", self._max_age),
            _PREFLIGHT_VARY,
            *self._shared,
        ]

    def _allowed(self, origin: bytes | None) -> bytes | None:
        if origin is None:
            return None
        if self._any:
            return b"*"
        return origin if origin in self.origins else None
