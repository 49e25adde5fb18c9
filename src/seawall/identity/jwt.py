"""JSON Web Tokens (RFC 7519) of one issuer, verified with the keys that it publishes."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from msgspec import Struct

from seawall.errors import IdentityUnavailable, Unauthenticated
from seawall.identity.jwks import SigningKey
from seawall.identity.key_cache import CachedKeySet
from seawall.identity.settings import JwtSettings, check_name
from seawall.turn import Principal

__all__ = ["JwtVerifier"]

_MAX_TOKEN_CHARACTERS = 8_192
# RFC 7519 §5.1, RFC 9068 §2.1. Any other kind, such as logout+jwt, is not a credential.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# What joserfc and msgspec raise on text that is not a token.
_UNREADABLE = (JoseError, msgspec.DecodeError, ValueError, TypeError, RecursionError)


class _Header(Struct):
    alg: str
    kid: str = ""
    typ: str = "JWT"


class _Claims(Struct):
    iss: str
    exp: float
    nbf: float | None = None
    iat: float | None = None
    aud: str | list[str] | None = None


class _Registry(jws.JWSRegistry):
    """The four names of the three algorithms, and none of joserfc's other ones.

    joserfc would warn at every use of the name EdDSA, since it leaves the curve open; here the
    key says which curve it is.
    """

    max_header_length = _MAX_TOKEN_CHARACTERS
    max_payload_length = _MAX_TOKEN_CHARACTERS
    max_signature_length = _MAX_TOKEN_CHARACTERS

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in ("RS256", "ES256", "EdDSA", "Ed25519"):
            raise UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


# RFC 7515 §4: header parameters that are not understood are ignored, unless crit names them.
_registry = _Registry(strict_check_header=False)
_decode_claims = msgspec.json.Decoder(dict[str, Any]).decode


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
            return self._principal(_decode_claims(_read(token).payload or b""))
        except (Unauthenticated, *_UNREADABLE):
            return None

    async def warm(self) -> None:
        """Fetch the keys ahead of the first token, if they can be had."""
        with suppress(ConnectionError):
            await self._keys.find("")

    async def verify(self, token: str) -> Principal:
        """The principal. Waits only when a key has to be fetched.

        What is wrong with the claims is only told to whoever holds a token that the issuer signed.

        Raises:
            Unauthenticated: the token is not valid.
            IdentityUnavailable: the issuer's keys cannot be had, so nothing can be said.
        """
        signed = _read(token)
        header = _read_header(signed)
        key = self._keys.current(header.kid)
        if key is None:
            key = await self._find(header.kid)
        _check_signature(signed, header, key)
        try:
            claims = _decode_claims(signed.payload or b"")
            registered = msgspec.convert(claims, _Claims)
        except msgspec.ValidationError as error:
            raise Unauthenticated(f"The token's claims cannot be used: {error}.") from error
        except _UNREADABLE as error:
            raise Unauthenticated("The token's claims cannot be read.") from error
        self._check(registered)
        return self._principal(claims)

    async def _find(self, kid: str) -> SigningKey:
        try:
            key = await self._keys.find(kid)
        except ConnectionError as error:
            raise IdentityUnavailable(
                "Tokens cannot be verified now; try again later.", retry_after=5.0
            ) from error
        if key is None:
            raise Unauthenticated("The token is signed with a key that is not known.")
        return key

    def _check(self, claims: _Claims) -> None:
        """RFC 7519 §4.1."""
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
        tenant = settings.tenant or _claim(claims, settings.tenant_claim, "tenant")
        return Principal(tenant, _claim(claims, settings.subject_claim, "subject"))


def _read(token: str) -> jws.CompactSignature:
    """The parts of a token, of which nothing is proved yet."""
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise Unauthenticated("The token is too long.")
    try:
        return jws.extract_compact(token.encode("ascii"), None, _registry)
    except _UNREADABLE as error:
        raise Unauthenticated("The token is malformed.") from error


def _read_header(signed: jws.CompactSignature) -> _Header:
    """The header as far as it is heeded. Keys and addresses of keys in it never are."""
    try:
        header = msgspec.convert(signed.protected, _Header)
    except msgspec.ValidationError as error:
        raise Unauthenticated("The token is malformed.") from error
    if "crit" in signed.protected or header.typ.lower() not in _TYPES:
        raise Unauthenticated("The token is not of a kind that is accepted.")
    return header


def _check_signature(signed: jws.CompactSignature, header: _Header, key: SigningKey) -> None:
    if header.alg not in key.algorithms:
        raise Unauthenticated("The token's algorithm is not the one of its key.")
    try:
        valid = jws.validate_compact(signed, key.key, registry=_registry)
    except _UNREADABLE:
        valid = False
    if not valid:
        raise Unauthenticated("The token's signature is not valid.")


def _claim(claims: dict[str, Any], path: str, what: str) -> str:
    """A claim by its name, or by a dotted path into nested ones."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    try:
        return check_name(value)
    except ValueError as error:
        raise Unauthenticated(f"The token does not name a {what}.") from error
