"""uvicorn's HTTP protocol with the limits that a public server needs: head size, time, stalls."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from seawall.config import ServerSettings
from seawall.errors import HeadersTooLarge, InvalidRequest, Problem, RequestTimeout
from seawall.hosts.http.door import TURN_TARGETS, Door
from seawall.hosts.http.joining import JoiningTransport
from seawall.hosts.http.stop import Stop
from seawall.transport.wheel import Timer, Wheel

__all__ = ["LimitedProtocol"]

_MAX_HEADERS = 100


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A stranger cannot make it hold more, or longer, than configured.

    The head must arrive within `header_seconds` and `max_header_bytes`; a client that leaves an
    answer unread for `stall_seconds` is cut off, which cancels its turn. wheel: the timers of
    all connections. stop: when that is asked for, each answer closes its connection. door: answers
    turns for which there is no room, right here.

    idle_since: from when on nothing has been asked here, on the loop's clock; None while
    something is.
    """

    def __init__(
        self,
        *,
        limits: ServerSettings,
        wheel: Wheel,
        stop: Stop,
        door: Door,
        **uvicorn: Any,  # noqa: ANN401 - uvicorn's own business
    ) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._wheel = wheel
        self._stop = stop
        self.idle_since: float | None = None
        self._door = door
        self._turned_away = False  # the request was answered; its body is still to be passed over
        self._closing = False  # and the connection is to be closed then
        self._body_bytes = 0
        self._body_timer: Timer | None = None
        self._in_head = True
        self._head_bytes = 0
        self._heads = 0  # received whole
        self._head_timer: Timer | None = None
        self._stall_timer: Timer | None = None
        self._refusal: Problem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        self._joining = JoiningTransport(transport)
        super().connection_made(self._joining)
        self.idle_since = self.loop.time()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.idle_since = None
        if self._in_head and self._head_timer is None:
            self._expect_head()
        in_head, heads = self._in_head, self._heads
        super().data_received(data)
        if self._turned_away and self._body_timer is None:
            self._body_timer = self._wheel.call_at(
                self.loop.time() + self._limits.body_seconds, self.transport.abort
            )
        if not in_head:
            return  # it was of a body, even if that is complete now
        if self._in_head and self._heads == heads and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is whole: check it before anything acts on it."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._limits.max_header_bytes or len(self.headers) > _MAX_HEADERS:
            self._refusal = HeadersTooLarge(
                f"The head may have {self._limits.max_header_bytes} bytes and {_MAX_HEADERS} lines."
            )
            raise self._refusal  # the parser stops; send_400_response answers
        self._in_head = False
        self._head_bytes = 0
        self._heads += 1
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self.url in TURN_TARGETS and self._may_turn_away():
            refusal = self._door.refusal(self.headers, self.client, self.url)
            if refusal is not None:
                self._turn_away(*refusal)
                return
        super().on_headers_complete()
        # One that was turned away may have come in the same segment, and left these behind.
        self.idle_since = None
        self._unset_keepalive_if_required()
        if self._stop.leaving:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """See uvicorn. The body of a request that was turned away is passed over."""
        if not self._turned_away:
            super().on_body(body)
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """The next bytes begin another head; its time begins with them."""
        self._in_head = True
        if not self._turned_away:
            super().on_message_complete()
            return
        self._turned_away = False
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        if self._closing:
            self.transport.close()
        elif not self.transport.is_closing():
            self.idle_since = self.loop.time()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """See uvicorn."""
        self._joining.flush()
        super().on_response_complete()
        if not self.answering:
            self.idle_since = self.loop.time()

    @property
    def answering(self) -> bool:
        """Whether a request has come whose answer is not out."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first
        return cycle is not None and not cycle.response_complete

    def announce_close(self) -> None:
        """The answer under way, if its head is not out, is to say that it is the last."""
        if self.answering and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Problem details instead of plain text."""
        self._answer(self._refusal or InvalidRequest(msg))

    def pause_writing(self) -> None:
        """The client does not read: it has `stall_seconds`."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self._wheel.call_at(
                self.loop.time() + self._limits.stall_seconds, self.transport.abort
            )

    def resume_writing(self) -> None:
        """It reads again."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _expect_head(self) -> None:
        self._head_timer = self._wheel.call_at(
            self.loop.time() + self._limits.header_seconds, self._head_is_late
        )

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.answering:
            self._expect_head()  # it cannot be told so now, and the answer is not to suffer for it
        elif not self.transport.is_closing():
            self._answer(
                RequestTimeout(f"The head did not arrive within {self._limits.header_seconds:g} s.")
            )

    def _refuse_head(self) -> None:
        limit = self._limits.max_header_bytes
        self._answer(HeadersTooLarge(f"The head may have {limit} bytes."))

    def _answer(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        if self.answering:
            self.transport.abort()  # an answer is under way: nothing can be put in front of it
            return
        self.transport.write(
            STATUS_LINE[problem.status] + self._door.rejection(problem, self.headers or [])
        )
        self.transport.close()

    def _may_turn_away(self) -> bool:
        """Whether an answer may be written here, past the application."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first
        return (
            self.parser.get_method() == b"POST"
            and (cycle is None or cycle.response_complete)  # and none waits behind it
            and not self.flow.write_paused
            and not self.parser.should_upgrade()
        )

    def _turn_away(self, head: bytes, body: bytes) -> None:
        """Answer before the body has come, and pass that over, so that the next request can come.

        A client that waits for "100 Continue" may or may not send its body after this (RFC 9110
        §10.1.1), so nobody can tell where its next request begins: it has to come anew.
        """
        self._turned_away = True
        self._body_bytes = 0
        self._closing = (
            self.expect_100_continue or not self.parser.should_keep_alive() or self._stop.leaving
        )
        end = b"connection: close\r\n\r\n" if self._closing else b"\r\n"
        self.transport.write(b"%b%b%b" % (head, end, body))
        if self.expect_100_continue:
            self.transport.close()

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._stall_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stall_timer = self._body_timer = None
