"""Who may come in: the configured ways, put together."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seawall.errors import ConfigError, Unauthenticated
from seawall.identity.api_keys import PREFIX, ApiKeys
from seawall.identity.port import Anonymous, Authenticator, Bearer, Credential, Trusted
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.turn import Principal

if TYPE_CHECKING:  # the cryptography behind it is imported only where tokens are configured
    from seawall.identity.jwks import Fetch
    from seawall.identity.jwt import JwtVerifier

__all__ = ["build_authenticator"]

_ANONYMOUS = Principal("local", "anonymous")


def build_authenticator(
    settings: IdentitySettings, fetch: "Fetch", *, clock: Callable[[], float] = time.time
) -> Authenticator:
    """What the settings say; without any, nobody comes in.

    fetch: gets the key set of `jwks_url`. clock: Unix seconds, for the times in tokens.

    Raises:
        ConfigError: the settings contradict themselves.
    """
    verifier = None
    if settings.jwt is not None:
        verifier = _build_verifier(settings.jwt, fetch, clock)
    return _Authenticator(settings.anonymous, verifier, ApiKeys(settings.api_keys))


def _build_verifier(
    settings: JwtSettings, fetch: "Fetch", clock: Callable[[], float]
) -> "JwtVerifier":
    from seawall.identity.jwks import CachedKeySet, file_reader  # noqa: PLC0415
    from seawall.identity.jwt import JwtVerifier  # noqa: PLC0415

    if bool(settings.jwks_url) == bool(settings.jwks_file):
        raise ConfigError("identity.jwt: set exactly one of jwks_url and jwks_file")
    where = urlsplit(settings.jwks_url)
    if settings.jwks_url and where.scheme != "https" and where.hostname not in _LOOPBACK:
        raise ConfigError("identity.jwt.jwks_url: must be https")
    keys = CachedKeySet(
        file_reader(settings.jwks_file) if settings.jwks_file else fetch,
        settings.jwks_url,
        max_age=settings.max_age_seconds,
        stale=settings.stale_seconds,
        cooldown=settings.cooldown_seconds,
    )
    return JwtVerifier(settings, keys, clock=clock)


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Authenticator:
    def __init__(self, anonymous: bool, verifier: "JwtVerifier | None", keys: ApiKeys) -> None:
        self._anonymous = anonymous
        self._verifier = verifier
        self._keys = keys

    def claimed(self, credential: Credential) -> Principal | None:
        """See `Authenticator.claimed`."""
        if isinstance(credential, Trusted):
            return credential.principal
        if isinstance(credential, Bearer) and not credential.secret.startswith(PREFIX):
            return self._verifier.claimed(credential.secret) if self._verifier else None
        return None

    async def authenticate(self, credential: Credential) -> Principal:
        """See `Authenticator.authenticate`."""
        if isinstance(credential, Trusted):
            return credential.principal
        if isinstance(credential, Anonymous):
            if self._anonymous and credential.loopback:
                return _ANONYMOUS
            raise Unauthenticated("A credential is needed.")
        if credential.secret.startswith(PREFIX):
            principal = self._keys.find(credential.secret)
            if principal is None:
                raise Unauthenticated("The API key is not known.")
            return principal
        if self._verifier is None:
            raise Unauthenticated("Tokens are not accepted here.")
        return await self._verifier.verify(credential.secret)

    async def warm(self) -> None:
        """See `Authenticator.warm`."""
        if self._verifier is not None:
            await self._verifier.warm()
