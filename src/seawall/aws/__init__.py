"""AWS without boto: asynchronous clients. Here is what all of them need: credentials and regions.

Credentials are a type, its errors, and the port of their sources::

    CredentialsError               no credentials: nothing can be signed
    ├── NoCredentials              no source is configured
    └── CredentialsUnavailable     the configured source fails

A region is found in the environment or a profile, and has the endpoints of its services.
"""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
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
    "endpoint_url",
    "find_region",
    "parse_issued",
    "parse_time",
    "read_token",
]

_MAX_TOKEN_BYTES = 65_536


class CredentialsError(Exception):
    """Base class: requests cannot be signed."""


class NoCredentials(CredentialsError):
    """No source of credentials is configured."""


class CredentialsUnavailable(CredentialsError):
    """The configured source fails; the message names it, and never quotes what it sent."""


class Credentials(Struct, frozen=True):
    """A pair of keys. Secret and token are never shown.

    Attributes:
        access_key: Public part.
        secret_key: Secret part.
        token: Session token of temporary credentials, else empty.
        expires_at: Unix seconds; None for never.
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
    """A source of credentials."""

    async def fetch(self, *, deadline: float) -> Credentials | None:
        """Return fresh credentials; None where this source is not configured.

        Args:
            deadline: On the event loop's clock.

        Raises:
            CredentialsUnavailable: It is configured, but fails.
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
    """The JSON of container endpoint and instance metadata."""

    access_key_id: str
    secret_access_key: str
    token: str
    expiration: str


def parse_issued(document: bytes, source: str) -> Credentials:
    """Parse temporary credentials in the JSON of a container endpoint or of instance metadata.

    Args:
        document: The JSON.
        source: Its name, for messages.

    Raises:
        CredentialsUnavailable: The document is something else.
    """
    try:
        issued = msgspec.json.decode(document, type=_Issued)
        expires_at = parse_time(issued.expiration)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        # `from None`: the document may contain a secret, which must not appear in a traceback.
        raise CredentialsUnavailable(f"{source} did not return credentials") from None
    return Credentials(issued.access_key_id, issued.secret_access_key, issued.token, expires_at)


def parse_time(text: str) -> float:
    """Return the Unix seconds of an ISO 8601 time; without a zone it is UTC.

    Raises:
        ValueError: It is none.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


async def read_token(path: str, variable: str) -> str:
    """Read a token from a file that the platform rotates, off the event loop.

    Args:
        path: The file.
        variable: Environment variable that names it, for messages.

    Raises:
        CredentialsUnavailable: The file cannot be read, or contains no token.
    """

    def read() -> bytes:
        with Path(path).open("rb") as file:
            return file.read(_MAX_TOKEN_BYTES + 1)

    try:
        found = await asyncio.to_thread(read)
        token = found.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsUnavailable(f"{variable}: {path}: {type(error).__name__}") from None
    if not token or len(found) > _MAX_TOKEN_BYTES:
        raise CredentialsUnavailable(f"{variable}: {path}: empty or too long for a token")
    return token


_region = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){1,4}")

# By the prefix of the region; botocore/data/partitions.json, 1.43.
_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}


def endpoint_url(service: str, region: str) -> str:
    """Return the public regional endpoint of a service, such as "dynamodb" or "sts".

    Raises:
        ValueError: That is not the name of a region.
    """
    _check_region(region)
    for prefix, suffix in _SUFFIXES.items():
        if region.startswith(prefix):
            return f"https://{service}.{region}.{suffix}"
    return f"https://{service}.{region}.amazonaws.com"


def _check_region(region: str) -> str:
    """Return the region; it becomes part of a host name, so its form is checked.

    Raises:
        ValueError: That is not the name of a region.
    """
    if not _region.fullmatch(region):
        raise ValueError(f"not the name of an AWS region: {region!r}")
    return region


def find_region(environment: Mapping[str, str], region: str = "") -> str:
    """Return the first of: the argument, AWS_REGION, AWS_DEFAULT_REGION, the profile's; else "".

    May read the shared files of AWS's tools; meant for start-up.

    Args:
        environment: Environment variables.
        region: As configured; empty for none.

    Raises:
        ValueError: What was found is not the name of a region.
        CredentialsUnavailable: A shared file cannot be read.
    """
    found = (
        region
        or environment.get("AWS_REGION", "")
        or environment.get("AWS_DEFAULT_REGION", "")
        or _of_profile(environment)
    )
    return _check_region(found) if found else ""


def _of_profile(environment: Mapping[str, str]) -> str:
    from seawall.aws.profile import Profiles, load_profile  # noqa: PLC0415 - not on Lambda

    found = load_profile(Profiles(environment)) or {}
    return found.get("region", "")
