"""A connection of the driver: sends one turn at a time, times and validates its stream."""

import asyncio
import re
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
from seawall.transport.connection import ProtocolError
from seawall.transport.http_client import Endpoint
from seawall.transport.sse import SseParser

__all__ = ["Connection", "PendingTurn", "TurnEnded", "request_bytes"]

_REFUSAL_BYTES = 300
_AFTER_END_SECONDS = 1.0  # for the end of the body after the end of the answer
_LARGEST_HEAD = 1 << 17
_LARGEST_ANSWER = 1 << 24  # head, framing and body; a token takes some 200 bytes of it
_DELIMITING = (b"content-length", b"transfer-encoding")
# A chunk of the body that is one piece of text, in Seawall's own events. The string has no escapes.
_text_chunk = re.compile(
    rb"([0-9a-f]{1,8})\r\n"
    rb'(event: text\.delta\nid: ([1-9][0-9]{0,8})\ndata: \{"type":"text\.delta","text":'
    rb'"([^\x00-\x1f"\\]*+)"\}\n\n)\r\n'
)


class PendingTurn(Struct):
    """A turn to send, or in flight.

    Attributes:
        outcome: Filled in while the turn proceeds.
        request: The bytes to send.
        expected: The expected text; None if it is not known.
        since: Start of the turn's clock, on the event loop's clock.
        timer: Of the user's patience.
        retry_after: Seconds of the response's `Retry-After`; None if there was none.
    """

    outcome: Outcome
    request: bytes
    expected: str | None
    since: float
    timer: Timer | None = None
    retry_after: float | None = None


class TurnEnded(Protocol):
    """Called once when a turn has ended; `keep`: whether the connection can be reused."""

    def __call__(self, turn: PendingTurn, connection: "Connection", *, keep: bool) -> None:
        """See the class."""


class Connection(asyncio.Protocol):
    """A connection: sends a turn, reads and validates its stream, then is free for the next one.

    Most of what it reads are pieces of text after the first. Those are validated with one
    expression for chunk and event; whatever it does not match goes through the parsers of HTTP, of
    server-sent events and of JSON, like all the rest.
    """

    __slots__ = (
        "_answer",
        "_api",
        "_chunk_ended",
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
        "_turn",
        "_within_text",
    )

    def __init__(self, api: Api, ended: TurnEnded, lost: Callable[["Connection"], None]) -> None:
        """Create a connection.

        Args:
            api: The API that it calls.
            ended: Called when a turn has ended.
            lost: Called when the connection is lost while it is free.
        """
        self._api: Api = api
        self._ended = ended
        self._lost = lost
        self._clock = asyncio.get_running_loop().time
        self._turn: PendingTurn | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, turn: PendingTurn) -> None:
        """Send a turn."""
        self._turn = turn
        self._answer = Answer(self._api)
        self._sse = SseParser()
        self._plain = b""
        self._events = False  # whether any was received
        self._finished_at: float | None = None
        self._received = 0
        self._headed = False  # whether the response head is complete
        self._delimited = False  # whether the head delimits the body
        self._chunk_ended = False  # whether the last bytes of the body were the last of a chunk
        self._within_text = False  # whether the next byte begins a chunk, in the midst of text
        if self._transport.is_closing():
            self.fail("connection closed")
        else:
            self._transport.write(turn.request)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._parser is None:
            return
        if self._turn is None:
            self.close()  # unsolicited data
            return
        self._received += len(data)
        if self._within_text and self._received <= _LARGEST_ANSWER:
            data = self._take_text(data)
            if not data:
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(f"not HTTP: {error}")
        if self._received > _LARGEST_HEAD and not self._headed:
            self.fail(f"a head of more than {_LARGEST_HEAD} bytes")
        elif self._received > _LARGEST_ANSWER:
            self.fail(f"an answer of more than {_LARGEST_ANSWER} bytes")
        self._within_text = (
            self._turn is not None  # type: ignore[redundant-expr]  # it may have ended meanwhile
            and self._chunk_ended
            and self._answer.within_text
            and self._sse.between_events
            and bool(self._sse.last_id)
            and data.endswith(b"\n\n\r\n")  # not within the line before a chunk
        )

    def _take_text(self, data: bytes) -> bytes:
        """Process chunks that are pieces of text; return the rest."""
        at, answer = 0, self._answer
        while (match := _text_chunk.match(data, at)) is not None:
            size, position, text = match.group(1, 3, 4)
            begin, end = match.span(2)
            if int(size, 16) != end - begin or not answer.take_text(int(position), text):
                break
            at, self._sse.last_id = match.end(), position
        return data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._parser = None  # break the reference cycle: the lab runs without gc
        if self._turn is None:
            self._lost(self)
        elif exc is None and self._headed and not self._delimited:
            self._complete(keep=False)
        else:
            self.fail(f"connection lost: {exc}" if exc else "connection closed early")

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Trailers are ignored."""
        if self._headed:
            return
        key = name.lower()
        if key in _DELIMITING:
            self._delimited = True
        elif key == b"retry-after" and self._turn is not None:
            self._turn.retry_after = seconds_until(value.decode("latin-1"), now=time.time())

    def on_headers_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code() if self._parser is not None else 0
        self._headed = status >= 200  # else an interim response
        if self._headed and self._turn is not None:
            self._turn.outcome.status = status

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._chunk_ended = False
        turn = self._turn
        if turn is None:
            return
        if not self._events and len(self._plain) < _REFUSAL_BYTES:
            self._plain = (self._plain + body)[:_REFUSAL_BYTES]
        if turn.outcome.status != 200:
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
            turn.outcome.first_text = self._clock() - turn.since
        if answer.error:
            if answer.refusal is not None:
                turn.outcome.status, turn.retry_after = answer.refusal
            self.fail(answer.error)
        elif answer.finished and self._finished_at is None:
            # Clients stop reading here, whether or not the server ends the body.
            self._finished_at = self._clock()
            loop = asyncio.get_running_loop()
            loop.call_later(_AFTER_END_SECONDS, self._complete_open, turn)

    def on_chunk_complete(self) -> None:
        """See httptools."""
        self._chunk_ended = True

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._headed and self._parser is not None:
            self._complete(keep=self._parser.should_keep_alive())

    def fail(self, reason: str) -> None:
        """Fail the turn; only the first reason is kept."""
        if self._turn is not None:
            self._turn.outcome.error = reason
            self._finish(keep=False)

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()

    def _complete(self, *, keep: bool) -> None:
        """The response is complete."""
        turn = self._turn
        if turn is None:
            return
        outcome, answer = turn.outcome, self._answer
        if outcome.status != 200:
            received = self._plain.decode("utf-8", "replace")
            outcome.error = f"status {outcome.status}: {received}"
        else:
            answer.close(turn.expected)
            outcome.error = answer.error
            if outcome.error and not self._events:
                received = self._plain.decode("utf-8", "replace")
                outcome.error = f"not a stream of events: {received}" if received else outcome.error
        self._finish(keep=keep)

    def _complete_open(self, turn: PendingTurn) -> None:
        """The answer is complete, but the body was not ended."""
        if self._turn is turn:
            self._complete(keep=False)

    def _finish(self, *, keep: bool) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        outcome, answer = turn.outcome, self._answer
        ended = self._clock() if outcome.error else self._finished_at or self._clock()
        outcome.total = ended - turn.since
        outcome.turn, outcome.session = answer.turn, answer.session
        outcome.digest = digest_of(answer.text)
        self._answer = Answer(self._api)
        if not keep:
            self._transport.abort()
        self._ended(turn, self, keep=keep)


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
    """Encode the request of a streamed turn."""
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
