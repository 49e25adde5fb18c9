"""ASGI request cycle: one request of a connection and the response to it."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

from seawall.errors import InternalError, Problem
from seawall.hosts.http.exchange import encode, problem_body
from seawall.requests import REQUEST_ID, request_id

__all__ = ["STATUS_LINES", "CycleConnection", "RequestCycle"]

Application = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]

STATUS_LINES = {
    each.value: b"HTTP/1.1 %d %b\r\n" % (each.value, each.phrase.encode()) for each in HTTPStatus
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JOINED_BYTES = 16_384  # longer bodies are not copied to join them with their head
_log = logging.getLogger("seawall.server")
_forbidden_in_name = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_forbidden_in_value = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


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

    def response_written(self, cycle: "RequestCycle") -> None:
        """The complete response was written."""


class RequestCycle:
    """A request that the ASGI application answers; `run` is called in a task of its own.

    Attributes:
        started_at: Event loop time when the application was called.
        body_complete: Whether the whole body was received.
        error: A fault of the rest of the body; raised where the application reads it.
        disconnected: Whether the client has disconnected.
        started: Whether the response has begun.
        complete: Whether the response is complete.
        status: Of the response; 0 before it begins.
        keep_alive: Whether the connection can be reused.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_expects_continue",
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
        self._head: list[bytes] = []
        self._chunked = False
        self._remaining: int | None = None  # bytes left of the response's Content-Length
        self.started_at = 0.0
        self.body_complete = False
        self.error: Problem | None = None
        self.disconnected = False
        self.started = False
        self.complete = False
        self.status = 0

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
        self.wake()

    def wake(self) -> None:
        """Wake an application that waits in `receive`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
        name = request_id(dict(self._scope["headers"]))
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
        if self._expects_continue and not self.started and not self.disconnected:
            self._expects_continue = False
            self._connection.transport.write(_CONTINUE)
        while not (self.disconnected or self.complete):
            if self._body or (self.body_complete and not self._received):
                data = bytes(self._body)
                self._body.clear()
                self._received = self.body_complete
                self._connection.resume_body()
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

    def text_sink(self, frame: Callable[[str], bytes]) -> Callable[[str], bool]:
        """What sends text, each piece in a frame, while nothing has to be waited for.

        Args:
            frame: The frame of a piece of text, which is then sent.
        """
        connection = self._connection

        def take(text: str) -> bool:
            begun = self.started and not (self._head or self.complete or self.disconnected)
            if not begun or connection.drained is not None:
                return False
            if self._chunked:
                data = frame(text)
                connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                self._write(frame(text), last=False)
            return True

        return take

    async def _send(self, message: Message) -> None:
        if self._connection.drained is not None:
            await asyncio.shield(self._connection.drained)
        if self.disconnected:
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        elif self.started and not self.complete and kind == "http.response.body":
            self._write(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Build the head; it is sent with the first part of the body, in one system call."""
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        closing = False
        for name, value in headers:
            if _forbidden_in_name.search(name) or _forbidden_in_value.search(value):
                raise RuntimeError(f"the header {name!r} cannot be sent")
            lowered = name.lower()
            if lowered == b"content-length":
                self._remaining = int(value)
            elif lowered == b"connection":
                closing = b"close" in value.lower()
            elif lowered == b"transfer-encoding":
                continue
            lines.append(b"%b: %b\r\n" % (lowered, value))
        self.started = True
        self.keep_alive = self._connection.may_keep_alive(status) and not closing
        bodiless = self._head_only or status in (204, 304)
        if self._remaining is None and not bodiless:
            if self._http_1_0:
                self.keep_alive = False
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if bodiless:
            self._remaining = None
        if not self.keep_alive and not closing:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self.status = status
        self._head = lines
        self._head_only = bodiless

    def _write(self, data: bytes, *, last: bool) -> None:
        data = self._framed(data, last=last)
        transport = self._connection.transport
        if self._head and len(data) > _JOINED_BYTES:
            transport.write(b"".join(self._head))
            transport.write(data)
        elif self._head:
            transport.write(b"".join((*self._head, data)))
        elif data:
            transport.write(data)
        self._head = []
        if last:
            self.complete = True
            self.wake()
            self._connection.response_written(self)

    def _framed(self, data: bytes, *, last: bool) -> bytes:
        """Frame a part of the response body."""
        if self._head_only:
            return b""
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            return data + b"0\r\n\r\n" if last else data
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0 or (last and self._remaining):
                raise RuntimeError("the response body is not as long as its Content-Length")
        return data
