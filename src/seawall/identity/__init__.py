"""Authentication. This is its port: credentials, and the protocol that maps them to principals."""

from typing import Protocol

from msgspec import Struct

from seawall.turn import Principal

__all__ = [
    "ANONYMOUS",
    "API_KEY_PREFIX",
    "Anonymous",
    "Authenticator",
    "Bearer",
    "Credential",
    "Trusted",
    "is_anonymous",
]


API_KEY_PREFIX = "sw_"
"""How the API keys of this server begin."""


ANONYMOUS = Principal("local", "anonymous")
"""The principal of all callers without a credential, where they are accepted."""


def is_anonymous(principal: Principal) -> bool:
    """Whether a principal is that of callers without a credential: nothing is one person's."""
    return (principal.tenant, principal.subject) == (ANONYMOUS.tenant, ANONYMOUS.subject)


class Bearer(Struct, frozen=True):
    """A secret that a client presented.

    Attributes:
        secret: A JWT or an API key.
        api_key: From the header X-API-Key, if the secret is from another one. It counts if it is
            configured; it may be meant for another gateway.
    """

    secret: str
    api_key: str = ""

    def __repr__(self) -> str:
        return "Bearer(...)"


class Anonymous(Struct, frozen=True):
    """No credential.

    Attributes:
        reason: Why the request counts as made elsewhere; empty if it does not.
        loopback: Whether it was made on this machine, if that can be detected.
    """

    reason: str = ""
    loopback: bool = False


class Trusted(Struct, frozen=True):
    """A principal that the host has authenticated by other means (in-process use, a gateway)."""

    principal: Principal


Credential = Bearer | Anonymous | Trusted


class Authenticator(Protocol):
    """Maps credentials to principals. Denies by default."""

    def unverified_principal(self, credential: Credential) -> Principal | None:
        """Return the claimed principal, unverified and without waiting; None if unreadable.

        Only for load shedding: under load, turns of a tenant that would be refused anyway are
        refused before their token is verified.
        """
        ...

    def authenticate_now(self, credential: Credential) -> Principal | None:
        """Return the verified principal, or None when only `authenticate`, which waits, can.

        Raises:
            Unauthenticated: As `authenticate` does.
        """
        ...

    async def authenticate(self, credential: Credential) -> Principal:
        """Verify the credential and return its principal.

        Raises:
            Unauthenticated: The credential is missing, malformed, expired or not trusted.
            IdentityUnavailable: The provider's keys cannot be fetched.
        """
        ...

    async def warm(self) -> None:
        """Fetch keys ahead of the first turn. Never raises for an unreachable provider."""
        ...
