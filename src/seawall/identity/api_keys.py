"""API keys: 256 random bits, of which only the hash is kept.

A slow password hash would protect nothing here: such keys cannot be guessed, whatever the speed
(NIST SP 800-63B-4 §3.1.2.2 asks for it only below 112 bits of entropy).
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from seawall.identity.settings import ApiKeySettings
from seawall.turn import Principal

__all__ = ["PREFIX", "ApiKeys", "new_key"]

PREFIX = "sw_"
_MAX_CHARACTERS = 256


def new_key() -> tuple[str, str]:
    """A new key and the hash to configure."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, _digest(key)


class ApiKeys:
    """The configured keys."""

    def __init__(self, settings: Sequence[ApiKeySettings]) -> None:
        self._known = [
            (each.sha256.encode("ascii"), Principal(each.tenant, each.subject)) for each in settings
        ]

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> Principal | None:
        """Whose the key is.

        The work is the same for a wrong key as for any right one: one digest, and one comparison
        of constant time with each that is configured.
        """
        if len(key) > _MAX_CHARACTERS:
            return None
        digest = _digest(key).encode("ascii")
        found = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
