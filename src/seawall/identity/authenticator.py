"""Authentication by API key, JSON Web Token or anonymously, as configured.

An API key is 256 random bits, of which only the SHA-256 digest is configured. A slow password hash
would protect nothing here: such keys cannot be guessed, whatever the speed (NIST SP 800-63B-4
§3.1.2.2 asks for it only below 112 bits of entropy).
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seawall.errors import ConfigError, Unauthenticated
from seawall.identity import (
    ANONYMOUS,
    API_KEY_PREFIX,
    Anonymous,
    Authenticator,
    Bearer,
    Credential,
    Trusted,
)
from seawall.identity.settings import ApiKeySettings, IdentitySettings, JwtSettings
from seawall.turn import Principal

if TYPE_CHECKING:  # the cryptography behind it is imported only where tokens are configured
    from seawall.identity.jwks import Fetch
    from seawall.identity.jwt import JwtVerifier

__all__ = ["ApiKeys", "build_authenticator", "new_key"]

_MAX_KEY_CHARACTERS = 256
_NO_KEYS = "API keys are not accepted here: the configuration has no section [[identity.api_keys]]."


def build_authenticator(
    settings: IdentitySettings,
    fetch: "Fetch",
    *,
    light: bool = False,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Authenticator:
    """Build the authenticator of the settings; an empty section accepts no credential at all.

    Args:
        settings: The section `[identity]`.
        fetch: Gets the key set of `jwks_url`.
        light: For a cold start; see `jwks.parse_key_set`.
        clock: Unix seconds, for the times in tokens.
        monotonic: Seconds, for the age of keys.

    Raises:
        ConfigError: The key set's file cannot be read, or has no usable key.
    """
    verifier = None
    if settings.jwt is not None:
        verifier = _build_verifier(settings.jwt, fetch, clock, monotonic, light=light)
    return _Authenticator(settings.anonymous, verifier, ApiKeys(settings.api_keys))


def _build_verifier(
    settings: JwtSettings,
    fetch: "Fetch",
    clock: Callable[[], float],
    monotonic: Callable[[], float],
    *,
    light: bool,
) -> "JwtVerifier":
    from seawall.identity.jwks import CachedKeySet, file_fetcher  # noqa: PLC0415 - likewise
    from seawall.identity.jwt import JwtVerifier  # noqa: PLC0415 - see TYPE_CHECKING above

    max_age = settings.max_age_seconds
    if settings.jwks_file:
        _check_file(settings.jwks_file, light=light)
        fetch = file_fetcher(settings.jwks_file)
        max_age = min(max_age, settings.cooldown_seconds)  # reading a file is cheap
    keys = CachedKeySet(
        fetch,
        settings.jwks_url,
        max_age=max_age,
        max_stale=settings.stale_seconds,
        cooldown=settings.cooldown_seconds,
        clock=monotonic,
        light=light,
    )
    return JwtVerifier(settings, keys, clock=clock)


def _check_file(path: str, *, light: bool) -> None:
    """Read the key set's file once, to find a mistake before the first request."""
    from seawall.identity.jwks import parse_key_set  # noqa: PLC0415 - see TYPE_CHECKING above

    try:
        usable = parse_key_set(Path(path).read_bytes(), light=light)
    except (OSError, ValueError) as error:
        raise ConfigError(f"identity.jwt.jwks_file: {path}: {error}") from error
    if not usable:
        raise ConfigError(
            f"identity.jwt.jwks_file: {path}: has no public key for RS256, ES256 or EdDSA"
        )


def new_key() -> tuple[str, str]:
    """Create an API key: the key, and the digest to configure."""
    key = API_KEY_PREFIX + secrets.token_urlsafe(32)
    return key, _digest(key)


class ApiKeys:
    """The configured API keys."""

    def __init__(self, settings: Sequence[ApiKeySettings]) -> None:
        self._configured = [
            (each.sha256.encode("ascii"), Principal(each.tenant, each.subject, each.roles))
            for each in settings
        ]

    def __len__(self) -> int:
        return len(self._configured)

    def find(self, key: str) -> Principal | None:
        """Return the principal of a key, or None if it is not configured.

        The work is the same for a wrong key as for any right one: one digest, and one comparison
        in constant time with each configured digest.
        """
        if len(key) > _MAX_KEY_CHARACTERS:
            return None
        digest = _digest(key).encode("ascii")
        found = None
        for configured, principal in self._configured:
            if hmac.compare_digest(configured, digest):
                found = principal
        return found


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


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
            return ANONYMOUS if self._anonymous and credential.loopback else None
        if credential.api_key and (principal := self._keys.find(credential.api_key)):
            return principal
        if credential.secret.startswith(API_KEY_PREFIX):
            return self._keys.find(credential.secret)  # as cheap as a claim
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
            return ANONYMOUS
        if credential.api_key and (principal := self._keys.find(credential.api_key)):
            return principal
        if credential.secret.startswith(API_KEY_PREFIX):
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
        """Explain why a secret that is not an API key is refused where no tokens are accepted."""
        if secret.count(".") == 2:
            return "Tokens are not accepted here: the configuration has no section [identity.jwt]."
        if not self._keys:
            return _NO_KEYS
        return f"The API key is not known: keys of this server begin with {API_KEY_PREFIX}."

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
