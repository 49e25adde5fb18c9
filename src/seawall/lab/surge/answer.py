"""Validation of a streamed answer: complete, in order, and the expected text."""

from typing import Any

import msgspec
from msgspec import Struct

from seawall.lab.surge.scenario import Api
from seawall.transport.sse import ServerSentEvent

__all__ = ["Answer"]


class _Started(Struct):
    turn: str
    session: str


class _Problem(Struct, frozen=True):
    code: str = ""
    status: int = 0
    retry_after: float | None = None


class _Failed(Struct):
    problem: _Problem = _Problem()


class _Delta(Struct):
    text: str


class _Part(Struct):
    text: str | None = None
    type: str | None = None


class _ChatDelta(Struct):
    content: str | list[_Part] | None = None


class _ChatChoice(Struct):
    delta: _ChatDelta | None = None
    finish_reason: str | None = None
    error: Any = None


class _ChatChunk(Struct):
    id: str | None = None
    choices: list[_ChatChoice] | None = None
    error: Any = None
    type: str | None = None
    object: str | None = None


_decode_started = msgspec.json.Decoder(_Started).decode
_decode_failed = msgspec.json.Decoder(_Failed).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_chunk = msgspec.json.Decoder(_ChatChunk).decode

_SHOWN_BYTES = 300
_REFUSALS = ("overloaded", "quota-exhausted")
_LONGEST_ID = 256  # kept for every turn

# Finish reasons of complete answers, as several servers name them. Every other reason ("error",
# "abort", "content_filter", ...) means that the answer is incomplete.
_FINISHED = frozenset(
    {
        *("stop", "length", "tool_calls", "function_call"),
        *("eos", "eos_token", "end_turn", "stop_sequence", "max_tokens", "max_output_tokens"),
    }
)


class Answer:
    """Validates the events of one turn, without sockets or clocks.

    In the turns API every event's id is the previous id plus the width of the event
    (docs/http-api.md), so that a missing, repeated or swapped event is detected.

    Attributes:
        turn: Id of the turn, once known.
        session: Id of its session, once known.
        error: The first defect; empty if there is none.
        refusal: Status and `retry_after` of a turn that had to wait, and then was refused.
    """

    __slots__ = ("_api", "_finished", "_position", "_text", "error", "refusal", "session", "turn")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._text: list[str] = []
        self._position = 0
        self._finished = False
        self.turn = ""
        self.session = ""
        self.error = ""
        self.refusal: tuple[int, float | None] | None = None

    @property
    def begun(self) -> bool:
        """Whether any text has arrived."""
        return bool(self._text)

    @property
    def finished(self) -> bool:
        """Whether its end has arrived."""
        return self._finished

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._text)

    def take(self, event: ServerSentEvent) -> None:
        """Process the next event.

        Raises:
            ValueError: The event cannot be decoded.
            RecursionError: The event is nested too deeply to be decoded.
        """
        if self.error:
            return
        if self._finished:
            self.error = "an event after the end"
        elif self._api == "chat":
            self._take_chunk(event)
        else:
            self._take_event(event)

    @property
    def within_text(self) -> bool:
        """Whether `take_text` may be called: it has text, no error, no end, and numbered events."""
        return self._api == "turns" and bool(self._text) and not (self.error or self._finished)

    def take_text(self, position: int, text: bytes) -> bool:
        """Process a piece of text whose event is otherwise known to be valid.

        Args:
            position: Its id.
            text: UTF-8.

        Returns:
            Whether it was valid; if not, nothing has changed, and `take` says why.
        """
        try:
            piece = text.decode()
        except UnicodeDecodeError:
            return False
        if position != self._position + len(piece):
            return False
        self._position = position
        self._text.append(piece)
        return True

    def close(self, expected: str | None) -> None:
        """Process the end of the stream; `expected`: the expected text, if it is known."""
        if self.error:
            return
        if not self._finished:
            self.error = "the stream ended before the turn was completed"
        elif not any(each.strip() for each in self._text):
            self.error = "an answer without text"
        elif expected is not None and self.text != expected:
            self.error = "the answer does not match the question"

    def _take_event(self, event: ServerSentEvent) -> None:
        name, width = event.name, 1
        if name == b"text.delta":
            text = _decode_delta(event.data).text
            self._text.append(text)
            width = len(text)
        elif name == b"turn.queued":
            width = 0
        elif name == b"turn.started":
            started = _decode_started(event.data)
            self.turn, self.session = started.turn[:_LONGEST_ID], started.session[:_LONGEST_ID]
        elif name == b"turn.completed":
            completed = _decode_started(event.data)
            ids = completed.turn[:_LONGEST_ID], completed.session[:_LONGEST_ID]
            if ids != (self.turn, self.session):
                self.error = "the completed turn is not the one that was started"
            self._finished = True
        elif name in (b"turn.failed", b"error"):
            self._fail(event.data)
            if name == b"turn.failed" and not self._text:
                problem = _decode_failed(event.data).problem
                if problem.code in _REFUSALS:
                    self.refusal = problem.status, problem.retry_after
            return
        self._position += width
        if event.id and not self.error and event.id != b"%d" % self._position:
            shown = event.id[:40].decode("utf-8", "replace")
            self.error = f"event {shown} where {self._position} was expected"

    def _take_chunk(self, event: ServerSentEvent) -> None:
        data = event.data.strip()
        if data == b"[DONE]":
            self._finished = True
            return
        if event.name == b"error":
            self._fail(data)
            return
        if not data.startswith(b"{"):
            return  # a ping, or an event without data
        chunk = _decode_chunk(data)
        if chunk.error or "error" in (chunk.type, chunk.object):
            self._fail(data)
            return
        if not self.turn:
            self.turn = (chunk.id or "")[:_LONGEST_ID]
        for choice in chunk.choices or ():
            reason = choice.finish_reason
            if choice.error or (reason and reason.lower() not in _FINISHED):
                self._fail(data)
                return
            content = choice.delta.content if choice.delta is not None else None
            if isinstance(content, list):
                content = "".join(
                    each.text or "" for each in content if each.type in (None, "text")
                )
            if content:
                self._text.append(content)

    def _fail(self, data: bytes) -> None:
        self.error = f"turn failed: {data[:_SHOWN_BYTES].decode('utf-8', 'replace')}"
