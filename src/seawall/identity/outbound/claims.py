"""The claims of a caller's token, which has been verified when its request arrived."""

import time
from binascii import a2b_base64

import msgspec
from msgspec import Struct

from seawall.identity.outbound.port import CredentialsUnavailable

__all__ = ["Claims", "check_unexpired", "read_claims"]

_MAX_CHARACTERS = 16_384
_alphabet = bytes.maketrans(b"-_+/=", b"+/!!!")


class Claims(Struct, frozen=True):
    """The registered claims that are used (RFC 7519 §4.1)."""

    aud: str | list[str] | None = None
    exp: float | None = None

    @property
    def audiences(self) -> tuple[str, ...]:
        """For whom the token is."""
        return (self.aud,) if isinstance(self.aud, str) else tuple(self.aud or ())


def read_claims(token: str) -> Claims:
    """The claims of a JSON Web Token; its signature is not verified here.

    Raises:
        CredentialsUnavailable: It is none: an API key, for example.
    """
    try:
        if len(token) > _MAX_CHARACTERS:
            raise ValueError
        _, payload, _ = token.encode("ascii").split(b".")
        padded = payload.translate(_alphabet) + b"=" * (-len(payload) % 4)
        return msgspec.json.decode(a2b_base64(padded, strict_mode=True), type=Claims)
    except (ValueError, RecursionError):
        raise CredentialsUnavailable(
            "the caller has no JSON Web Token: an API key, or a token that only its issuer "
            "understands, is not passed on"
        ) from None


def check_unexpired(claims: Claims) -> None:
    """Check the time of a token.

    Raises:
        CredentialsUnavailable: It has expired since its request arrived.
    """
    if claims.exp is not None and claims.exp <= time.time():
        raise CredentialsUnavailable("the caller's token has expired since the turn began")
