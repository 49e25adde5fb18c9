"""A client of S3: objects of one bucket, as far as a store of small files needs it.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
Requests are signed (Signature Version 4) with the digest of their body. Keys consist of letters,
digits and `/_.-`, so that they need no encoding.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from hashlib import sha256
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from msgspec import Struct, structs

from seawall.aws import Credentials, CredentialsError, ServerClock, Signer, endpoint_url
from seawall.aws.dynamodb_calls import EXPIRED_TOKEN_CODES
from seawall.resilience import RetryBudget, full_jitter
from seawall.transport.connection import TransportError
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

__all__ = ["Listing", "S3Client", "S3Error", "S3Object", "S3Refused", "S3Unavailable"]

_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 2.0
_COST = 14.0
_ATTEMPT_SECONDS = 15.0
_MAX_DOCUMENT_BYTES = 4 << 20
_NO_OBJECT = ("", "NoSuchKey", "NotFound")
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_key = re.compile(r"[A-Za-z0-9_.-][A-Za-z0-9/_.-]*\Z")


class S3Error(Exception):
    """Base class: a call has failed."""


class S3Refused(S3Error):
    """S3 does not accept the call, now or later."""


class S3Unavailable(S3Error):
    """S3 cannot be reached, or has failed; later it may succeed."""


class S3Object(Struct, frozen=True):
    """An object of a listing.

    Attributes:
        key: Its key.
        size: Bytes.
        modified_at: When it was stored, in Unix seconds by the clock of S3.
    """

    key: str
    size: int
    modified_at: float


class Listing(Struct, frozen=True):
    """Objects in the order of their keys."""

    objects: tuple[S3Object, ...]
    truncated: bool


class _Request(Struct, frozen=True, kw_only=True):
    """A call without its signature; `missing`: whether there may be no such object."""

    method: str
    endpoint: Endpoint
    headers: dict[str, str]
    body: bytes
    limit: int
    missing: bool


class CredentialProvider(Protocol):
    """Provides what requests are signed with; implemented by `CredentialCache`."""

    async def get(self, *, deadline: float) -> Credentials:
        """See `CredentialCache.get`."""
        ...

    async def renew(self, refused: Credentials, *, deadline: float) -> Credentials:
        """See `CredentialCache.renew`."""
        ...


class S3Client:
    """Objects of one bucket. Throttling and failures are retried until the deadline."""

    def __init__(
        self,
        http: HttpClient,
        credentials: CredentialProvider,
        bucket: str,
        *,
        region: str,
        endpoint: str = "",
        path_style: bool = False,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Create a client; opens nothing.

        Args:
            http: Owns the connections.
            credentials: Sign the requests.
            bucket: Name of the bucket.
            region: Of the bucket.
            endpoint: Another one than the region's; without a bucket.
            path_style: Whether the bucket is in the path, not in the name of the host.
            clock: Unix time in seconds.
            chance: Random numbers in [0, 1), for retries.

        Raises:
            ValueError: The region or the endpoint is not one.
        """
        base = (endpoint or endpoint_url("s3", region)).rstrip("/")
        if path_style:
            base = f"{base}/{bucket}"
        else:
            parts = urlsplit(base)
            base = parts._replace(netloc=f"{bucket}.{parts.netloc}").geturl()
        self._http = http
        self._base = Endpoint.parse(base)
        self._root = self._base.target.decode().rstrip("/")
        self._credentials = credentials
        self._signer = Signer(region, "s3")
        self._clock = ServerClock(clock)
        self._budget = RetryBudget()
        self._chance = chance

    async def put(
        self, key: str, body: bytes, headers: Mapping[str, str], *, deadline: float
    ) -> None:
        """Store an object, completely or not at all.

        Args:
            key: Its key.
            body: Its bytes.
            headers: Names in lower case; `content-type` and those that begin with `x-amz-`.
            deadline: On the event loop's clock.

        Raises:
            S3Error: See its subclasses.
        """
        await self._call("PUT", key, body=body, headers=headers, deadline=deadline)

    async def get(
        self, key: str, *, limit: int, deadline: float
    ) -> tuple[dict[str, str], bytes] | None:
        """Headers and bytes of an object; None if there is none.

        Args:
            key: Its key.
            limit: Bytes that it may have.
            deadline: On the event loop's clock.

        Raises:
            S3Error: See its subclasses.
        """
        answer = await self._call("GET", key, limit=limit, deadline=deadline, missing=True)
        return (answer.headers, answer.body) if answer is not None else None

    async def head(self, key: str, *, deadline: float) -> dict[str, str] | None:
        """Headers of an object; None if there is none.

        Raises:
            S3Error: See its subclasses.
        """
        answer = await self._call("HEAD", key, deadline=deadline, missing=True)
        return answer.headers if answer is not None else None

    async def delete(self, key: str, *, deadline: float) -> None:
        """Delete an object, if there is one.

        Raises:
            S3Error: See its subclasses.
        """
        await self._call("DELETE", key, deadline=deadline, missing=True)

    async def list(
        self, prefix: str, *, limit: int = 1_000, after: str = "", deadline: float
    ) -> Listing:
        """Objects whose keys begin with a prefix.

        Args:
            prefix: May be empty.
            limit: At most so many, up to 1,000.
            after: Only keys behind this one.
            deadline: On the event loop's clock.

        Raises:
            S3Error: See its subclasses.
        """
        asked = {"list-type": "2", "max-keys": str(limit), "prefix": prefix}
        if after:
            asked["start-after"] = after
        query = urlencode(sorted(asked.items()), quote_via=quote, safe="")
        answer = await self._call("GET", "", query=query, deadline=deadline)
        assert answer is not None  # noqa: S101 - a bucket that is missing is refused
        return _listing(answer.body)

    async def create_bucket(self, *, deadline: float) -> None:
        """Create the bucket, in the default way; for tests and first steps.

        Raises:
            S3Error: See its subclasses.
        """
        await self._call("PUT", "", deadline=deadline)

    async def _call(
        self,
        method: str,
        key: str,
        *,
        deadline: float,
        query: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit: int = _MAX_DOCUMENT_BYTES,
        missing: bool = False,
    ) -> BufferedResponse | None:
        """Make a call, with retries; None where `missing` is accepted and there is no object."""
        if key and not _key.match(key):
            raise S3Refused(f"not a key that is used here: {key!r}")
        target = f"{self._root}/{key}" + (f"?{query}" if query else "")
        request = _Request(
            method=method,
            endpoint=structs.replace(self._base, target=target.encode("ascii")),
            headers={**(headers or {}), "x-amz-content-sha256": sha256(body).hexdigest()},
            body=body,
            limit=limit,
            missing=missing,
        )
        attempt = 1
        while True:
            try:
                answer = await self._attempt(request, deadline)
            except S3Unavailable as failure:
                pause = full_jitter(
                    attempt, base=_BACKOFF_SECONDS, cap=_MAX_BACKOFF_SECONDS, chance=self._chance()
                )
                now = asyncio.get_running_loop().time()
                late = attempt >= _ATTEMPTS or now + pause >= deadline
                if late or not self._budget.spend(_COST, at=now):
                    raise S3Unavailable(str(failure)) from failure
                attempt += 1
                await asyncio.sleep(pause)
            else:
                self._budget.deposit(_COST, at=asyncio.get_running_loop().time())
                return answer

    async def _attempt(self, request: "_Request", deadline: float) -> BufferedResponse | None:
        """Send a request; once more, where other credentials or the right time may help.

        Raises:
            S3Refused: Another attempt is of no use.
            S3Unavailable: Another attempt may succeed.
        """
        repaired = False
        while True:
            try:
                credentials = await self._credentials.get(deadline=deadline)
                signed_at = self._clock.now()
                answer = await self._send(request, credentials, signed_at, deadline)
            except CredentialsError as error:
                raise S3Refused(f"there are no AWS credentials: {error}") from error
            except TransportError as error:
                raise S3Unavailable(f"S3, {request.method}: {error}") from error
            if answer.status in (200, 204):
                return answer
            code = _code(answer)
            if answer.status == 404 and request.missing and code in _NO_OBJECT:
                return None
            if not repaired:
                repaired = True
                if await self._repair(answer, code, credentials, signed_at, deadline=deadline):
                    continue
            said = f"S3, {request.method}: status {answer.status} {code}".rstrip()
            raise S3Unavailable(said) if answer.status in _RETRIED else S3Refused(said)

    async def _send(
        self, request: "_Request", credentials: Credentials, signed_at: float, deadline: float
    ) -> BufferedResponse:
        endpoint = request.endpoint
        path, _, query = endpoint.target.decode().partition("?")
        signature = self._signer.sign(
            credentials,
            method=request.method,
            headers=[("host", endpoint.authority.decode()), *request.headers.items()],
            body=request.body,
            at=signed_at,
            path=path,
            query=query,
        )
        own = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        return await self._http.request(
            request.method,
            endpoint,
            headers=[*signature, *own],
            body=request.body,
            deadline=min(deadline, asyncio.get_running_loop().time() + _ATTEMPT_SECONDS),
            limit=request.limit,
        )

    async def _repair(
        self,
        answer: BufferedResponse,
        code: str,
        credentials: Credentials,
        signed_at: float,
        *,
        deadline: float,
    ) -> bool:
        """Whether a refused call may succeed with other credentials, or the right time."""
        if code in EXPIRED_TOKEN_CODES:
            await self._credentials.renew(credentials, deadline=deadline)
            return True
        date = answer.headers.get("date", "")
        return self._clock.should_sign_again(code, "", date, signed_at=signed_at)


def _code(answer: BufferedResponse) -> str:
    """The code of an error; empty where there is none, as in answers to HEAD."""
    try:
        found = ET.fromstring(answer.body[:65_536]).findtext("Code")  # noqa: S314 - of our S3
    except ET.ParseError:
        return ""
    return (found or "")[:100]


def _listing(body: bytes) -> Listing:
    try:
        document = ET.fromstring(body)  # noqa: S314 - of our S3, and bounded
    except ET.ParseError as error:
        raise S3Unavailable("S3: a listing cannot be read") from error
    space = document.tag.partition("}")[0] + "}" if document.tag.startswith("{") else ""
    try:
        objects = tuple(
            S3Object(
                each.findtext(f"{space}Key") or "",
                int(each.findtext(f"{space}Size") or 0),
                _seconds(each.findtext(f"{space}LastModified") or ""),
            )
            for each in document.iter(f"{space}Contents")
        )
    except ValueError as error:
        raise S3Unavailable("S3: a listing cannot be read") from error
    return Listing(objects, document.findtext(f"{space}IsTruncated") == "true")


def _seconds(moment: str) -> float:
    from datetime import datetime  # noqa: PLC0415 - only for listings

    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return parsedate_to_datetime(moment).timestamp()
