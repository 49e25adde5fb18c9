"""A connection of the driver: one turn at a time, streamed, timed and judged."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import httptools
import msgspec
from msgspec import Struct

from seawall.lab.surge.answer import Answer
from seawall.lab.surge.outcome import Outcome
from seawall.lab.surge.scenario import Api, digest_of
from seawall.models.failures import seconds_until
from seawall.timers import Timer
from seawall.transport.errors import ProtocolError
from seawall.transport.http_client import Endpoint
from seawall.transport.sse import SseParser

__all__ = ["Connection", "PendingTurn", "TurnEnded", "request_bytes"]

_REFUSAL_BYTES = 300
_AFTER_END_SECONDS = 1.0  # for the end of the body after that of the answer
_LARGEST_HEAD = 1 << 17
_LARGEST_ANSWER = 1 << 24  # head, framing and body; a token takes some 200 bytes of it
_DELIMITING = (b"content-length", b"transfer-encoding")


class PendingTurn(Struct):
    """One turn that is asked.

    since: the event loop's clock when its customer's time began. retry_after: seconds that the
    server asked him to wait; None where it asked for nothing.
    """

    outcome: Outcome
    request: bytes
    expected: str | None
    since: float
    timer: Timer | None = None
    retry_after: float | None = None


class TurnEnded(Protocol):
    """Told once when a visit is over; keep: the connection can be used again."""

    def __call__(self, visit: PendingTurn, connection: "Connection", *, keep: bool) -> None:
        """See the class."""


class Connection(asyncio.Protocol):
    """Sends a turn, reads the stream, judges the answer; then it is free for the next one.

    lost: told when it was lost while it was free.
    """

    __slots__ = (
        "_answer",
        "_api",
        "_clock",
        "_delimited",
        "_ended",
        "_events",
        "_finished_at",
        "_headed",
        "_lost",
        "_parser",
        "_plain",
        "_received",
        "_sse",
        "_transport",
        "_visit",
    )

    def __init__(self, api: Api, ended: TurnEnded, lost: Callable[["Connection"], None]) -> None:
        self._api: Api = api
        self._ended = ended
        self._lost = lost
        self._clock = asyncio.get_running_loop().time
        self._visit: PendingTurn | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, visit: PendingTurn) -> None:
        """Have the turn asked."""
        self._visit = visit
        self._answer = Answer(self._api)
        self._sse = SseParser()
        self._plain = b""
        self._events = False  # there were some
        self._finished_at: float | None = None
        self._received = 0
        self._headed = False  # the head of the answer is there
        self._delimited = False  # and tells where its body ends
        if self._transport.is_closing():
            self.fail("connection closed")
        else:
            self._transport.write(visit.request)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._parser is None:
            return
        if self._visit is None:
            self.close()  # nothing was asked
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(f"not HTTP: {error}")
        if self._received > _LARGEST_HEAD and not self._headed:
            self.fail(f"a head of more than {_LARGEST_HEAD} bytes")
        elif self._received > _LARGEST_ANSWER:
            self.fail(f"an answer of more than {_LARGEST_ANSWER} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._parser = None  # each holds the other, and the lab does not collect cycles
        if self._visit is None:
            self._lost(self)
        elif exc is None and self._headed and not self._delimited:
            self._complete(keep=False)
        else:
            self.fail(f"connection lost: {exc}" if exc else "connection closed early")

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Trailers are passed over."""
        if self._headed:
            return
        key = name.lower()
        if key in _DELIMITING:
            self._delimited = True
        elif key == b"retry-after" and self._visit is not None:
            self._visit.retry_after = seconds_until(value.decode("latin-1"), now=time.time())

    def on_headers_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code() if self._parser is not None else 0
        self._headed = status >= 200  # else the real head follows
        if self._headed and self._visit is not None:
            self._visit.outcome.status = status

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        visit = self._visit
        if visit is None:
            return
        if not self._events and len(self._plain) < _REFUSAL_BYTES:
            self._plain = (self._plain + body)[:_REFUSAL_BYTES]
        if visit.outcome.status != 200:
            return
        answer = self._answer
        begun = answer.begun
        try:
            for event in self._sse.feed(body):
                self._events = True
                answer.take(event)
        except (ProtocolError, ValueError, RecursionError) as error:
            self.fail(f"unreadable event: {error}")
            return
        if answer.begun and not begun:
            visit.outcome.first_text = self._clock() - visit.since
        if answer.error:
            self.fail(answer.error)
        elif answer.finished and self._finished_at is None:
            # Clients stop reading here, whether or not the server closes the body.
            self._finished_at = self._clock()
            loop = asyncio.get_running_loop()
            loop.call_later(_AFTER_END_SECONDS, self._complete_open, visit)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._headed and self._parser is not None:
            self._complete(keep=self._parser.should_keep_alive())

    def fail(self, reason: str) -> None:
        """The customer was not served; only the first reason counts."""
        if self._visit is not None:
            self._visit.outcome.error = reason
            self._finish(keep=False)

    def close(self) -> None:
        """It is not needed any more."""
        self._transport.abort()

    def _complete(self, *, keep: bool) -> None:
        """The answer is whole."""
        visit = self._visit
        if visit is None:
            return
        outcome, answer = visit.outcome, self._answer
        if outcome.status != 200:
            said = self._plain.decode("utf-8", "replace")
            outcome.error = f"status {outcome.status}: {said}"
        else:
            answer.close(visit.expected)
            outcome.error = answer.error
            if outcome.error and not self._events:
                said = self._plain.decode("utf-8", "replace")
                outcome.error = f"not a stream of events: {said}" if said else outcome.error
        self._finish(keep=keep)

    def _complete_open(self, visit: PendingTurn) -> None:
        """The answer is whole, and its body was left open."""
        if self._visit is visit:
            self._complete(keep=False)

    def _finish(self, *, keep: bool) -> None:
        visit, self._visit = self._visit, None
        if visit is None:
            return
        outcome, answer = visit.outcome, self._answer
        ended = self._clock() if outcome.error else self._finished_at or self._clock()
        outcome.total = ended - visit.since
        outcome.turn, outcome.session = answer.turn, answer.session
        outcome.digest = digest_of(answer.text)
        self._answer = Answer(self._api)
        if not keep:
            self._transport.abort()
        self._ended(visit, self, keep=keep)


def request_bytes(
    endpoint: Endpoint,
    api: Api,
    text: str,
    token: str,
    *,
    session: str = "",
    model: str = "auto",
    keep_alive: bool = True,
) -> bytes:
    """A streamed turn as it goes over the wire."""
    body: dict[str, object] = {"text": text, "stream": True}
    if session:
        body["session"] = session
    if api == "chat":
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "stream": True}
    data = msgspec.json.encode(body)
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    closing = "" if keep_alive else "connection: close\r\n"
    head = (
        f"POST {endpoint.target.decode()} HTTP/1.1\r\nhost: {endpoint.authority.decode()}\r\n"
        f"content-type: application/json\r\naccept: text/event-stream\r\n{authorization}{closing}"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
