"""One HTTP exchange over ASGI: reading the request within its limits, writing the answer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import structs

from seawall.errors import (
    BodyTooLarge,
    InvalidRequest,
    Problem,
    RequestTimeout,
)
from seawall.hosts.http.credentials import read_credential
from seawall.hosts.http.output_throttle import OutputThrottle
from seawall.hosts.http.shutdown import Shutdown
from seawall.identity.port import Credential
from seawall.requests import REQUEST_ID, Request, request_id
from seawall.timers import Deadline, TimingWheel
from seawall.turn import TurnRequest

if TYPE_CHECKING:  # imported only where it is configured
    from seawall.hosts.http.cors import Cors

__all__ = ["ClientDisconnected", "Exchange", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

# Of which two would contradict each other.
_SINGLE = {
    name.lower().encode(): name
    for name in (
        "Authorization",
        "Content-Length",
        "Content-Type",
        "Host",
        "Idempotency-Key",
        "Last-Event-ID",
        "Origin",
        "Seawall-Session",
        "Traceparent",
        "X-API-Key",
    )
}
_LISTS = frozenset(
    (b"accept", b"access-control-request-headers", b"content-encoding", b"tracestate")
)

encode = msgspec.json.Encoder().encode


class ClientDisconnected(Exception):
    """The client closed the connection; nobody is there to be answered."""


class Exchange:
    """A request and the answer to it.

    started: whether the answer's status and headers are out. stop: how far the end of the server
    has come. request: for log lines. cors: None where pages of other origins may not call.
    """

    __slots__ = (
        "_has_repeated",
        "_receive",
        "_send",
        "_throttle",
        "_wheel",
        "cors",
        "headers",
        "request",
        "scope",
        "started",
        "stop",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        pace: OutputThrottle,
        wheel: TimingWheel,
        stop: Shutdown,
        cors: "Cors | None" = None,
    ) -> None:
        self.scope = scope
        self.stop = stop
        self.cors = cors
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request = Request(request_id(self.headers, scope.get("seawall.request_id", "")))
        self._has_repeated = len(self.headers) != len(scope["headers"])
        self.started = False
        self._receive = receive
        self._send = send
        self._throttle = pace
        self._wheel = wheel

    def check_headers(self) -> None:
        """Join the values of repeated headers, where a header may be repeated.

        Raises:
            InvalidRequest: one that says who asks, or what for, was sent more than once.
        """
        if self._has_repeated:
            self.headers = _merge_headers(self.scope["headers"])

    async def body(self, *, limit: int, seconds: float) -> bytes:
        """The whole request body, decoded where it was sent by gzip.

        Raises:
            BodyTooLarge: more than `limit` bytes were announced or sent, or come of decoding it.
            UnsupportedEncoding: its content coding is another one.
            RequestTimeout: it did not arrive within `seconds`.
            ClientDisconnected: the client left before it was complete.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limit:
            raise BodyTooLarge(f"The body may have {limit} bytes.")
        parts: list[bytes] = []
        size = 0
        try:
            async with Deadline(self._wheel, asyncio.get_running_loop().time() + seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnected
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise BodyTooLarge(f"The body may have {limit} bytes.")
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} s.") from error
        data = b"".join(parts)
        if (coding := self.headers.get(b"content-encoding")) is None:
            return data
        from seawall.hosts.http.encoding import decode_body  # noqa: PLC0415 - few clients compress

        return decode_body(data, coding, limit)

    def credential(self) -> Credential:
        """See `read_credential`; where the host has established it, that."""
        trusted: Credential | None = self.scope.get("seawall.credential")
        if trusted is not None:  # a client cannot put it there
            return trusted
        return read_credential(
            self.headers,
            self.scope.get("client"),
            http_version=self.scope["http_version"],
            origins=() if self.cors is None else self.cors.origins,
        )

    def with_deadline(self, request: TurnRequest) -> TurnRequest:
        """The request, to be done by the time that the host has for it, where that is bounded."""
        deadline: float | None = self.scope.get("seawall.deadline")
        return request if deadline is None else structs.replace(request, deadline=deadline)

    def query(self) -> dict[str, str]:
        """The query parameters; of a repeated one, the last."""
        try:
            return dict(parse_qsl(self.scope["query_string"].decode("ascii"), max_num_fields=32))
        except (UnicodeDecodeError, ValueError) as error:
            raise InvalidRequest("The query string cannot be read.") from error

    async def wait_disconnected(self) -> None:
        """Return when the client has gone. Only once the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Sequence[Header], *, readable: bool = True) -> None:
        """Send status and headers; readable: also those that let other origins read the answer."""
        self.started = True
        headers = [*headers, (REQUEST_ID, self.request.id.encode())]
        if self.cors is not None and readable:
            headers += self.cors.answer(self.headers.get(b"origin"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send a part of the body; waits while the client is slow."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def write_text(self, data: bytes) -> None:
        """Send a piece of streamed text; under load the next one has to wait a little."""
        await self.write(data)
        await self._throttle.wait()

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        await self._send({"type": "http.response.body", "body": data})

    async def no_content(self, headers: Sequence[Header] = (), *, readable: bool = True) -> None:
        """Send an answer without a body. See `start`."""
        await self.start(204, headers, readable=readable)
        await self.end()

    async def answer(
        self,
        value: object,
        *,
        status: int = 200,
        headers: Sequence[Header] = (),
        content_type: bytes = b"application/json",
    ) -> None:
        """Send a whole answer; `value` is encoded as JSON unless it is bytes already."""
        data = value if isinstance(value, bytes) else encode(value)
        length = str(len(data)).encode()
        await self.start(
            status, [(b"content-type", content_type), (b"content-length", length), *headers]
        )
        await self.end(data)

    async def problem(self, problem: Problem, headers: Sequence[Header] = ()) -> None:
        """Send problem details (RFC 9457), readable also by OpenAI's clients."""
        await self.answer(
            problem_body(problem, self.request.id),
            status=problem.status,
            headers=[*problem_headers(problem), *headers],
            content_type=b"application/problem+json",
        )


def _merge_headers(headers: Sequence[Header]) -> dict[bytes, bytes]:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in joined:
            joined[name] = value
        elif name in _LISTS:
            joined[name] += b", " + value
        elif name in _SINGLE:
            title = _SINGLE[name]
            raise InvalidRequest(f"The header {title} may be sent once only.", field=title)
        else:
            joined[name] = value
    return joined


def problem_body(problem: Problem, request: str) -> dict[str, object]:
    """The problem details with the `error` member that OpenAI's clients look for.

    request: the id of the request.
    """
    error = {
        "message": problem.detail,
        "type": problem.code,
        "code": problem.code,
        "param": problem.field,
    }
    return problem.as_dict() | {"request_id": request, "error": error}


def problem_headers(problem: Problem) -> list[Header]:
    """What a problem says in headers."""
    headers: list[Header] = []
    if problem.retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(problem.retry_after))).encode()))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
