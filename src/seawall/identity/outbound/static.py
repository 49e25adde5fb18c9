"""A secret of the configuration, and no credentials at all."""

import base64
import re

from seawall.errors import ConfigError
from seawall.identity.outbound.port import CredentialsUnavailable, Headers
from seawall.identity.outbound.secrets import Secret
from seawall.identity.outbound.settings import StaticAuth
from seawall.turn import Principal

__all__ = ["NoCredentials", "StaticCredentials"]

_cookie = re.compile(r"[!#-+\--:<-\[\]-~]+")  # RFC 6265 §4.1.1


class NoCredentials:
    """No headers. See `OutboundCredentials`."""

    async def headers(
        self,
        principal: Principal | None,  # noqa: ARG002 - of the port
        caller_token: str,  # noqa: ARG002
        *,
        deadline: float,  # noqa: ARG002
    ) -> Headers:
        """See `OutboundCredentials.headers`."""
        return ()

    def rejected(
        self,
        principal: Principal | None,  # noqa: ARG002 - of the port
        caller_token: str,  # noqa: ARG002
        headers: Headers,  # noqa: ARG002
        challenge: str = "",  # noqa: ARG002
    ) -> bool:
        """See `OutboundCredentials.rejected`."""
        return False

    async def close(self) -> None:
        """Nothing runs."""


class StaticCredentials:
    """One header, parameter of the query or cookie, the same for all. See `OutboundCredentials`."""

    def __init__(self, settings: StaticAuth, secret: Secret, *, key: str) -> None:
        """Create it.

        Args:
            settings: Header, scheme and name.
            secret: The secret.
            key: The table, for errors.

        Raises:
            ConfigError: The secret cannot be sent in a header.
        """
        self._settings = settings
        self._secret = secret
        self._name = settings.header.lower().encode("ascii")
        try:
            self._headers()
        except CredentialsUnavailable as error:
            raise ConfigError(f"{key}: {error.detail}") from None

    async def headers(
        self,
        principal: Principal | None,  # noqa: ARG002 - of the port
        caller_token: str,  # noqa: ARG002
        *,
        deadline: float,  # noqa: ARG002
    ) -> Headers:
        """See `OutboundCredentials.headers`."""
        return self._headers()

    def _headers(self) -> Headers:
        secret = self._secret.value()
        if self._settings.query:
            return ((b"?" + self._settings.query.encode("ascii"), secret.encode()),)
        if self._settings.cookie:
            if not _cookie.fullmatch(secret):
                raise CredentialsUnavailable("the secret has characters that no cookie can have")
            return ((b"cookie", f"{self._settings.cookie}={secret}".encode()),)
        if self._settings.username:
            pair = f"{self._settings.username}:{secret}".encode()
            return ((self._name, b"Basic " + base64.b64encode(pair)),)
        if not (secret.isascii() and secret.isprintable()):
            raise CredentialsUnavailable("the secret has characters that no header can have")
        scheme = self._settings.scheme
        return ((self._name, f"{scheme} {secret}".encode() if scheme else secret.encode()),)

    def rejected(
        self,
        principal: Principal | None,  # noqa: ARG002 - of the port
        caller_token: str,  # noqa: ARG002
        headers: Headers,
        challenge: str = "",  # noqa: ARG002
    ) -> bool:
        """See `OutboundCredentials.rejected`: another secret is in the file by now, or none."""
        try:
            return self._headers() != headers
        except CredentialsUnavailable:
            return False

    async def close(self) -> None:
        """Nothing runs."""
