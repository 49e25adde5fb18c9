"""The header `WWW-Authenticate` of a refusal (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9728 §5.1)."""

import re

from msgspec import Struct

__all__ = ["Challenge", "parse_challenge"]

_MAX_CHARACTERS = 8_192
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - as in RFC 9110
_part = re.compile(
    rf"\s*,?\s*(?P<name>{_TOKEN})"
    rf'(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))(?=\s*(?:,|\Z))|(?=\s|,|\Z))'
)


class Challenge(Struct, frozen=True):
    """What a server asks for.

    Attributes:
        resource_metadata: Address of its metadata (RFC 9728); empty if it does not say.
        scope: Scopes that the request needs; empty if it does not say.
        error: Why a token was refused; empty if there was none.
    """

    resource_metadata: str = ""
    scope: str = ""
    error: str = ""


def parse_challenge(value: str) -> Challenge:
    """Read the challenge of the scheme Bearer.

    Args:
        value: The header; several challenges may be in it. What cannot be read is left out.
    """
    found: dict[str, str] = {}
    position, bearer = 0, False
    text = value[:_MAX_CHARACTERS]
    while (part := _part.match(text, position)) is not None and part.end() > position:
        position = part.end()
        name = part["name"].lower()
        if part["quoted"] is None and part["plain"] is None:
            bearer = name == "bearer"
        elif bearer:
            quoted = part["quoted"]
            plain = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else part["plain"]
            found.setdefault(name, plain)
    return Challenge(
        found.get("resource_metadata", ""), found.get("scope", ""), found.get("error", "")
    )
