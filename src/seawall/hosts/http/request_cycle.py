"""ASGI request cycle: one request of a connection and the response to it."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from seawall.errors import InternalError, Problem
from seawall.hosts.http.exchange import encode, problem_body
from seawall.requests import REQUEST_ID, request_id

__all__ = ["STATUS_LINES", "CycleConnection", "RequestCycle"]

Application = Callable[..., Awaitable[object]]
Message = MutableMapping[str, Any]

STATUS_LINES = {
    each.value: b"HTTP/1.1 %d %b\r\n" % (each.value, each.phrase.encode()) for each in HTTPStatus
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JOINED_BYTES = 16_384  # longer bodies are not copied to join them with their head
_log = logging.getLogger("seawall.server")
_forbidden_in_name = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_CONTROLS = bytes(each for each in (*range(32), 127) if each != 9)
_FRAMING = frozenset((b"content-length: ", b"connection: ", b"transfer-encoding: "))


@lru_cache(maxsize=256)
def _line_start(name: bytes) -> bytes:
    """The beginning of a header line, with the name in lower case."""
    if not name or _forbidden_in_name.search(name):
        raise RuntimeError(f"the header {name!r} cannot be sent")
    return name.lower() + b": "


class CycleConnection(Protocol):
    """What a request cycle needs of its connection.

    Attributes:
        transport: Responses are written to it.
        drained: Done when the client has read enough for more to be sent; None if nothing waits.
    """

    transport: asyncio.Transport
    drained: "asyncio.Future[None] | None"

    def resume_body(self) -> None:
        """Continue to read the body: the application has taken what was buffered."""

    def may_keep_alive(self, status: int) -> bool:
        """Whether the connection can be reused; called when the response begins."""

    def date_line(self) -> bytes:
        """The header line `Date`."""

    def response_written(self, cycle: "RequestCycle") -> None:
        """The complete response was written."""


class RequestCycle:
    """A request that the ASGI application answers; `run` is called in a task of its own.

    Our own application finds it in the scope as `seawall.output`, and answers without messages of
    ASGI where nothing has to be waited for.

    Attributes:
        started_at: Event loop time when the application was called.
        body_complete: Whether the whole body was received.
        error: A fault of the rest of the body; raised where the application reads it.
        disconnected: Whether the client has disconnected.
        on_disconnect: Called when it does.
        ready: Whether the response can be continued without waiting; set by the connection.
        started: Whether the response has begun.
        complete: Whether the response is complete.
        status: Of the response; 0 before it begins.
        size: Bytes of the response's body so far.
        keep_alive: Whether the connection can be reused.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_expects_continue",
        "_frame",
        "_head",
        "_head_only",
        "_http_1_0",
        "_received",
        "_remaining",
        "_scope",
        "_waiter",
        "body_complete",
        "complete",
        "disconnected",
        "error",
        "keep_alive",
        "on_disconnect",
        "ready",
        "size",
        "started",
        "started_at",
        "status",
    )

    def __init__(
        self,
        scope: dict[str, Any],
        connection: CycleConnection,
        *,
        http_1_0: bool,
        expects_continue: bool,
    ) -> None:
        self._scope = scope
        self._connection = connection
        self._http_1_0 = http_1_0  # does not support chunked responses
        self._expects_continue = expects_continue
        self._head_only = scope["method"] == "HEAD"
        self.keep_alive = True
        self._body = bytearray()
        self._received = False  # the application has received the whole body
        self._waiter: asyncio.Future[None] | None = None
        self._frame: Callable[[str], bytes] | None = None
        self._head = b""  # of the response, until it is written
        self._chunked = False
        self._remaining: int | None = None  # bytes left of the response's Content-Length
        self.started_at = 0.0
        self.body_complete = False
        self.error: Problem | None = None
        self.disconnected = False
        self.on_disconnect: Callable[[], None] | None = None
        self.ready = True
        self.started = False
        self.complete = False
        self.status = self.size = 0

    @property
    def unread_bytes(self) -> int:
        """Bytes of the body that the application has not received."""
        return len(self._body)

    @property
    def expects_continue(self) -> bool:
        """Whether the client still waits for "100 Continue", and may never send the body."""
        return self._expects_continue

    def feed_body(self, data: bytes) -> None:
        """Add a received part of the body."""
        self._body += data
        if self._waiter is not None:
            self.wake()

    def wake(self) -> None:
        """Wake an application that waits in `receive`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def disconnect(self) -> None:
        """The client has disconnected."""
        self.disconnected = True
        self.ready = False
        self.wake()
        if self.on_disconnect is not None:
            self.on_disconnect()

    def take_body(self) -> bytes:
        """What was received of the body and not taken before."""
        self._continue()
        data = bytes(self._body)
        self._body.clear()
        self._received = self.body_complete
        self._connection.resume_body()
        return data

    async def run(self, application: Application) -> None:
        """Call the application; answer with an error if it fails before it responds."""
        self.started_at = asyncio.get_running_loop().time()
        self._scope["seawall.output"] = self
        try:
            await application(self._scope, self._receive, self._send)
        except BaseException as error:  # noqa: BLE001 - the client is answered in any case
            _log.error("the application failed", exc_info=error)
        finally:
            self._scope.pop("seawall.output", None)  # no reference cycle is left
        if self.complete or self.disconnected:
            return
        if self.started:
            self._connection.transport.abort()  # the client must not take the response for complete
            return
        problem = InternalError("Internal error; the details are in the log of the server.")
        scope = self._scope
        name = request_id(dict(scope["headers"]), scope.get("seawall.request_id", ""))
        body = encode(problem_body(problem, name))
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (REQUEST_ID, name.encode()),
        ]
        start = {"type": "http.response.start", "status": problem.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})

    async def _receive(self) -> Message:
        self._continue()
        while not (self.disconnected or self.complete):
            if self._body or (self.body_complete and not self._received):
                data = self.take_body()
                return {"type": "http.request", "body": data, "more_body": not self.body_complete}
            if (error := self.error) is not None:
                # A copy: the stored error would keep its traceback, and with it the data.
                raise type(error)(error.detail, field=error.field, retry_after=error.retry_after)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return {"type": "http.disconnect"}

    def _continue(self) -> None:
        """Ask for the body, if the client waits for that."""
        if self._expects_continue and not self.started and not self.disconnected:
            self._expects_continue = False
            self._connection.transport.write(_CONTINUE)

    def text_sink(self, frame: Callable[[str], bytes]) -> Callable[[str], bool]:
        """What sends text, each piece in a frame, while nothing has to be waited for.

        Args:
            frame: The frame of a piece of text, which is then sent.
        """
        self._frame = frame
        return self._take_text

    def _take_text(self, text: str) -> bool:
        frame = self._frame
        if not (self.started and self.ready) or self.complete or frame is None:
            return False
        data = frame(text)
        if self._chunked and not self._head:  # as `write` does
            self.size += len(data)
            self._connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.write(data)
        return True

    async def _send(self, message: Message) -> None:
        if self._connection.drained is not None:
            await asyncio.shield(self._connection.drained)
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start":
            self.start(message["status"], message.get("headers", ()))
        elif kind != "http.response.body":
            raise RuntimeError(f"unexpected ASGI message {kind!r}")
        elif message.get("more_body", False):
            self.write(message.get("body", b""))
        else:
            self.end(message.get("body", b""))

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Build the head; it is sent with the first part of the body, in one system call.

        Args:
            status: Of the response.
            headers: Of the response.

        Raises:
            RuntimeError: A header cannot be sent, or the response has begun already.
        """
        if self.started:
            raise RuntimeError("the response has begun already")
        head, closing = self._encode_head(status, headers)
        head += self._connection.date_line()
        self.started = True
        self.keep_alive = self._connection.may_keep_alive(status) and not closing
        bodiless = self._head_only or status in (204, 304)
        if self._remaining is None and not bodiless:
            if self._http_1_0:
                self.keep_alive = False
            else:
                self._chunked = True
                head += b"transfer-encoding: chunked\r\n"
        if bodiless:
            self._remaining = None
        if not self.keep_alive and not closing:
            head += b"connection: close\r\n"
        self.status = status
        self._head = head + b"\r\n"
        self._head_only = bodiless

    def _encode_head(
        self, status: int, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[bytes, bool]:
        """Status line and header lines; and whether they say that the connection is closed."""
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        closing = False
        for name, value in headers:
            line = _line_start(name)
            if line in _FRAMING:
                if line == b"transfer-encoding: ":
                    continue
                if line == b"content-length: ":
                    self._remaining = int(value)
                else:
                    closing = b"close" in value.lower()
            lines += (line, value, b"\r\n")
        head = b"".join(lines)
        # One status line, and three parts for each header line; each of them ends with CRLF.
        ends = 2 * (1 + (len(lines) - 1) // 3)
        if len(head) - len(head.translate(None, _CONTROLS)) != ends:
            raise RuntimeError("a header with a control character cannot be sent")
        return head, closing

    def write(self, data: bytes) -> None:
        """Send a part of the body.

        Args:
            data: The part.

        Raises:
            RuntimeError: The response has not begun, or is complete.
        """
        self._write(self._framed(data, last=False))

    def end(self, data: bytes) -> None:
        """Send the last part of the body; see `write`."""
        self._write(self._framed(data, last=True))
        self.complete = True
        if self._waiter is not None:
            self.wake()
        self._connection.response_written(self)

    def _write(self, data: bytes) -> None:
        head, transport = self._head, self._connection.transport
        if head:
            self._head = b""
            if len(data) > _JOINED_BYTES:
                transport.write(head)
            else:
                data = head + data
        if data:
            transport.write(data)

    def _framed(self, data: bytes, *, last: bool) -> bytes:
        """Frame a part of the response body."""
        if not self.started or self.complete:
            raise RuntimeError("a part of the body before its head, or after its end")
        if self._head_only:
            return b""
        self.size += len(data)
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            return data + b"0\r\n\r\n" if last else data
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0 or (last and self._remaining):
                raise RuntimeError("the response body is not as long as its Content-Length")
        return data
