"""JSON Web Key Sets (RFC 7517) and their cache; signatures by their keys (RFC 7518, RFC 8037).

On the cryptographic library itself: the libraries for tokens above it import X.509, SSH and
encryption as well, and a cold start would wait for them. It is imported with the first key that
needs it; one of RS256 does not after a cold start (docs/decisions/007-tokens.md). The cache
has single flight and refresh, and uses stale keys in an outage.
"""

import asyncio
import hashlib
import logging
import time
from binascii import a2b_base64
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

__all__ = [
    "MAX_BYTES",
    "CachedKeySet",
    "Fetch",
    "SigningKey",
    "decode_base64url",
    "file_fetcher",
    "parse_key_set",
]

SignatureCheck = Callable[[bytes, bytes], bool]
"""Whether a signature (first argument) is the one of a text (second argument)."""

MAX_BYTES = 1 << 20
_MAX_KEYS = 64
_RSA_BITS = range(2_048, 8_192 + 1)
_COORDINATE_BYTES = 32
# The alphabet of base64url (RFC 4648 §5) onto that of base64; what only the latter has, and
# padding, onto something that neither has.
_alphabet = bytes.maketrans(b"-_+/=", b"+/!!!")
# What may come last, by the length modulo 4: bits that are not used are zero, so that each text has
# one encoding (RFC 4648 §3.5).
_endings = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}

_ALGORITHMS = {
    ("RSA", None): frozenset({"RS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}

_log = logging.getLogger("seawall.identity")


class SigningKey(Struct, frozen=True):
    """A public key: its check of signatures, and the names of its only algorithm in headers.

    The first use of most keys takes longer; `at_once` says that this one's does not.
    """

    check: SignatureCheck
    algorithms: frozenset[str]
    at_once: bool = False


class _JsonWebKey(Struct):
    """The members of a key that are read; all others are ignored."""

    kty: str
    kid: str = ""
    use: str = "sig"
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


class _KeySet(Struct):
    keys: list[msgspec.Raw]


def parse_key_set(document: bytes, *, light: bool = False) -> dict[str, SigningKey]:
    """Parse a key set into its usable signing keys, by their id.

    Args:
        document: The key set.
        light: For a cold start: RS256 is checked without the cryptographic library, whose import
            takes longer than the first eight such checks.

    The algorithm follows from the key, never from a token: RSA of 2,048 to 8,192 bits is for
    RS256, P-256 for ES256, Ed25519 for EdDSA (also called Ed25519 since RFC 9864). Everything
    else in the set, symmetric keys above all, is left out. A sole key is also found under "", by
    tokens that name none.

    Raises:
        ValueError: The document is not a key set, or is larger than 1 MiB or 64 keys.
    """
    if len(document) > MAX_BYTES:
        raise ValueError(f"the key set exceeds {MAX_BYTES} bytes")
    try:
        parsed = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set: {error}") from error
    if len(parsed) > _MAX_KEYS:
        raise ValueError(f"the key set has {len(parsed)} keys; at most {_MAX_KEYS} are read")
    usable: dict[str, SigningKey] = {}
    for each in parsed:
        _add(usable, each, light)
    if len(usable) == 1:
        usable[""] = next(iter(usable.values()))
    return usable


def _add(usable: dict[str, SigningKey], raw: msgspec.Raw, light: bool) -> None:
    """Add the key if it is usable; one that is not does not affect the others."""
    try:
        parsed = msgspec.json.decode(raw, type=_JsonWebKey)
        signing = _signing_key(parsed, light)
    except (msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
        _log.warning("ignored a key of the key set: %s", error)
        return
    if signing is None:
        return
    if parsed.kid in usable:
        _log.warning('the key set has more than one key "%.64s"; the first is used', parsed.kid)
        return
    usable[parsed.kid] = signing


def _signing_key(parsed: _JsonWebKey, light: bool) -> SigningKey | None:
    """Return the key, or None if it has another purpose.

    Raises:
        KeyError, ValueError, TypeError: It is malformed.
    """
    algorithms = _ALGORITHMS.get((parsed.kty, parsed.crv))
    if algorithms is None or parsed.use != "sig":
        return None
    if parsed.alg is not None and parsed.alg not in algorithms:
        return None
    if parsed.key_ops is not None and "verify" not in parsed.key_ops:
        return None
    public = {
        name: value
        for name in ("kty", "crv", "n", "e", "x", "y")
        if (value := getattr(parsed, name)) is not None
    }
    if light and parsed.kty == "RSA":
        modulus, exponent = _number(public, "n"), _number(public, "e")
        if _is_usual_rsa(modulus, exponent):
            return SigningKey(_rsa_in_python(modulus), algorithms, at_once=True)
    return SigningKey(signature_check(public), algorithms)


def decode_base64url(segment: bytes) -> bytes:
    """Decode base64url without padding.

    Raises:
        ValueError: It is not what an encoder makes.
    """
    remainder = len(segment) % 4
    if remainder in _endings and segment[-1] not in _endings[remainder]:
        raise ValueError("unused bits are set")
    padding = b"=" * (-remainder % 4)
    return a2b_base64(segment.translate(_alphabet) + padding, strict_mode=True)


def signature_check(key: Mapping[str, str]) -> SignatureCheck:
    """Make the check of signatures by a public key.

    Args:
        key: Members of a JSON Web Key: `kty` RSA with `n` and `e`; EC with `x` and `y` on P-256;
            OKP with `x` on Ed25519.

    Raises:
        KeyError: A member is missing.
        ValueError: It is not a key of that kind, or is too weak or too large.
    """
    match key["kty"]:
        case "RSA":
            return _rsa(_number(key, "n"), _number(key, "e"))
        case "EC":
            return _ec(_number(key, "x"), _number(key, "y"))
        case "OKP":
            return _okp(_bytes(key, "x"))
        case kind:
            raise ValueError(f"keys of type {kind!r} are not supported")


def _rsa(modulus: int, exponent: int) -> SignatureCheck:
    """RSASSA-PKCS1-v1_5 with SHA-256: RS256, RFC 7518 §3.3."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    key = RSAPublicNumbers(exponent, modulus).public_key()
    if key.key_size not in _RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits; 2048 to 8192 are accepted")
    padding, digest = PKCS1v15(), SHA256()

    def check(signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(signature, signed, padding, digest)
        except InvalidSignature:
            return False
        return True

    return check


_USUAL_EXPONENT = 65_537
_USUAL_BITS = range(2_048, 3_072 + 1)
_SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""What precedes a SHA-256 digest in a signature (RFC 8017 §9.2, note 1)."""


def _is_usual_rsa(modulus: int, exponent: int) -> bool:
    """Whether `_rsa_in_python` checks signatures by such a key; all others are the library's."""
    return exponent == _USUAL_EXPONENT and modulus % 2 == 1 and modulus.bit_length() in _USUAL_BITS


def _rsa_in_python(modulus: int) -> SignatureCheck:
    """RS256 by the steps of RFC 8017 §8.2.2, for keys with the exponent that all issuers use.

    The signature's power must equal, in each byte, what the signer encodes: nothing is parsed, and
    there is nothing secret in it. A check takes ten times as long as the library's.
    """
    size = (modulus.bit_length() + 7) // 8

    def check(signature: bytes, signed: bytes) -> bool:
        number = int.from_bytes(signature)
        if len(signature) != size or number >= modulus:
            return False
        info = _SHA256_INFO + hashlib.sha256(signed).digest()
        expected = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
        return pow(number, _USUAL_EXPONENT, modulus).to_bytes(size) == expected

    return check


def _ec(x: int, y: int) -> SignatureCheck:
    """ECDSA with P-256 and SHA-256, both numbers in 32 bytes: ES256, RFC 7518 §3.4."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import (  # noqa: PLC0415
        ECDSA,
        SECP256R1,
        EllipticCurvePublicNumbers,
    )
    from cryptography.hazmat.primitives.asymmetric.utils import (  # noqa: PLC0415
        encode_dss_signature,
    )
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    key = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    algorithm = ECDSA(SHA256())

    def check(signature: bytes, signed: bytes) -> bool:
        if len(signature) != 2 * _COORDINATE_BYTES:
            return False
        r = int.from_bytes(signature[:_COORDINATE_BYTES])
        s = int.from_bytes(signature[_COORDINATE_BYTES:])
        try:
            key.verify(encode_dss_signature(r, s), signed, algorithm)
        except InvalidSignature:
            return False
        return True

    return check


def _okp(public: bytes) -> SignatureCheck:
    """Ed25519: EdDSA, RFC 8037 §3.1."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    key = Ed25519PublicKey.from_public_bytes(public)

    def check(signature: bytes, signed: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return check


def _number(key: Mapping[str, str], name: str) -> int:
    """Decode a number, most significant byte first (RFC 7518 §2)."""
    return int.from_bytes(_bytes(key, name))


def _bytes(key: Mapping[str, str], name: str) -> bytes:
    # Some providers pad, though RFC 7515 §2 has it without.
    return decode_base64url(key[name].rstrip("=").encode("ascii"))


Fetch = Callable[[str, float], Awaitable[bytes]]
"""Gets a URL by a deadline on the event loop's clock; raises unless the answer is complete."""

_FETCH_SECONDS = 4.0  # below the limit of authentication, so that the fetch ends first
_MAX_CANCELLED_FETCHES = 3


def file_fetcher(path: str) -> Fetch:
    """Make a `Fetch` that reads a file, off the event loop."""

    def read() -> bytes:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1)

    async def fetch(_: str, __: float) -> bytes:
        return await asyncio.to_thread(read)

    return fetch


class CachedKeySet:
    """Keys by id. Fetched when first needed, when old, and when an unknown id is asked for.

    Concurrent lookups share one fetch, and fetches are at least `cooldown` apart, however many
    unknown ids are presented. Stale keys are used while another task fetches, and while the
    provider cannot be reached. Keys that the provider no longer lists are dropped with the next
    fetch.
    """

    def __init__(
        self,
        fetch: Fetch,
        url: str,
        *,
        max_age: float,
        max_stale: float,
        cooldown: float,
        clock: Callable[[], float] = time.monotonic,
        light: bool = False,
    ) -> None:
        """Create an empty cache.

        Args:
            fetch: Called with `url`.
            url: Address of the key set.
            max_age: How long keys are fresh, in seconds.
            max_stale: How long they may be used beyond that, in seconds.
            cooldown: Seconds between the starts of two fetches.
            clock: Monotonic seconds.
            light: See `parse_key_set`.
        """
        self._fetch = fetch
        self._light = light
        self._url = url
        self._max_age = max_age
        self._usable_age = max_age + max_stale
        self._cooldown = cooldown
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._document = b""
        self._fetched_at = float("-inf")
        self._attempted_at = float("-inf")
        self._cancelled_fetches = 0
        self._fetching = asyncio.Lock()

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """All keys, fresh or stale."""
        return tuple(self._keys.values())

    def current(self, kid: str) -> SigningKey | None:
        """Return the key if it is known and fresh, without waiting."""
        age = self._clock() - self._fetched_at
        return self._keys.get(kid) if age < self._max_age else None

    async def find(self, kid: str) -> SigningKey | None:
        """Return the key, after a fetch where one is due; None if there is no such key.

        Raises:
            ConnectionError: The provider cannot be reached, and there are no usable keys.
        """
        if (key := self.current(kid)) is not None:
            return key
        asked_at = self._clock()
        old = self._keys.get(kid) if asked_at - self._fetched_at < self._usable_age else None
        if old is not None and (self._fetching.locked() or not self._may_fetch(asked_at)):
            return old
        await self._refresh(asked_at)
        if self._clock() - self._fetched_at >= self._usable_age:
            raise ConnectionError("the key set cannot be fetched")
        return self._keys.get(kid)

    def _may_fetch(self, now: float) -> bool:
        return now - self._attempted_at >= self._cooldown

    async def _refresh(self, asked_at: float) -> None:
        """Fetch once for all concurrent lookups.

        The task that has the lock fetches; if it is cancelled, the next one fetches instead,
        without the cooldown. That is allowed a few times in a row only: otherwise a client that
        connects and disconnects could trigger fetches without end.
        """
        async with self._fetching:
            now = self._clock()
            if self._fetched_at >= asked_at or not self._may_fetch(now):
                return
            self._attempted_at = now
            deadline = asyncio.get_running_loop().time() + _FETCH_SECONDS
            try:
                async with asyncio.timeout_at(deadline):
                    document = await self._fetch(self._url, deadline)
                self._accept(document)
            except asyncio.CancelledError:
                if self._cancelled_fetches < _MAX_CANCELLED_FETCHES:
                    self._cancelled_fetches += 1
                    self._attempted_at = float("-inf")
                raise
            except Exception as error:  # noqa: BLE001 - anything that a fetch raises
                kind = type(error).__name__  # some have no message
                _log.warning("the key set cannot be fetched: %s: %s", kind, error)
            self._cancelled_fetches = 0

    def _accept(self, document: bytes) -> None:
        if document != self._document:
            self._keys = parse_key_set(document, light=self._light)
            self._document = document
            if not self._keys:
                _log.warning("the key set has no key for RS256, ES256 or EdDSA")
        self._fetched_at = self._clock()
