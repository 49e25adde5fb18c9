"""A JSON Web Key Set (RFC 7517), cached: where it is, which of its keys are used, for how long."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from joserfc import jwk
from joserfc.errors import JoseError
from msgspec import Struct

__all__ = ["CachedKeySet", "Fetch", "SigningKey", "file_reader", "parse_key_set"]

Fetch = Callable[[str, float], Awaitable[bytes]]
"""Gets a URL by a deadline on the event loop's clock; raises on anything but a whole answer."""

_MAX_KEYS = 64
_MAX_BYTES = 1 << 20
_MIN_RSA_BITS = 2_048
_FETCH_SECONDS = 5.0

_ALGORITHMS = {
    ("RSA", ""): frozenset({"RS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}

_log = logging.getLogger("seawall.identity")


class SigningKey(Struct, frozen=True):
    """A public key with the only algorithms it is used with, as token headers name them."""

    key: jwk.RSAKey | jwk.ECKey | jwk.OKPKey
    algorithms: frozenset[str]


def parse_key_set(document: bytes) -> dict[str, SigningKey]:
    """The usable signing keys by their id; "" for a key that has none.

    The algorithm follows from the key, never from a token: RSA of 2,048 bits or more is for
    RS256, P-256 for ES256, Ed25519 for EdDSA (also called Ed25519 since RFC 9864). Whatever
    else is in the set, symmetric keys above all, is left out.

    Raises:
        ValueError: the document is not a key set.
    """
    if len(document) > _MAX_BYTES:
        raise ValueError(f"the key set exceeds {_MAX_BYTES} bytes")
    try:
        listed = msgspec.json.decode(document, type=_KeySet).keys
    except msgspec.DecodeError as error:
        raise ValueError(f"not a JSON Web Key Set: {error}") from error
    usable: dict[str, SigningKey] = {}
    for each in listed[:_MAX_KEYS]:
        key = _signing_key(each)
        if key is not None:
            usable[str(each.get("kid", ""))] = key
    return usable


class _KeySet(Struct):
    keys: list[dict[str, object]]


def _signing_key(listed: dict[str, object]) -> SigningKey | None:
    algorithms = _algorithms(listed)
    if not algorithms or listed.get("use", "sig") != "sig":
        return None
    if listed.get("alg", next(iter(algorithms))) not in algorithms:
        return None
    public: dict[str, str | list[str]] = {
        name: value
        for name, value in listed.items()
        if name in ("kty", "kid", "crv", "n", "e", "x", "y") and isinstance(value, str)
    }
    try:
        key = jwk.import_key(public)
        if isinstance(key, jwk.RSAKey) and key.raw_value.key_size < _MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError) as error:
        _log.warning("a key of the key set cannot be used: %s", error)
        return None
    if isinstance(key, jwk.RSAKey | jwk.ECKey | jwk.OKPKey):
        return SigningKey(key, algorithms)
    return None


def _algorithms(listed: dict[str, object]) -> frozenset[str]:
    crv = "" if listed.get("kty") == "RSA" else str(listed.get("crv"))
    return _ALGORITHMS.get((str(listed.get("kty")), crv), frozenset())


def file_reader(path: str) -> Fetch:
    """Reads a key set from a file, off the event loop."""

    async def read(_: str, __: float) -> bytes:
        return await asyncio.to_thread(Path(path).read_bytes)

    return read


class CachedKeySet:
    """Keys by id. Fetched when first needed, when old, and when an unknown id is asked for.

    However many ask at once, one fetch serves them all; however often strangers invent ids,
    fetches are `cooldown` seconds apart.
    """

    def __init__(
        self, fetch: Fetch, url: str, *, max_age: float, stale: float, cooldown: float
    ) -> None:
        self._fetch = fetch
        self._url = url
        self._max_age = max_age
        self._stale = stale
        self._cooldown = cooldown
        self._keys: dict[str, SigningKey] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    def current(self, kid: str) -> SigningKey | None:
        """The key, if it is known and fresh; no waiting."""
        age = asyncio.get_running_loop().time() - self._fetched_at
        return self._keys.get(kid) if age < self._max_age else None

    async def find(self, kid: str) -> SigningKey | None:
        """The key, after asking the provider where that is due; None if there is none.

        Raises:
            ConnectionError: there are no keys to judge by: the provider cannot be reached.
        """
        asked_at = asyncio.get_running_loop().time()
        if (key := self.current(kid)) is not None:
            return key
        await self._refresh(asked_at)
        age = asyncio.get_running_loop().time() - self._fetched_at
        if age >= self._max_age + self._stale:
            raise ConnectionError("the key set cannot be had")
        return self._keys.get(kid)

    async def _refresh(self, asked_at: float) -> None:
        """One fetch for all who ask while it is under way.

        Whoever holds the lock does the fetching, inside its own task: if it is cancelled, the
        next in line does it instead.
        """
        async with self._fetching:
            now = asyncio.get_running_loop().time()
            if self._fetched_at >= asked_at or now - self._tried_at < self._cooldown:
                return
            try:
                self._keys = parse_key_set(await self._fetch(self._url, now + _FETCH_SECONDS))
                self._fetched_at = asyncio.get_running_loop().time()
            except Exception as error:  # noqa: BLE001 - whatever a fetch may raise
                _log.warning("the key set cannot be fetched: %s", error)
            self._tried_at = now
