"""Verification of JSON Web Tokens (RFC 7519) of one issuer, with the keys that it publishes."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from seawall.errors import IdentityUnavailable, Unauthenticated
from seawall.identity.jwks import CachedKeySet, SigningKey, decode_base64url
from seawall.identity.settings import JwtSettings, check_name, claimed_roles
from seawall.turn import Principal

__all__ = ["JwtVerifier"]

_MAX_TOKEN_CHARACTERS = 8_192
_MAX_REMEMBERED = 4_096
_REMEMBERED_HEADERS = 64
# RFC 7519 §5.1, RFC 9068 §2.1. Any other kind, such as logout+jwt, is not a credential.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# Raised for text that is not a token.
_PARSE_ERRORS = (msgspec.DecodeError, ValueError, TypeError, RecursionError)


class _Header(Struct, frozen=True):
    """The members that are used. Keys and addresses of keys in a header never are."""

    alg: str
    kid: str = ""
    typ: str = "JWT"
    crit: msgspec.Raw | UnsetType = UNSET


class _ParsedToken(Struct, frozen=True):
    """The parts of a token, not verified yet; the signature is of `signed`."""

    header: _Header
    payload: bytes
    signed: bytes
    signature: bytes


class _Verified(Struct, frozen=True):
    """What the verification of a token has found; `begins` and `ends` are in Unix seconds.

    It is valid from `begins` until before `ends`, with the leeway, while its key is `key`.
    """

    principal: Principal
    kid: str
    key: SigningKey
    begins: float
    ends: float


class _Claims(Struct):
    iss: str
    exp: float
    nbf: float | None = None
    iat: float | None = None
    aud: str | list[str] | None = None


_decode_header = msgspec.json.Decoder(_Header).decode
_decode_claims = msgspec.json.Decoder(dict[str, Any]).decode


class JwtVerifier:
    """Verifies tokens; `clock` gives Unix seconds."""

    def __init__(
        self, settings: JwtSettings, keys: CachedKeySet, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._verified: dict[bytes, _Verified] = {}  # by digest, the oldest first

    def unverified_principal(self, token: str) -> Principal | None:
        """Return the principal that the token claims, unverified; None if it cannot be read."""
        if (known := self._verified.get(_digest(token))) is not None:
            return known.principal
        try:
            return self._principal(_decode_claims(_parse(token).payload))
        except (Unauthenticated, *_PARSE_ERRORS):
            return None

    async def warm(self) -> None:
        """Fetch the keys ahead of the first token, if the provider answers, and use each once.

        The first use of a key takes the cryptographic library milliseconds, valid or not.
        """
        with suppress(ConnectionError):
            await self._keys.find("")
        for key in (each for each in self._keys.keys if not each.at_once):
            for name in sorted(key.algorithms)[:1]:
                size = 256 if name == "RS256" else 64  # another length would be refused unchecked
                signed = _ParsedToken(_Header(alg=name), b"", b"a.b", b"\1" * size)
                with suppress(Unauthenticated):
                    _check_signature(signed, key)

    async def verify(self, token: str) -> Principal:
        """Verify a token and return its principal; waits only when a key has to be fetched.

        Errors in the claims are only described to a caller whose token the issuer signed.

        Raises:
            Unauthenticated: The token is not valid.
            IdentityUnavailable: The issuer's keys cannot be fetched, so no token can be verified.
        """
        signed = _parse(token)
        key = self._keys.current(signed.header.kid)
        if key is None:
            key = await self._find_key(signed.header.kid)
        digest = _digest(token)
        known = self._valid(digest, key)
        return known if known is not None else self._remember(digest, signed, key)

    def verify_now(self, token: str) -> Principal | None:
        """Verify without waiting; None when a key has to be fetched. Raises as `verify` does.

        A token that was verified before is known by its digest: then only its times are checked,
        and that its key is still the provider's.
        """
        digest = _digest(token)
        if (verified := self._verified.get(digest)) is not None:
            key = self._keys.current(verified.kid)
            if key is not None and (known := self._valid(digest, key)) is not None:
                return known
        signed = _parse(token)
        key = self._keys.current(signed.header.kid)
        return None if key is None else self._remember(digest, signed, key)

    def _valid(self, digest: bytes, key: SigningKey) -> Principal | None:
        """The principal of a token that was verified with this key, if it is valid now."""
        known = self._verified.get(digest)
        if known is None or known.key is not key or not known.begins <= self._clock() < known.ends:
            return None
        return known.principal

    def _remember(self, digest: bytes, signed: _ParsedToken, key: SigningKey) -> Principal:
        """Verify a token, and know it from now on."""
        self._verified.pop(digest, None)
        verified = self._verify_parsed(signed, key)
        if len(self._verified) >= _MAX_REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = verified
        return verified.principal

    def _verify_parsed(self, signed: _ParsedToken, key: SigningKey) -> _Verified:
        _check_signature(signed, key)
        try:
            claims = _decode_claims(signed.payload)
            registered = msgspec.convert(claims, _Claims)
        except msgspec.ValidationError as error:
            raise Unauthenticated(f"The token's claims cannot be used: {error}.") from error
        except _PARSE_ERRORS as error:
            raise Unauthenticated("The token's claims cannot be read.") from error
        self._check_claims(registered)
        leeway = self._settings.leeway_seconds
        begins = max(registered.nbf or -math.inf, registered.iat or -math.inf) - leeway
        ends = registered.exp + leeway
        return _Verified(self._principal(claims), signed.header.kid, key, begins, ends)

    async def _find_key(self, kid: str) -> SigningKey:
        try:
            key = await self._keys.find(kid)
        except ConnectionError as error:
            raise IdentityUnavailable(
                "Tokens cannot be verified now; try again later.", retry_after=5.0
            ) from error
        if key is None:
            raise Unauthenticated("The token is signed with a key that is not known.")
        return key

    def _check_claims(self, claims: _Claims) -> None:
        """Check the registered claims (RFC 7519 §4.1)."""
        now, leeway = self._clock(), self._settings.leeway_seconds
        if claims.iss != self._settings.issuer:
            raise Unauthenticated("The token is of another issuer.")
        audience = self._settings.audience
        if audience:
            audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
            if audience not in audiences:
                raise Unauthenticated("The token is meant for another audience.")
        if not now < claims.exp + leeway:
            raise Unauthenticated("The token has expired.")
        for earliest in (claims.nbf, claims.iat):
            if earliest is not None and not earliest <= now + leeway:
                raise Unauthenticated("The token is not valid yet.")

    def _principal(self, claims: dict[str, Any]) -> Principal:
        settings = self._settings
        tenant = settings.tenant or _claim(claims, settings.tenant_claim, "tenant")
        subject = _claim(claims, settings.subject_claim, "subject")
        return Principal(tenant, subject, claimed_roles(_find(claims, settings.roles_claim)))


def _digest(token: str) -> bytes:
    """By which a token is known: tokens themselves are not kept."""
    return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _parse(token: str) -> _ParsedToken:
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise Unauthenticated("The token is too long.")
    try:
        signed, _, signature = token.encode("ascii").rpartition(b".")
        header, payload = signed.split(b".")
        read = _ParsedToken(
            _parse_header(header), decode_base64url(payload), signed, decode_base64url(signature)
        )
    except _PARSE_ERRORS as error:
        raise Unauthenticated("The token is malformed.") from error
    # RFC 7515 §4: unknown members are ignored, unless crit forbids it.
    if read.header.crit is not UNSET or read.header.typ.lower() not in _TYPES:
        raise Unauthenticated("Tokens of this type are not accepted.")
    return read


@lru_cache(_REMEMBERED_HEADERS)
def _parse_header(segment: bytes) -> _Header:
    """A token's header; all tokens that an issuer signs with a key have the same."""
    return _decode_header(decode_base64url(segment))


def _check_signature(signed: _ParsedToken, key: SigningKey) -> None:
    if signed.header.alg not in key.algorithms:
        raise Unauthenticated("The token's algorithm does not match its key.")
    if not key.check(signed.signature, signed.signed):
        raise Unauthenticated("The token's signature is not valid.")


def _claim(claims: dict[str, Any], path: str, what: str) -> str:
    try:
        return check_name(_find(claims, path))
    except ValueError as error:
        raise Unauthenticated(f"The token does not name a {what}.") from error


def _find(claims: dict[str, Any], path: str) -> object:
    """Read a claim by its name, or by a dotted path into nested ones."""
    value: Any = claims.get(path)
    if value is None and "." in path:
        value = claims
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return value
