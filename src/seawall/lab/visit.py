"""One customer of a surge: a connection, a streamed turn, and what came of it."""

import asyncio
from collections.abc import Callable
from typing import Literal

import httptools
import msgspec
from msgspec import Struct

from seawall.transport.errors import ProtocolError
from seawall.transport.sse import ServerSentEvent, SseParser

__all__ = ["Api", "Outcome", "Visit"]

Api = Literal["turns", "chat"]


class Outcome(Struct):
    """What a customer saw; times in seconds from the moment of the customer's arrival.

    error: empty when the turn was completed and the answer is the one that was due.
    """

    status: int = 0
    first_text: float | None = None
    total: float = 0.0
    turn: str = ""
    session: str = ""
    error: str = ""


class _Delta(Struct):
    text: str


class _Completed(Struct):
    turn: str
    session: str


class _ChatDelta(Struct):
    content: str | None = None


class _ChatChoice(Struct):
    delta: _ChatDelta
    finish_reason: str | None = None


class _ChatChunk(Struct):
    choices: list[_ChatChoice] = []


_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_completed = msgspec.json.Decoder(_Completed).decode
_decode_chunk = msgspec.json.Decoder(_ChatChunk).decode


class Visit(asyncio.Protocol):
    """Sends a request when connected, reads the stream, judges the answer, reports once.

    arrived: the event loop's clock when the customer came, whenever the connection stands.
    expected: the text that the answer must have.
    """

    __slots__ = (
        "_api",
        "_arrived",
        "_clock",
        "_complete",
        "_done",
        "_expected",
        "_parser",
        "_plain",
        "_report",
        "_request",
        "_sse",
        "_text",
        "_transport",
        "outcome",
    )

    def __init__(
        self,
        request: bytes,
        *,
        api: Api,
        arrived: float,
        expected: str,
        report: Callable[["Visit"], None],
    ) -> None:
        self.outcome = Outcome()
        self._request = request
        self._api = api
        self._arrived = arrived
        self._expected = expected
        self._report = report
        self._clock = asyncio.get_running_loop().time
        self._parser = httptools.HttpResponseParser(self)
        self._sse = SseParser()
        self._text: list[str] = []
        self._plain = b""
        self._complete = False
        self._done = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport  # type: ignore[assignment]  # a stream transport, always
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(f"not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.fail(f"connection lost: {exc}" if exc else "connection closed early")

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self._parser.get_status_code() != 200:
            self._plain += body
            return
        try:
            for event in self._sse.feed(body):
                self._take(event)
        except (ProtocolError, msgspec.DecodeError) as error:
            self.fail(f"unreadable event: {error}")

    def on_message_complete(self) -> None:
        """See httptools."""
        outcome = self.outcome
        outcome.status = self._parser.get_status_code()
        if outcome.status != 200:
            self.fail(f"status {outcome.status}: {self._plain[:200].decode('utf-8', 'replace')}")
        elif not self._complete:
            self.fail("the stream ended before the turn was completed")
        elif "".join(self._text) != self._expected:
            self.fail("the answer is not the one to this question")
        else:
            self._finish()

    def fail(self, reason: str) -> None:
        """The customer was not served; only the first reason counts."""
        if not self._done:
            self.outcome.error = reason
            self._finish()

    def _take(self, event: ServerSentEvent) -> None:
        if self._api == "chat":
            self._take_chunk(event.data)
        elif event.name == b"text.delta":
            self._add(_decode_delta(event.data).text)
        elif event.name == b"turn.completed":
            completed = _decode_completed(event.data)
            self.outcome.turn, self.outcome.session = completed.turn, completed.session
            self._complete = True
        elif event.name == b"turn.failed":
            self.fail(f"turn failed: {event.data[:300].decode('utf-8', 'replace')}")

    def _take_chunk(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._complete = True
            return
        for choice in _decode_chunk(data).choices:
            if choice.delta.content:
                self._add(choice.delta.content)

    def _add(self, text: str) -> None:
        if self.outcome.first_text is None:
            self.outcome.first_text = self._clock() - self._arrived
        self._text.append(text)

    def _finish(self) -> None:
        self._done = True
        self.outcome.total = self._clock() - self._arrived
        self._text.clear()
        if self._transport is not None:
            self._transport.abort()
        self._report(self)
