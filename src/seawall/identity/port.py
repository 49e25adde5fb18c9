"""The identity port: from a credential to a principal."""

from typing import Protocol

from msgspec import Struct

from seawall.turn import Principal

__all__ = ["Anonymous", "Authenticator", "Bearer", "Credential", "Trusted"]


class Bearer(Struct, frozen=True):
    """A secret that a stranger presented: a JWT or an API key.

    api_key: from the header X-API-Key, where the secret came in another one; it counts where it
    is a key that is configured, and may be meant for another gateway.
    """

    secret: str
    api_key: str = ""

    def __repr__(self) -> str:
        return "Bearer(...)"


class Anonymous(Struct, frozen=True):
    """No credential.

    loopback: the request came from this very machine, as far as that can be known. fault: why
    not, where it did not.
    """

    reason: str = ""
    loopback: bool = False


class Trusted(Struct, frozen=True):
    """A principal that the host has established by other means (in-process use, a gateway)."""

    principal: Principal


Credential = Bearer | Anonymous | Trusted


class Authenticator(Protocol):
    """Decides who a credential is. Denies by default."""

    def unverified_principal(self, credential: Credential) -> Principal | None:
        """Who the credential says it is, unverified and without waiting; None if unreadable.

        Good for nothing but to decide whether verifying is worth it: under load, turns of a
        tenant that would be refused anyway are refused before their token costs anything.
        """
        ...

    def authenticate_now(self, credential: Credential) -> Principal | None:
        """The verified principal; None when only `authenticate`, which may wait, can tell.

        Raises:
            Unauthenticated: as `authenticate` does.
        """
        ...

    async def authenticate(self, credential: Credential) -> Principal:
        """The verified principal.

        Raises:
            Unauthenticated: the credential is missing, malformed, expired or not trusted.
        """
        ...

    async def warm(self) -> None:
        """Fetch keys ahead of the first turn. Never raises for an unreachable provider."""
        ...
