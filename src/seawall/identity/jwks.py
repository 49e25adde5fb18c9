"""JSON Web Key Sets (RFC 7517), and signatures by their keys (RFC 7518, RFC 8037).

On the cryptographic library itself: the libraries for tokens above it import X.509, SSH and
encryption as well, and a cold start would wait for them (docs/decisions/007-tokens.md).
"""

import logging
from binascii import a2b_base64
from collections.abc import Callable, Mapping

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

__all__ = ["MAX_BYTES", "SigningKey", "decode_base64url", "parse_key_set"]

SignatureCheck = Callable[[bytes, bytes], bool]
"""Whether a signature (first argument) is the one of a text (second argument)."""

MAX_BYTES = 1 << 20
_MAX_KEYS = 64
_RSA_BITS = range(2_048, 8_192 + 1)
_COORDINATE_BYTES = 32
# The alphabet of base64url (RFC 4648 §5) onto that of base64; what only the latter has, and
# padding, onto something that neither has.
_alphabet = bytes.maketrans(b"-_+/=", b"+/!!!")

_ALGORITHMS = {
    ("RSA", None): frozenset({"RS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}

_log = logging.getLogger("seawall.identity")


class SigningKey(Struct, frozen=True):
    """A public key: its check of signatures, and the names of its only algorithm in headers."""

    check: SignatureCheck
    algorithms: frozenset[str]


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


def parse_key_set(document: bytes) -> dict[str, SigningKey]:
    """Parse a key set into its usable signing keys, by their id.

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
        _add(usable, each)
    if len(usable) == 1:
        usable[""] = next(iter(usable.values()))
    return usable


def _add(usable: dict[str, SigningKey], raw: msgspec.Raw) -> None:
    """Add the key if it is usable; one that is not does not affect the others."""
    try:
        parsed = msgspec.json.decode(raw, type=_JsonWebKey)
        signing = _signing_key(parsed)
    except (msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
        _log.warning("ignored a key of the key set: %s", error)
        return
    if signing is None:
        return
    if parsed.kid in usable:
        _log.warning('the key set has more than one key "%.64s"; the first is used', parsed.kid)
        return
    usable[parsed.kid] = signing


def _signing_key(parsed: _JsonWebKey) -> SigningKey | None:
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
    return SigningKey(signature_check(public), algorithms)


def decode_base64url(segment: bytes) -> bytes:
    """Decode base64url without padding.

    Raises:
        ValueError: It is not valid.
    """
    padding = b"=" * (-len(segment) % 4)
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
            return _rsa(RSAPublicNumbers(_number(key, "e"), _number(key, "n")).public_key())
        case "EC":
            numbers = EllipticCurvePublicNumbers(_number(key, "x"), _number(key, "y"), SECP256R1())
            return _ec(numbers.public_key())
        case "OKP":
            return _okp(Ed25519PublicKey.from_public_bytes(_bytes(key, "x")))
        case kind:
            raise ValueError(f"keys of type {kind!r} are not supported")


def _rsa(key: RSAPublicKey) -> SignatureCheck:
    """RSASSA-PKCS1-v1_5 with SHA-256: RS256, RFC 7518 §3.3."""
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


def _ec(key: EllipticCurvePublicKey) -> SignatureCheck:
    """ECDSA with P-256 and SHA-256, both numbers in 32 bytes: ES256, RFC 7518 §3.4."""
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


def _okp(key: Ed25519PublicKey) -> SignatureCheck:
    """Ed25519: EdDSA, RFC 8037 §3.1."""

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
