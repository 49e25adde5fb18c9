"""AWS Signature Version 4, and the server's clock, by which requests are signed.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

AWS accepts signatures that are up to five minutes old. One is refused where our clock is wrong,
and where the clocks agree but the process was frozen between signing and sending, as a Lambda
environment is between invocations.
"""

import hmac
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from urllib.parse import quote

from seawall.aws import Credentials

__all__ = ["CLOCK_REFUSAL_CODES", "ServerClock", "Signer", "canonical_request", "signing_key"]

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
