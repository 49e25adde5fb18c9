"""A JSON Web Key Set (RFC 7517): which of its keys are used, and for which algorithm only."""

import logging

import msgspec
from msgspec import Struct

from seawall.identity.signatures import SignatureCheck, signature_check

__all__ = ["MAX_BYTES", "SigningKey", "parse_key_set"]

MAX_BYTES = 1 << 20
_MAX_KEYS = 64

_ALGORITHMS = {
    ("RSA", None): frozenset({"RS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}

_log = logging.getLogger("seawall.identity")


class SigningKey(Struct, frozen=True):
    """A public key's check, and the only algorithm it is of, by the names token headers use."""

    check: SignatureCheck
    algorithms: frozenset[str]


class _JsonWebKey(Struct):
    """The members of a key that matter here; whatever else it has is not read."""

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
    """The usable signing keys by their id.

    The algorithm follows from the key, never from a token: RSA of 2,048 to 8,192 bits is for
    RS256, P-256 for ES256, Ed25519 for EdDSA (also called Ed25519 since RFC 9864). Whatever
    else is in the set, symmetric keys above all, is left out. A sole key is also found under "",
    by tokens that name none.

    Raises:
        ValueError: the document is not a key set, or is larger than any honest one.
    """
    if len(document) > MAX_BYTES:
        raise ValueError(f"the key set exceeds {MAX_BYTES} bytes")
    try:
        parsed = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON Web Key Set: {error}") from error
    if len(parsed) > _MAX_KEYS:
        raise ValueError(f"the key set holds {len(parsed)} keys; at most {_MAX_KEYS} are read")
    usable: dict[str, SigningKey] = {}
    for each in parsed:
        _add(usable, each)
    if len(usable) == 1:
        usable[""] = next(iter(usable.values()))
    return usable


def _add(usable: dict[str, SigningKey], raw: msgspec.Raw) -> None:
    """Add the key if it can be used; one that cannot never spoils the others."""
    try:
        parsed = msgspec.json.decode(raw, type=_JsonWebKey)
        signing = _signing_key(parsed)
    except (msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
        _log.warning("a key of the key set cannot be used: %s", error)
        return
    if signing is None:
        return
    if parsed.kid in usable:
        _log.warning('the key set has more than one key "%.64s"; the first is used', parsed.kid)
        return
    usable[parsed.kid] = signing


def _signing_key(parsed: _JsonWebKey) -> SigningKey | None:
    """The key, or None if it is meant for something else.

    Raises:
        KeyError, ValueError, TypeError: it is malformed.
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
