"""Secrets that a service repeats: taken out of its answers before anything else reads them."""

import re
from functools import lru_cache
from urllib.parse import quote

from seawall.identity.outbound.port import Headers

__all__ = ["without_secrets"]

_REDACTED = b"redacted"
_SHORTEST_SECRET = 6  # a shorter one is found in any text

# Characters that URLs, JSON and HTML leave as they are.
_plain = re.compile(rb"[A-Za-z0-9._~-]*")
_BACKSLASHES = r"\\{0,7}"  # JSON within JSON doubles them
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#(?:39|x27);"}


def without_secrets(content: bytes, credentials: Headers) -> bytes:
    """Bytes of a service without the secrets that it got.

    Each is found as it is, and as it is written in URLs, JSON and HTML.

    Args:
        content: What it has answered.
        credentials: With which it was asked.
    """
    for name, value in credentials:
        secret = _secret_of(name, value)
        if len(secret) < _SHORTEST_SECRET:
            continue
        if _plain.fullmatch(secret):
            content = content.replace(secret, _REDACTED)
        else:
            content = _forms(secret).sub(_REDACTED, content)
    return content


def _secret_of(name: bytes, value: bytes) -> bytes:
    """What is secret of a parameter, cookie or header: not the name, nor the scheme."""
    if name.startswith(b"?"):
        return value
    if name == b"cookie":
        return value.partition(b"=")[2]
    return value.rpartition(b" ")[2]


@lru_cache(maxsize=256)
def _forms(secret: bytes) -> re.Pattern[bytes]:
    """The ways in which a secret can be written; matched in linear time, whatever is searched."""
    parts = re.findall(r"\\+|.", secret.decode(), re.DOTALL)
    return re.compile("".join(map(_forms_of, parts)).encode())


def _forms_of(part: str) -> str:
    """Those of a character, or of several backslashes."""
    if _plain.fullmatch(part.encode()):
        return re.escape(part)
    count, character = len(part), part[0]
    units = memoryview(character.encode("utf-16-le")).cast("H")
    forms = [
        _ENTITIES.get(character, ""),
        rf"(?i:{re.escape(quote(character, safe=''))}){{{count}}}",
        r"\+" if character == " " else "",
        f"(?:{''.join(rf'{_BACKSLASHES}(?i:u{unit:04x})' for unit in units)}){{{count}}}",
        rf"\\{{{count},{8 * count}}}" if character == "\\" else _BACKSLASHES + re.escape(part),
    ]
    return f"(?:{'|'.join(filter(None, forms))})"
