"""JSON Web Tokens (RFC 7519) of one issuer, verified with the keys that it publishes."""

import base64
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from msgspec import Struct

from seawall.errors import IdentityUnavailable, Unauthenticated
from seawall.identity.jwks import CachedKeySet, SigningKey
from seawall.identity.settings import JwtSettings
from seawall.turn import Principal

__all__ = ["JwtVerifier"]

_MAX_TOKEN_CHARACTERS = 8_192
_MAX_NAME_CHARACTERS = 256
_TYPES = (None, "JWT", "jwt", "at+jwt", "application/at+jwt")


class _Header(Struct):
    alg: str
    kid: str = ""
    typ: str | None = None
    crit: list[str] | None = None


class _Claims(Struct):
    iss: str
    exp: float
    nbf: float | None = None
    iat: float | None = None
    aud: str | list[str] | None = None


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(_Claims).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class JwtVerifier:
    """Verifies tokens. `clock` gives Unix seconds."""

    def __init__(
        self, settings: JwtSettings, keys: CachedKeySet, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock

    def claimed(self, token: str) -> Principal | None:
        """Who the token says it is, unverified."""
        try:
            _, payload = _parts(token)
            return self._principal(_decode_object(payload))
        except (Unauthenticated, msgspec.DecodeError, UnicodeDecodeError):
            return None

    async def warm(self) -> None:
        """Fetch the keys ahead of the first token, if they can be had."""
        with suppress(ConnectionError):
            await self._keys.find("")

    async def verify(self, token: str) -> Principal:
        """The principal. Waits only when a key has to be fetched.

        Raises:
            Unauthenticated: the token is not valid.
            IdentityUnavailable: the issuer's keys cannot be had, so nothing can be said.
        """
        try:
            raw_header, payload = _parts(token)
            header = _decode_header(raw_header)
            claims = _decode_claims(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unauthenticated("The token is malformed.") from error
        if header.crit is not None or header.typ not in _TYPES:
            raise Unauthenticated("The token is not of a kind that is accepted.")
        self._check(claims)
        key = self._keys.current(header.kid)
        if key is None:
            try:
                key = await self._keys.find(header.kid)
            except ConnectionError as error:
                raise IdentityUnavailable(
                    "Tokens cannot be verified now; try again later.", retry_after=5.0
                ) from error
        if key is None:
            raise Unauthenticated("The token is signed with a key that is not known.")
        _verify_signature(token, header.alg, key)
        return self._principal(_decode_object(payload))

    def _check(self, claims: _Claims) -> None:
        """RFC 7519 §4.1; cheap, so before the signature."""
        now, leeway = self._clock(), self._settings.leeway_seconds
        if claims.iss != self._settings.issuer:
            raise Unauthenticated("The token is of another issuer.")
        audience = self._settings.audience
        if audience:
            meant = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
            if audience not in meant:
                raise Unauthenticated("The token is meant for another audience.")
        if not now < claims.exp + leeway:
            raise Unauthenticated("The token has expired.")
        for earliest in (claims.nbf, claims.iat):
            if earliest is not None and not earliest <= now + leeway:
                raise Unauthenticated("The token is not valid yet.")

    def _principal(self, claims: dict[str, Any]) -> Principal:
        settings = self._settings
        tenant = settings.tenant or _claim(claims, settings.tenant_claim)
        subject = _claim(claims, settings.subject_claim)
        return Principal(_name(tenant, "tenant"), _name(subject, "subject"))


def _parts(token: str) -> tuple[bytes, bytes]:
    """Header and payload as JSON text."""
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise Unauthenticated("The token is too long.")
    parts = token.split(".")
    if len(parts) != 3:
        raise Unauthenticated("The token is malformed.")
    try:
        header, payload = (
            base64.b64decode(f"{part}==", altchars=b"-_", validate=False) for part in parts[:2]
        )
    except ValueError as error:
        raise Unauthenticated("The token is malformed.") from error
    return header, payload


def _verify_signature(token: str, algorithm: str, key: SigningKey) -> None:
    if algorithm not in key.algorithms:
        raise Unauthenticated("The token's algorithm is not the one of its key.")
    try:
        jws.deserialize_compact(token, key.key, algorithms=list(key.algorithms))
    except (JoseError, ValueError) as error:
        raise Unauthenticated("The token's signature is not valid.") from error


def _claim(claims: dict[str, Any], path: str) -> object:
    """A claim by its name, or by a dotted path into nested ones."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _name(value: object, what: str) -> str:
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= _MAX_NAME_CHARACTERS
        or not value.isprintable()
    ):
        raise Unauthenticated(f"The token does not name a {what}.")
    return value
