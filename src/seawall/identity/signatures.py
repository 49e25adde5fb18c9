"""Public keys and signatures of the three algorithms that are accepted (RFC 7518, RFC 8037).

On the cryptographic library itself: the libraries for tokens above it import X.509, SSH and
encryption as well, and a cold start would wait for them (docs/decisions/007-tokens.md).
"""

from binascii import a2b_base64
from collections.abc import Callable, Mapping

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

__all__ = ["SignatureCheck", "decode_base64url", "signature_check"]

SignatureCheck = Callable[[bytes, bytes], bool]
"""Whether a signature (first) is the one of a text (second)."""

_RSA_BITS = range(2_048, 8_192 + 1)
_COORDINATE_BYTES = 32
# The alphabet of base64url (RFC 4648 §5) onto that of base64; what only the latter has, and
# padding, onto something that neither has.
_alphabet = bytes.maketrans(b"-_+/=", b"+/!!!")


def decode_base64url(segment: bytes) -> bytes:
    """What base64url without padding stands for.

    Raises:
        ValueError: it is not that.
    """
    padding = b"=" * (-len(segment) % 4)
    return a2b_base64(segment.translate(_alphabet) + padding, strict_mode=True)


def signature_check(key: Mapping[str, str]) -> SignatureCheck:
    """What checks signatures with a public key.

    key: its members in a JSON Web Key: `kty` RSA with `n` and `e`; EC with `x` and `y` on P-256;
    OKP with `x` on Ed25519.

    Raises:
        KeyError: a member is missing.
        ValueError: it is not a key of that kind, or too weak or too large a one.
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
            raise ValueError(f"keys of the kind {kind!r} are not used")


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
    """A member that is a number, the most significant byte first (RFC 7518 §2)."""
    return int.from_bytes(_bytes(key, name))


def _bytes(key: Mapping[str, str], name: str) -> bytes:
    # Some providers pad, though RFC 7515 §2 has it without.
    return decode_base64url(key[name].rstrip("=").encode("ascii"))
