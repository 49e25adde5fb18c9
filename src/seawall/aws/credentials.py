"""What proves to AWS who is asking, and what a source of it is.

::

    CredentialsError               none can be had: nothing can be signed
    ├── NoCredentials              no source is configured
    └── CredentialsUnavailable     the configured source fails
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from msgspec import Struct

__all__ = [
    "CredentialSource",
    "Credentials",
    "CredentialsError",
    "CredentialsUnavailable",
    "EnvironmentSource",
    "NoCredentials",
    "parse_issued",
    "parse_time",
]


class CredentialsError(Exception):
    """Root: nothing can be signed."""


class NoCredentials(CredentialsError):
    """No source of credentials is configured."""


class CredentialsUnavailable(CredentialsError):
    """The configured source does not give any; the message says which, never what it sent."""


class Credentials(Struct, frozen=True):
    """A pair of keys. Secret and token are never shown.

    token: of temporary credentials, else empty. expires_at: Unix seconds, None for never.
    """

    access_key: str
    secret_key: str
    token: str = ""
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"Credentials(access_key={self.access_key!r}, expires_at={self.expires_at!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("access_key", self.access_key), ("expires_at", self.expires_at)]


class CredentialSource(Protocol):
    """One place that credentials may come from."""

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """Fresh credentials; None where this source is not configured.

        deadline: on the event loop's clock.

        Raises:
            CredentialsUnavailable: it is configured, but does not give any.
        """
        ...


class EnvironmentSource:
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    async def fetch(self, *, deadline: float) -> Credentials | None:  # noqa: ARG002 - the port's
        """See `CredentialSource.fetch`."""
        access_key = self._environment.get("AWS_ACCESS_KEY_ID", "")
        if not access_key:
            return None
        secret_key = self._environment.get("AWS_SECRET_ACCESS_KEY", "")
        if not secret_key:
            raise CredentialsUnavailable(
                "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not"
            )
        return Credentials(access_key, secret_key, self._environment.get("AWS_SESSION_TOKEN", ""))


class _Issued(Struct, rename="pascal"):
    """What container endpoint and instance metadata answer with."""

    access_key_id: str
    secret_access_key: str
    token: str
    expiration: str


def parse_issued(document: bytes, source: str) -> Credentials:
    """Temporary credentials from the JSON of a container endpoint or of instance metadata.

    Raises:
        CredentialsUnavailable: the document is something else.
    """
    try:
        issued = msgspec.json.decode(document, type=_Issued)
        expires_at = parse_time(issued.expiration)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        # `from None`: the document, which may hold a secret, must not end in a traceback.
        raise CredentialsUnavailable(f"{source} did not answer with credentials") from None
    return Credentials(issued.access_key_id, issued.secret_access_key, issued.token, expires_at)


def parse_time(text: str) -> float:
    """Unix seconds of a moment in ISO 8601; without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
