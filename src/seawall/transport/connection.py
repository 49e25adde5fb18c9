"""One HTTP/1.1 client connection: an asyncio protocol around llhttp's response parser."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import httptools

from seawall.timers import Timer, TimingWheel

if TYPE_CHECKING:
    from seawall.transport.pacing import ReadPacer

__all__ = [
    "BodyTooLong",
    "ConnectFailed",
    "ConnectTimeout",
    "Connection",
    "ConnectionBroken",
    "ProtocolError",
    "TransportError",
    "TransportTimeout",
]


class TransportError(Exception):
    """Base class of the errors of this package."""


class ConnectFailed(TransportError):
    """No connection could be made."""


class ConnectionBroken(TransportError):
    """The connection was closed before the response was complete."""


class ProtocolError(TransportError):
    """The response is not HTTP/1.1, or its head is too large."""


class BodyTooLong(TransportError):
    """The body exceeds the caller's limit."""


class TransportTimeout(TransportError):
    """The deadline passed."""


class ConnectTimeout(TransportTimeout):
    """The deadline passed before there was a connection: nothing was sent."""


_HIGH_WATER = 65_536  # unread bytes of a body at which the peer is made to wait
_MAX_HEADERS = 200
_READ_BYTES = 262_144


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time.

    Call `send`, then `head`, then `read` until it returns b"", then `finish`. One timer for each
    exchange is the deadline of all its waits.

    Attributes:
        status: The HTTP status, once `head` has returned.
        headers: Header values by lower-case name.
        used: Whether the connection has carried an exchange before.
        received_any: Whether any byte of the current response has arrived.
        idle_since: Event loop time when the last exchange ended.
        passed_at: See `PacedStream`.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_deadline_timer",
        "_descriptor",
        "_error",
        "_expects_head_only",
        "_head_bytes",
        "_head_done",
        "_keep_alive",
        "_loop",
        "_max_header_bytes",
        "_pacer",
        "_parser",
        "_paused",
        "_raw",
        "_take",
        "_transport",
        "_waiter",
        "_wheel",
        "headers",
        "idle_since",
        "passed_at",
        "received_any",
        "status",
        "used",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: TimingWheel,
        max_header_bytes: int,
        pacer: "ReadPacer | None" = None,
    ) -> None:
        self._loop = loop
        self._pacer = pacer
        self._wheel = wheel
        self._max_header_bytes = max_header_bytes
        self._transport: asyncio.Transport | None = None
        self._raw: asyncio.Transport | None = None
        self._descriptor = -1
        self._waiter: asyncio.Future[None] | None = None
        self._deadline_timer: Timer | None = None
        self._error: TransportError | None = None
        self._paused = False
        self._take: Callable[[bytes], bool] | None = None
        self.used = False
        self.idle_since = 0.0
        self.passed_at = 0.0
        self._reset(expects_head_only=False)

    def _reset(self, *, expects_head_only: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._expects_head_only = expects_head_only
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0  # of the head; then of everything since the last piece of body
        self._head_done = False
        self._complete = False
        self._keep_alive = False
        self.received_any = False
        self.status = 0
        self.headers: dict[str, str] = {}

    # Called by the HTTP client.

    @property
    def open(self) -> bool:
        """Whether another exchange can begin."""
        transport = self._transport
        return self._error is None and transport is not None and not transport.is_closing()

    def send(self, request: bytes, *, deadline: float, head_only: bool = False) -> None:
        """Begin an exchange; `deadline` (event loop clock) applies until `finish`."""
        if self._transport is None or self._error is not None:
            raise self._error or ConnectionBroken("the connection is closed")
        if self.used:
            self._reset(expects_head_only=head_only)
        else:
            self._expects_head_only = head_only
        self._deadline_timer = self._wheel.call_at(deadline, self._on_deadline)
        self._transport.write(request)

    async def head(self) -> None:
        """Wait for status and headers.

        Raises:
            TransportError: They did not arrive, or are not HTTP.
        """
        while not self._head_done:
            await self._wait()
        self._waiter = None

    async def read(self) -> bytes:
        """The body bytes received since the last call, at least one; b"" at the end of the body.

        Raises:
            TransportError: The body was cut off.
        """
        while not self._body:
            if self._complete:
                self._waiter = None
                return b""
            await self._wait()
        self._waiter = None
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        self._body_bytes = 0
        self.read_on()
        return data

    async def forward(self, take: Callable[[bytes], bool]) -> None:
        """Pass on the body as it arrives, without waking a task for each piece.

        Args:
            take: Called by the event loop with what has arrived; must not raise. Returns whether
                it wants more.

        Returns:
            When it wants no more, or something has to be read: the rest, or the end of the body.

        Raises:
            TransportError: The body was cut off.
        """
        if self._body or self._complete:
            return
        self._take = take
        self.passed_at = time.monotonic()
        try:
            await self._wait()
        finally:
            self._take = self._waiter = None

    async def drain(self, seconds: float) -> None:
        """Wait up to `seconds` for the end of the body, discarding the rest of it."""
        if self._complete:
            self._body.clear()
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = self._wheel.call_at(self._loop.time() + seconds, self._on_deadline)
        left = _HIGH_WATER
        try:
            while left > 0 and (data := await self.read()):
                left -= len(data)
        except TransportError:
            pass  # the connection is closed then

    def finish(self) -> bool:
        """End the exchange; return whether the connection can be reused, else close it."""
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None
        self.used = True
        reusable = self._complete and not self._body and self.open
        if not (reusable and self._keep_alive):
            self.abort()
            return False
        self.read_on()  # it may have been paused with the end of the body unread
        return True

    def abort(self) -> None:
        """Close at once; the peer sees it even in the middle of its response."""
        if self._transport is not None:
            self._transport.abort()

    def _wait(self) -> asyncio.Future[None]:
        """What the next change completes; a coroutine would be kept by every open stream."""
        if self._error is not None:
            raise self._error
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: TransportError) -> None:
        if self._error is None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)
        self.abort()

    def _on_deadline(self) -> None:
        self._deadline_timer = None
        self._fail(TransportTimeout("the upstream did not finish in time"))

    # Called by the event loop.

    def connection_made(
        self, transport: asyncio.BaseTransport, raw: asyncio.Transport | None = None
    ) -> None:
        """See asyncio.Protocol.

        Args:
            transport: What is written to.
            raw: The transport below it, if it is one of TLS.
        """
        self._transport = cast("asyncio.Transport", transport)
        self._raw = raw or self._transport
        if self._pacer is not None:  # which has it read by itself
            self._descriptor = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._complete:  # no request is outstanding: the peer is not trusted any more
            self._fail(ProtocolError("the upstream sent data without a request"))
            return
        self.received_any = True
        self._head_bytes += len(data)
        fault = ""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            fault = "the upstream switched protocols"
        except httptools.HttpParserError as error:
            fault = f"the upstream does not speak HTTP/1.1: {error}"
        if not fault and self._head_bytes > self._max_header_bytes and not self._complete:
            what = "head or trailers" if self._head_done else "head"
            fault = f"the response {what} exceeds {self._max_header_bytes} bytes"
        if self._take is not None and (body := self._body):  # also what came before a fault
            received = body.pop() if len(body) == 1 else b"".join(body)
            body.clear()
            if not self._take(received):
                self._take = None
                self._wake()
                self.read_on()
            elif (
                self._pacer is not None
                and not self._complete  # type: ignore[redundant-expr]  # set by the parser
                and self._pacer.rest(self)
            ):
                self._pause()
        if fault:
            self._fail(ProtocolError(fault))

    def read_now(self) -> None:
        """Read while reading is paused; see `PacedStream`.

        It takes two system calls less than resuming and pausing again. Reading is resumed where
        nothing has arrived, or the end, or more than is read at once, and where the piece is not
        to be followed by a rest.
        """
        raw = self._raw
        if raw is None or raw.is_closing() or not self._paused:
            return
        self._paused = False  # unless the piece pauses it again
        more = self._take is not None and self._read_paused(raw) and self._take is not None
        if more or not self._paused:
            self._paused = True
            self.read_on()

    def _read_paused(self, raw: asyncio.Transport) -> bool:
        """Whether there may be more."""
        size, count = _READ_BYTES, 0
        try:
            if raw is self._transport:
                if data := os.read(self._descriptor, size):
                    count = len(data)
                    self.data_received(data)
            else:
                tls = cast("asyncio.BufferedProtocol", raw.get_protocol())
                buffer = cast("memoryview", tls.get_buffer(size))
                size = len(buffer)
                if count := os.readv(self._descriptor, [buffer]):
                    tls.buffer_updated(count)
        except BlockingIOError:
            pass  # nothing has arrived
        except OSError as error:  # is reported once: the transport would read the end instead
            self._fail(ConnectionBroken(f"the upstream closed the connection: {error}"))
        return count == size

    def read_on(self) -> None:
        """Read again, if reading is paused."""
        if self._paused and self._raw is not None and not self._raw.is_closing():
            self._paused = False
            self._raw.resume_reading()

    def _pause(self) -> None:
        if not self._paused and self._raw is not None:
            self._paused = True
            self._raw.pause_reading()

    def eof_received(self) -> bool:
        """A body without a length ends at the end of the connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = self._raw = None
        if self._complete:
            self._error = self._error or ConnectionBroken("the upstream closed the connection")
        elif self._head_done and self._until_close() and exc is None and self._error is None:
            self._complete = True
            self._wake()
        else:
            reason = f": {exc}" if exc else ""
            self._fail(ConnectionBroken(f"the upstream closed the connection{reason}"))

    def _until_close(self) -> bool:
        return "content-length" not in self.headers and "transfer-encoding" not in self.headers

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Reject a second response to one request."""
        if self._complete:
            raise ProtocolError("the upstream sent a response without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Record a header; values of repeated headers are joined (RFC 9110 §5.3).

        Trailers are ignored.
        """
        if self._head_done:
            return
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        if key in self.headers:
            if key in ("content-length", "transfer-encoding"):
                raise ProtocolError(f"the upstream sent {key} twice")
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text
        if len(self.headers) > _MAX_HEADERS:
            raise ProtocolError("the upstream sent too many headers")

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim response: the real one follows
            self.headers = {}
            return
        if sum(map(len, self.headers.values())) > self._max_header_bytes:
            raise ProtocolError(f"the response head exceeds {self._max_header_bytes} bytes")
        if "content-length" in self.headers and "transfer-encoding" in self.headers:
            raise ProtocolError("the upstream sent both content-length and transfer-encoding")
        self._head_done = True
        if self._expects_head_only:
            self._complete = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        """Buffer a piece of the body."""
        self._head_bytes = 0  # from here on it counts framing and trailers
        self._body.append(body)
        if self._take is not None:  # see `data_received`
            return
        self._body_bytes += len(body)
        # No reader waits: let the rest accumulate in the kernel and read it in one piece later.
        waiter = self._waiter
        unread = waiter is None or waiter.cancelled()
        unwanted = unread or self._body_bytes > _HIGH_WATER
        if unwanted:
            self._pause()
        self._wake()

    def on_message_complete(self) -> None:
        """The response is complete."""
        if self._head_done:
            self._complete = True
            # Must be read here: the parser forgets the message after this callback.
            self._keep_alive = self._parser.should_keep_alive()
            self._wake()
