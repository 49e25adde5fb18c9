"""HTTP exchange over ASGI: read a request within its limits and its credential; answer it.

The credential is a bearer token, an API key, or none. A request without one can only be admitted
if nothing suggests that it comes from another machine through a proxy, or from a web page of
another origin in a local browser.
"""

import asyncio
import re
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    MutableMapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

import msgspec
from msgspec import structs

from seawall.errors import (
    BodyTooLarge,
    InvalidRequest,
    Problem,
    RequestTimeout,
    Unauthenticated,
    UnsupportedEncoding,
)
from seawall.hosts.http.shutdown import Shutdown
from seawall.identity import Anonymous, Bearer, Credential
from seawall.models import TextSink
from seawall.requests import REQUEST_ID, Request, request_id
from seawall.timers import Deadline, TimingWheel
from seawall.turn import TurnRequest

if TYPE_CHECKING:
    from seawall.hosts.http.cors import Cors

__all__ = [
    "Client",
    "ClientDisconnected",
    "Exchange",
    "Header",
    "Output",
    "Receive",
    "Scope",
    "Send",
    "is_loopback",
    "read_credential",
]

Client = tuple[str, int] | None

_PEERS = ("127.", "::ffff:127.")
_octet = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_LOOPBACK_HOST = rf"(?:localhost|127(?:\.{_octet}){{3}}|\[::1\])(?::\d{{1,5}})?\Z"
_SAME_SITE = (b"same-origin", b"none")
# Headers that proxies, gateways and content delivery networks add.
_FORWARDING = frozenset(
    {
        b"akamai-origin-hop", b"cdn-loop", b"client-ip", b"do-connecting-ip", b"fastly-client",
        b"fly-client-ip", b"front-end-https", b"incap-client-ip", b"proxy-client-ip",
        b"surrogate-capability", b"true-client-ip", b"via", b"wl-proxy-client-ip", b"x-client-ip",
        b"x-cloud-trace-context", b"x-cluster-client-ip", b"x-host", b"x-nf-client-connection-ip",
        b"x-proxyuser-ip", b"x-remote-addr", b"x-remote-ip", b"x-rewrite-url", b"x-scheme",
        b"x-sucuri-clientip", b"x-url-scheme", b"x-varnish",
    }
)  # fmt: skip
_FORWARDING_PREFIXES = (
    b"forwarded", b"x-forwarded", b"x-real-", b"x-original-", b"x-envoy-", b"x-proxy-",
    b"x-akamai-", b"x-amz-cf-", b"x-amzn-", b"x-appengine-", b"x-arr-", b"x-azure-", b"x-vercel-",
    b"cf-", b"cloudfront-", b"fastly-", b"fly-forwarded-", b"ngrok-", b"tailscale-",
)  # fmt: skip


def read_credential(
    headers: Mapping[bytes, bytes],
    client: Client,
    *,
    http_version: str = "1.1",
    origins: Collection[bytes] = (),
) -> Credential:
    """Read the credential of a request.

    Args:
        headers: Names in lower case.
        client: Address of the peer.
        http_version: Of the request.
        origins: Other origins whose pages may make requests without a credential.

    Raises:
        Unauthenticated: The header has another scheme, or is not ASCII.
    """
    key, authorization = headers.get(b"x-api-key"), headers.get(b"authorization")
    if not key and not authorization:
        fault = _remote_reason(headers, client, http_version, origins)
        return Anonymous(fault, loopback=not fault)
    if not authorization:
        return Bearer(_ascii(key or b"", "X-API-Key"))
    try:
        secret = _bearer(authorization)
    except Unauthenticated:
        if not key:
            raise
        return Bearer(_ascii(key, "X-API-Key"))  # the other header is meant for another party
    # The key may be meant for a gateway on the way; a key that is not ASCII certainly is.
    return Bearer(secret, key.decode("ascii", "replace") if key else "")


def is_loopback(host: bytes) -> bool:
    """Whether a Host header, in lower case, names this machine."""
    return re.match(_LOOPBACK_HOST, host.decode("latin-1")) is not None


def _bearer(authorization: bytes) -> str:
    scheme, _, secret = _ascii(authorization, "Authorization").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated("The Authorization header must be 'Bearer TOKEN'.")
    return secret.strip()


def _remote_reason(
    headers: Mapping[bytes, bytes], client: Client, http_version: str, origins: Collection[bytes]
) -> str:
    """Why a request does not count as one from this machine; empty if it does."""
    if client is None or not (client[0] == "::1" or client[0].startswith(_PEERS)):
        return "the connection does not come from this machine"
    host = headers.get(b"host", b"").lower()
    if not is_loopback(host):
        return "the Host header does not name this machine: it must be localhost or 127.0.0.1"
    if http_version not in ("1.1", "2"):
        return "HTTP/1.0 is used by proxies"
    for name in headers:
        if name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES):
            return f"the header {name[:64].decode('latin-1')} shows that it was forwarded"
    return _cross_origin_reason(headers, host, origins)


def _cross_origin_reason(
    headers: Mapping[bytes, bytes], host: bytes, origins: Collection[bytes]
) -> str:
    """The same for a request that a browser makes for a page."""
    origin = headers.get(b"origin")
    if origin is not None and origin in origins:
        return ""
    if origin is not None and origin.lower() not in (b"http://" + host, b"https://" + host):
        return "it was made by a web page of another origin"
    if headers.get(b"sec-fetch-site", b"none") not in _SAME_SITE:
        return "it was made by a web page of another site"
    return ""


def _ascii(value: bytes, header: str) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as error:
        raise Unauthenticated(f"The header {header} must be ASCII.") from error


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

# Headers that may be sent once only.
_SINGLE = {
    name.lower().encode(): name
    for name in (
        "Authorization",
        "Content-Length",
        "Content-Type",
        "Host",
        "Idempotency-Key",
        "Last-Event-ID",
        "MCP-Protocol-Version",
        "Mcp-Method",
        "Mcp-Name",
        "Mcp-Session-Id",
        "Origin",
        "Seawall-Session",
        "Traceparent",
        "X-API-Key",
    )
}
_LISTS = frozenset(
    (b"accept", b"access-control-request-headers", b"content-encoding", b"tracestate")
)

_GZIP_WINDOW = 31  # the largest, with gzip's header: https://zlib.net/manual.html

encode = msgspec.json.Encoder().encode


class Output(Protocol):
    """A request that our own server has received: answered without messages of ASGI.

    Attributes:
        body_complete: Whether the whole body of the request was received.
        disconnected: Whether the client has disconnected.
        on_disconnect: Called when it does.
        ready: Whether the response can be continued without waiting.
        status: Of the response; 0 before it begins.
        size: Bytes of the response's body so far.
    """

    body_complete: bool
    disconnected: bool
    on_disconnect: Callable[[], None] | None
    ready: bool
    status: int
    size: int

    def take_body(self) -> bytes:
        """What was received of the body and not taken before."""
        ...

    def start(self, status: int, headers: "Sequence[Header]") -> None:
        """Begin the response; only while `ready`, as the other parts."""
        ...

    def write(self, data: bytes) -> None:
        """Send a part of the body."""
        ...

    def end(self, data: bytes) -> None:
        """Send the last part of the body."""
        ...

    def text_sink(self, frame: Callable[[str], bytes]) -> TextSink:
        """What sends text, each piece in a frame, while nothing has to be waited for."""
        ...


class ClientDisconnected(Exception):
    """The client closed the connection: no response can be sent."""


class Exchange:
    """A request and the response to it.

    Attributes:
        scope: Of ASGI.
        headers: Values by lower-case name.
        output: Where our own server serves the request; None where another does.
        request: Id and tenant, for log lines.
        started: Whether status and headers of the response were sent.
        shutdown: State of the server's shutdown.
        cors: CORS headers; None if pages of other origins may not call the API.
    """

    __slots__ = (
        "_has_repeated",
        "_receive",
        "_send",
        "_wheel",
        "cors",
        "headers",
        "output",
        "request",
        "scope",
        "shutdown",
        "started",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        wheel: TimingWheel,
        shutdown: Shutdown,
        cors: "Cors | None" = None,
    ) -> None:
        """Begin an exchange.

        Args:
            scope: Of ASGI, like `receive` and `send`.
            receive: Messages with the request body.
            send: Takes the response.
            wheel: For the deadline of the request body.
            shutdown: State of the server's shutdown.
            cors: CORS headers, if configured.
        """
        self.scope = scope
        self.shutdown = shutdown
        self.cors = cors
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request = Request(request_id(self.headers, scope.get("seawall.request_id", "")))
        self._has_repeated = len(self.headers) != len(scope["headers"])
        self.started = False
        self.output: Output | None = scope.get("seawall.output")
        self._receive = receive
        self._send = send
        self._wheel = wheel

    def check_headers(self) -> None:
        """Join the values of repeated headers.

        Raises:
            InvalidRequest: A header that may be sent once only was repeated.
        """
        if self._has_repeated:
            self.headers = _merge_headers(self.scope["headers"])

    async def body(self, *, limit: int, seconds: float) -> bytes:
        """Read the whole request body; gzip is decoded.

        Args:
            limit: Bytes that the body may have, both as sent and decoded.
            seconds: Time in which it must arrive.

        Raises:
            BodyTooLarge: More than `limit` bytes were announced, sent or decoded.
            UnsupportedEncoding: The content coding is neither gzip nor identity.
            RequestTimeout: The body did not arrive within `seconds`.
            ClientDisconnected: The client disconnected before the end of the body.
        """
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limit:
            raise BodyTooLarge(f"The body exceeds {limit} bytes.")
        output = self.output
        if output is not None and output.body_complete and not output.disconnected:
            data = output.take_body()  # without a deadline, as there is nothing to wait for
            if len(data) > limit:
                raise BodyTooLarge(f"The body exceeds {limit} bytes.")
        else:
            data = await self._receive_body(limit, seconds)
        if (coding := self.headers.get(b"content-encoding")) is None:
            return data
        return _decode_body(data, coding, limit)

    async def _receive_body(self, limit: int, seconds: float) -> bytes:
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
                        raise BodyTooLarge(f"The body exceeds {limit} bytes.")
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} s.") from error
        return b"".join(parts)

    def credential(self) -> Credential:
        """The credential that the host has established, or else `read_credential`."""
        trusted: Credential | None = self.scope.get("seawall.credential")
        if trusted is not None:  # set by the Lambda host, never by a client
            return trusted
        return read_credential(
            self.headers,
            self.scope.get("client"),
            http_version=self.scope["http_version"],
            origins=() if self.cors is None else self.cors.origins,
        )

    def forget_head(self) -> None:
        """Forget the headers, which are not read any more; they name the request, and its origin.

        With thousands of turns in flight, tokens and user agents would be much of the memory.
        """
        origin = self.headers.get(b"origin")
        self.headers = {} if origin is None else {b"origin": origin}  # for `start`
        if self.output is not None:  # another server may need its list
            self.scope["headers"].clear()
            self.scope["seawall.request_id"] = self.request.id

    def hosted(self, request: TurnRequest) -> TurnRequest:
        """The turn request with what the host adds: its deadline; that its course is recorded."""
        deadline: float | None = self.scope.get("seawall.deadline")
        recorded: bool = self.scope.get("seawall.recorded", False)
        if deadline is None and not recorded:
            return request
        return structs.replace(request, deadline=deadline, recorded=recorded)

    def query(self) -> dict[str, str]:
        """The query parameters; the last value of a repeated one."""
        try:
            text = self.scope["query_string"].decode("ascii")
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=32))
        except (UnicodeDecodeError, ValueError) as error:
            raise InvalidRequest("The query string cannot be read.") from error

    def while_connected(self, work: Awaitable[object]) -> Coroutine[Any, Any, None]:
        """Await the work; cancel it when the client disconnects.

        Only to be called after the body was read.

        Raises:
            ClientDisconnected: The client disconnected.
            Exception: Any that the work raises.
        """
        if self.output is not None:
            return _until_disconnected(self.output, work)
        return self._while_received(work)

    async def _while_received(self, work: Awaitable[object]) -> None:
        async def watch() -> None:
            await self._wait_disconnected()
            raise ClientDisconnected

        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(watch())
                await work
                watcher.cancel()
        except ExceptionGroup as failures:
            error: Exception = failures
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            raise error from None

    async def _wait_disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Sequence[Header], *, readable: bool = True) -> None:
        """Send status and headers.

        Args:
            status: Of the response.
            headers: Besides `x-request-id` and those of CORS.
            readable: Add the CORS headers that let pages of other origins read the response.
        """
        self.started = True
        headers = [*headers, (REQUEST_ID, self.request.id.encode())]
        if self.cors is not None and readable:
            headers += self.cors.answer(self.headers.get(b"origin"))
        if self.output is not None and self.output.ready:
            self.output.start(status, headers)
        else:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send a part of the body; waits for a slow client."""
        if self.output is not None and self.output.ready:
            self.output.write(data)
        else:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def text_sink(self, frame: Callable[[str], bytes]) -> TextSink | None:
        """What sends text without waiting, where the server can; None where it cannot.

        Args:
            frame: The frame of a piece of text, which is then sent.
        """
        output = self.output
        return None if output is None else output.text_sink(frame)

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        if self.output is not None and self.output.ready:
            self.output.end(data)
        else:
            await self._send({"type": "http.response.body", "body": data})

    async def no_content(self, headers: Sequence[Header] = (), *, readable: bool = True) -> None:
        """Send a 204 response. See `start`."""
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
        """Send a complete response; `value` is encoded as JSON unless it is bytes."""
        data = value if isinstance(value, bytes) else encode(value)
        length = str(len(data)).encode()
        await self.start(
            status, [(b"content-type", content_type), (b"content-length", length), *headers]
        )
        await self.end(data)

    async def problem(self, problem: Problem, headers: Sequence[Header] = ()) -> None:
        """Send problem details (RFC 9457) that OpenAI's clients understand as well."""
        await self.answer(
            problem_body(problem, self.request.id),
            status=problem.status,
            headers=[*problem_headers(problem), *headers],
            content_type=b"application/problem+json",
        )


async def _until_disconnected(output: Output, work: Awaitable[object]) -> None:
    """Await the work; its task is cancelled when the client disconnects.

    Its own cancellation is distinguished from others as by `seawall.timers.Deadline`.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("work needs a task that can be cancelled")
    before, leaving = task.cancelling(), _Leaving(task)
    output.on_disconnect = leaving.cancel
    already = asyncio.get_running_loop().call_soon(leaving.cancel) if output.disconnected else None
    try:
        await work
    except (Exception, asyncio.CancelledError):
        if not leaving.gone:
            raise
        if task.cancelling() > before + 1:  # another has cancelled it as well
            task.uncancel()
            raise
    finally:
        output.on_disconnect = None
        if already is not None:
            already.cancel()
    if leaving.gone:
        task.uncancel()
        raise ClientDisconnected


class _Leaving:
    """What happens when the client disconnects; a closure takes more memory.

    Attributes:
        gone: Whether it has, and the task was cancelled.
    """

    __slots__ = ("_task", "gone")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self.gone = False

    def cancel(self) -> None:
        """Cancel the task, once."""
        if not self.gone:
            self.gone = True
            self._task.cancel()


def _decode_body(data: bytes, coding: bytes, limit: int) -> bytes:
    """Decode a body by its Content-Encoding; never more than `limit` bytes."""
    name = coding.lower()
    if name in (b"", b"identity"):
        return data
    if name not in (b"gzip", b"x-gzip"):
        raise UnsupportedEncoding(
            "The body may be sent as it is, or encoded by gzip.", field="Content-Encoding"
        )
    import zlib  # noqa: PLC0415 - few clients compress

    decoder = zlib.decompressobj(_GZIP_WINDOW)
    try:
        body = decoder.decompress(data, limit + 1)
    except zlib.error as error:
        raise InvalidRequest("The body is not gzip.", field="Content-Encoding") from error
    if len(body) > limit:
        raise BodyTooLarge(f"The body exceeds {limit} bytes.")
    if not decoder.eof or decoder.unused_data:
        raise InvalidRequest("The body is not one gzip stream.", field="Content-Encoding")
    return body


def _merge_headers(headers: Sequence[Header]) -> dict[bytes, bytes]:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in joined:
            joined[name] = value
        elif name in _LISTS:
            joined[name] += b", " + value
        elif name in _SINGLE:
            title = _SINGLE[name]
            raise InvalidRequest(f"The header {title} may occur only once.", field=title)
        else:
            joined[name] = value
    return joined


def problem_body(problem: Problem, request: str) -> dict[str, object]:
    """Problem details with the `error` member that OpenAI's clients expect.

    Args:
        problem: What went wrong.
        request: The id of the request.
    """
    error = {
        "message": problem.detail,
        "type": problem.code,
        "code": problem.code,
        "param": problem.field,
    }
    return problem.as_dict() | {"request_id": request, "error": error}


def problem_headers(problem: Problem) -> list[Header]:
    """Response headers of a problem."""
    headers: list[Header] = []
    if problem.retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(problem.retry_after))).encode()))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
