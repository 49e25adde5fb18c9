"""AWS without boto: asynchronous clients. Here is what all need: credentials, signatures, regions.

Credentials are a type, its errors, and the port of their sources::

    CredentialsError               no credentials: nothing can be signed
    ├── NoCredentials              no source is configured
    └── CredentialsUnavailable     the configured source fails

Requests are signed with them (Signature Version 4) by the server's clock.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
AWS accepts signatures that are up to five minutes old. One is refused where our clock is wrong,
and where the clocks agree but the process was frozen between signing and sending, as a Lambda
environment is between invocations.

A region is found in the environment or a profile, and has the endpoints of its services.
"""

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import msgspec
from msgspec import Struct

__all__ = [
    "CLOCK_REFUSAL_CODES",
    "CredentialSource",
    "Credentials",
    "CredentialsError",
    "CredentialsUnavailable",
    "EnvironmentSource",
    "NoCredentials",
    "ServerClock",
    "Signer",
    "canonical_request",
    "endpoint_url",
    "find_region",
    "parse_issued",
    "parse_time",
    "read_token",
    "signing_key",
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


_ALGORITHM = "AWS4-HMAC-SHA256"


def canonical_request(
    method: str, path: str, query: str, headers: Sequence[tuple[str, str]], payload_hash: str
) -> tuple[str, str]:
    """Return the canonical request, and the names of its signed headers.

    Args:
        method: HTTP method.
        path: As sent, percent-encoded; encoded once more, as every service but S3 requires.
        query: As sent, percent-encoded.
        headers: Names in lower case; all of them are signed.
        payload_hash: SHA-256 of the body in hexadecimal.
    """
    merged: dict[str, str] = {}
    for name, value in headers:
        trimmed = " ".join(value.split())
        merged[name] = f"{merged[name]},{trimmed}" if name in merged else trimmed
    names = sorted(merged)
    lines = "\n".join([f"{name}:{merged[name]}" for name in names])
    signed = ";".join(names)
    target = f"{method}\n{_canonical_path(path)}\n{_canonical_query(query)}"
    return f"{target}\n{lines}\n\n{signed}\n{payload_hash}", signed


def signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """Return the key for requests of one day (YYYYMMDD, UTC) to one service of one region."""
    key = b"AWS4" + secret.encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class Signer:
    """Signs requests to one service of one region; caches the key of the day."""

    __slots__ = ("_day", "_key", "_region", "_scope", "_secret", "_service")

    def __init__(self, region: str, service: str) -> None:
        self._region = region
        self._service = service
        self._secret = ""
        self._day = ""
        self._key = b""
        self._scope = ""

    def sign(
        self,
        credentials: Credentials,
        *,
        method: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        at: float,
        path: str = "/",
        query: str = "",
    ) -> list[tuple[bytes, bytes]]:
        """Return the headers to add: date, session token if there is one, and signature.

        Args:
            credentials: Keys to sign with.
            method: HTTP method.
            headers: Other headers to sign, `host` among them; names in lower case.
            body: Of the request.
            at: Unix seconds by the server's clock, which tolerates five minutes.
            path: As sent, percent-encoded.
            query: As sent, percent-encoded.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        added = [("x-amz-date", moment)]
        if credentials.token:
            added.append(("x-amz-security-token", credentials.token))
        canonical, signed = canonical_request(
            method, path, query, [*headers, *added], sha256(body).hexdigest()
        )
        key = self._key_of(credentials.secret_key, moment[:8])
        digest = sha256(canonical.encode()).hexdigest()
        to_sign = f"{_ALGORITHM}\n{moment}\n{self._scope}\n{digest}"
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"Credential={credentials.access_key}/{self._scope}"
        proof = f"{_ALGORITHM} {credential}, SignedHeaders={signed}, Signature={signature}"
        added.append(("authorization", proof))
        return [(name.encode(), value.encode()) for name, value in added]

    def _key_of(self, secret: str, day: str) -> bytes:
        if day != self._day or secret != self._secret:
            self._key = signing_key(secret, day, self._region, self._service)
            self._secret = secret
            self._day = day
            self._scope = f"{day}/{self._region}/{self._service}/aws4_request"
        return self._key


def _canonical_path(path: str) -> str:
    """Return the path without empty and dot segments, encoded once more."""
    if path == "/":
        return path
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    if not segments:
        return "/"
    joined = "/" + "/".join(segments) + ("/" if path.endswith("/") else "")
    return quote(joined, safe="/~")


def _canonical_query(query: str) -> str:
    """Return the query sorted by name and value; a name alone has an empty value."""
    if not query:
        return query
    pairs = sorted(each.partition("=")[::2] for each in query.split("&"))
    return "&".join([f"{name}={value}" for name, value in pairs])


CLOCK_REFUSAL_CODES = frozenset(
    {
        "AuthFailure",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""Codes that a wrong clock may cause, as in botocore and the other SDKs."""

_ONLY_CLOCK_CODES = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_CLOCK_MESSAGES = ("signature expired", "signature not yet current")
_ALLOWED_SECONDS = 240.0  # a smaller difference is not the cause of a refusal


class ServerClock:
    """The time by a server's clock.

    Attributes:
        skew: Seconds that the server's clock is ahead; 0 until it has refused a signature.
    """

    __slots__ = ("_clock", "skew")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create it; `clock` is ours, in Unix seconds."""
        self._clock = clock
        self.skew = 0.0

    def now(self) -> float:
        """Return the Unix seconds by the server's clock, to sign requests with."""
        return self._clock() + self.skew

    def should_sign_again(self, code: str, message: str, date: str, *, signed_at: float) -> bool:
        """Return whether a refused request may succeed when it is signed again, at `now`.

        Args:
            code: The refusal's code, without a prefix.
            message: The refusal's message.
            date: The response's header Date; empty where it has none.
            signed_at: `now` at the time of signing.
        """
        if code not in CLOCK_REFUSAL_CODES:
            return False
        # If the process was frozen, the response's date may be old itself.
        frozen = self.now() - signed_at >= _ALLOWED_SECONDS
        if not frozen and (theirs := _seconds(date)) is not None:
            skew = theirs - self._clock()
            if abs(skew - self.skew) >= _ALLOWED_SECONDS:
                self.skew = skew
                return True
        return frozen or code in _ONLY_CLOCK_CODES or message.lower().startswith(_CLOCK_MESSAGES)


def _seconds(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - rarely needed

    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
