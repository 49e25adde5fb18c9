"""Who may come in: the configured ways, put together."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.errors import ConfigError, Unauthenticated
from seawall.identity.api_keys import PREFIX, ApiKeys
from seawall.identity.port import Anonymous, Authenticator, Bearer, Credential, Trusted
from seawall.identity.settings import IdentitySettings, JwtSettings
from seawall.turn import Principal

if TYPE_CHECKING:  # the cryptography behind it is imported only where tokens are configured
    from seawall.identity.jwt import JwtVerifier
    from seawall.identity.key_cache import Fetch

__all__ = ["build_authenticator"]

_ANONYMOUS = Principal("local", "anonymous")
_NO_KEYS = "API keys are not accepted here: the configuration has no section [[identity.api_keys]]."


def build_authenticator(
    settings: IdentitySettings,
    fetch: "Fetch",
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Authenticator:
    """What the settings say; without any, nobody comes in.

    fetch: gets the key set of `jwks_url`. clock: Unix seconds, for the times in tokens.
    monotonic: seconds, for the age of keys.

    Raises:
        ConfigError: the key set's file cannot be read, or has no usable key.
    """
    verifier = None
    if settings.jwt is not None:
        verifier = _build_verifier(settings.jwt, fetch, clock, monotonic)
    return _Authenticator(settings.anonymous, verifier, ApiKeys(settings.api_keys))


def _build_verifier(
    settings: JwtSettings,
    fetch: "Fetch",
    clock: Callable[[], float],
    monotonic: Callable[[], float],
) -> "JwtVerifier":
    from seawall.identity.jwt import JwtVerifier  # noqa: PLC0415 - see TYPE_CHECKING above
    from seawall.identity.key_cache import CachedKeySet, file_fetcher  # noqa: PLC0415 - likewise

    max_age = settings.max_age_seconds
    if settings.jwks_file:
        _check_file(settings.jwks_file)
        fetch = file_fetcher(settings.jwks_file)
        max_age = min(max_age, settings.cooldown_seconds)  # a look at a file costs nobody anything
    keys = CachedKeySet(
        fetch,
        settings.jwks_url,
        max_age=max_age,
        max_stale=settings.stale_seconds,
        cooldown=settings.cooldown_seconds,
        clock=monotonic,
    )
    return JwtVerifier(settings, keys, clock=clock)


def _check_file(path: str) -> None:
    """A mistake in the configuration shows at the start, not with the first customer."""
    from seawall.identity.jwks import parse_key_set  # noqa: PLC0415 - see TYPE_CHECKING above

    try:
        usable = parse_key_set(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"identity.jwt.jwks_file: {path}: {error}") from error
    if not usable:
        raise ConfigError(
            f"identity.jwt.jwks_file: {path}: holds no public key for RS256, ES256 or EdDSA"
        )


class _Authenticator:
    """See `Authenticator`."""

    def __init__(self, anonymous: bool, verifier: "JwtVerifier | None", keys: ApiKeys) -> None:
        self._anonymous = anonymous
        self._verifier = verifier
        self._keys = keys

    def unverified_principal(self, credential: Credential) -> Principal | None:
        """See `Authenticator.unverified_principal`."""
        if isinstance(credential, Trusted):
            return credential.principal
        if isinstance(credential, Anonymous):
            return _ANONYMOUS if self._anonymous and credential.loopback else None
        if credential.api_key and (principal := self._keys.find(credential.api_key)):
            return principal
        if credential.secret.startswith(PREFIX):
            return self._keys.find(credential.secret)  # claims nothing, but is as quickly known
        return self._verifier.unverified_principal(credential.secret) if self._verifier else None

    def authenticate_now(self, credential: Credential) -> Principal | None:
        """See `Authenticator.authenticate_now`."""
        if isinstance(credential, Trusted):
            return credential.principal
        if isinstance(credential, Anonymous):
            if not self._anonymous:
                raise Unauthenticated("A credential is needed.")
            if not credential.loopback:
                raise Unauthenticated(f"A credential is needed: {credential.reason}.")
            return _ANONYMOUS
        if credential.api_key and (principal := self._keys.find(credential.api_key)):
            return principal
        if credential.secret.startswith(PREFIX):
            return self._verify_api_key(credential.secret)
        if self._verifier is None:
            raise Unauthenticated(self._refusal_without_verifier(credential.secret))
        return self._verifier.verify_now(credential.secret)

    def _verify_api_key(self, secret: str) -> Principal:
        if not self._keys:
            raise Unauthenticated(_NO_KEYS)
        principal = self._keys.find(secret)
        if principal is None:
            raise Unauthenticated("The API key is not known.")
        return principal

    def _refusal_without_verifier(self, secret: str) -> str:
        """Why a secret that is not one of our keys is refused where no tokens are accepted."""
        if secret.count(".") == 2:
            return "Tokens are not accepted here: the configuration has no section [identity.jwt]."
        if not self._keys:
            return _NO_KEYS
        return f"The API key is not known: keys of this server begin with {PREFIX}."

    async def authenticate(self, credential: Credential) -> Principal:
        """See `Authenticator.authenticate`."""
        principal = self.authenticate_now(credential)
        if principal is None and self._verifier is not None and isinstance(credential, Bearer):
            principal = await self._verifier.verify(credential.secret)
        if principal is None:
            raise Unauthenticated("The credential is not accepted here.")
        return principal

    async def warm(self) -> None:
        """See `Authenticator.warm`."""
        if self._verifier is not None:
            await self._verifier.warm()
