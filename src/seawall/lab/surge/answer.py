"""What a stream of events amounts to: complete, in order, and the answer that was due, or not."""

import msgspec
from msgspec import Struct

from seawall.lab.surge.scenario import Api
from seawall.transport.sse import ServerSentEvent

__all__ = ["Answer"]


class _Started(Struct):
    turn: str
    session: str


class _Delta(Struct):
    text: str


class _ChatDelta(Struct):
    content: str | None = None


class _ChatChoice(Struct):
    delta: _ChatDelta
    finish_reason: str | None = None


class _ChatChunk(Struct):
    id: str = ""
    choices: list[_ChatChoice] = []


_decode_started = msgspec.json.Decoder(_Started).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_chunk = msgspec.json.Decoder(_ChatChunk).decode


class Answer:
    """Takes the events of one turn; knows neither sockets nor clocks.

    error: what is wrong with it; empty while nothing is. In order means for the turns API: every
    event's id is the one before plus the width of the event (docs/http-api.md), so that nothing
    is missing, doubled or swapped.
    """

    __slots__ = ("_api", "_finished", "_position", "_text", "error", "session", "turn")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._text: list[str] = []
        self._position = 0
        self._finished = False
        self.turn = ""
        self.session = ""
        self.error = ""

    @property
    def begun(self) -> bool:
        """Whether there is any text."""
        return bool(self._text)

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._text)

    def take(self, event: ServerSentEvent) -> None:
        """The next event.

        Raises:
            msgspec.DecodeError: it cannot be read.
        """
        if self.error:
            return
        if self._finished:
            self.error = "something came after the end"
        elif self._api == "chat":
            self._take_chunk(event.data)
        else:
            self._take_event(event)

    def close(self, expected: str | None) -> None:
        """The stream is over; `expected`: the text that was due, where it is known."""
        if self.error:
            return
        if not self._finished:
            self.error = "the stream ended before the turn was completed"
        elif expected is not None and self.text != expected:
            self.error = "the answer is not the one to this question"

    def _take_event(self, event: ServerSentEvent) -> None:
        name, width = event.name, 1
        if name == b"text.delta":
            text = _decode_delta(event.data).text
            self._text.append(text)
            width = len(text)
        elif name == b"turn.started":
            started = _decode_started(event.data)
            self.turn, self.session = started.turn, started.session
        elif name == b"turn.completed":
            completed = _decode_started(event.data)
            if (completed.turn, completed.session) != (self.turn, self.session):
                self.error = "another turn was completed than was started"
            self._finished = True
        elif name == b"turn.failed":
            self.error = f"turn failed: {event.data[:300].decode('utf-8', 'replace')}"
            return
        self._position += width
        if event.id and not self.error and event.id != b"%d" % self._position:
            self.error = f"event {event.id.decode()} where {self._position} was due"

    def _take_chunk(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._finished = True
            return
        if b'"error"' in data[:12]:
            self.error = f"turn failed: {data[:300].decode('utf-8', 'replace')}"
            return
        chunk = _decode_chunk(data)
        if not self.turn:
            self.turn = chunk.id
        for choice in chunk.choices:
            if choice.delta.content:
                self._text.append(choice.delta.content)
