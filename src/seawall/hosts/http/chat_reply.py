"""A chat completion in OpenAI's format, whole or in chunks, from the events of a turn."""

import time
from typing import TYPE_CHECKING, Any

from seawall.events import (
    AgentSelected,
    Event,
    TextDelta,
    TurnCompleted,
    TurnPaused,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.exchange import encode
from seawall.hosts.http.turns import Pause, instructions_header
from seawall.turn import TurnRequest, Usage

if TYPE_CHECKING:
    from seawall.hosts.http.client_calls import ReturnedResults
    from seawall.orchestrator import Orchestrator

__all__ = ["ChatReply"]


class ChatReply:
    """Builds the parts of one completion.

    Attributes:
        called: The calls of the client's tools with which it ends.
        finish_reason: Why it ends.
        headers_known: Whether the headers can be sent before the first event.
        opened: Whether the beginning of the message was sent.
    """

    __slots__ = (
        "_before",
        "_created",
        "_head",
        "_id",
        "_instructed",
        "_model",
        "_named",
        "_orchestrator",
        "_pause",
        "_session",
        "_text",
        "_usage",
        "_with_person",
        "called",
        "finish_reason",
        "headers_known",
        "opened",
    )

    def __init__(self, orchestrator: "Orchestrator", *, instructed: bool) -> None:
        self._orchestrator = orchestrator
        self._instructed = instructed
        self._named: list[tuple[bytes, bytes]] = []  # what becomes of them
        self._id = ""
        self._created = int(time.time())
        self._model = ""
        self._session = ""
        self._usage = self._before = Usage()
        self._head = b""
        self._pause = Pause()
        self._text = False
        self._with_person = False
        self.called: list[dict[str, Any]] = []
        self.finish_reason = "stop"
        self.headers_known = False
        self.opened = False

    def begin(self, request: TurnRequest) -> None:
        """Before a new turn."""
        self._id, self._session = request.id, request.session
        # The session to name may be that of an earlier request.
        self.headers_known = not self._instructed and request.idempotency_key is None

    def resume(self, returned: "ReturnedResults") -> None:
        """Before a turn goes on."""
        # Clients take completions of one id for the same message.
        self._id = f"{returned.turn}.{returned.attempt}"
        self._session, self._before = returned.session, returned.before
        self._select(returned.agent)
        self._instruct(returned.agent)
        self.headers_known = True

    def _select(self, agent: str) -> None:
        self._model, self._head = agent, b""

    def _instruct(self, agent: str) -> None:
        if self._instructed:
            self._named = [instructions_header(self._orchestrator, agent)]

    def take(self, event: Event) -> None:
        """Record what later parts repeat."""
        if type(event) is TextDelta:
            self._text = True
        elif type(event) is TurnStarted:
            self._id, self._session = event.turn, event.session
        elif type(event) is AgentSelected:
            self._select(event.agent)
            if event.reason != "handoff":
                self._instruct(event.agent)
        elif type(event) is UsageReported:
            self._usage = event.usage
        elif type(event) is TurnCompleted:
            self._model = event.agent
            self._with_person = event.finish_reason == "person"
            self.finish_reason = "stop" if self._with_person else event.finish_reason or "stop"
        else:
            self._pause.take(event)
            if type(event) is TurnPaused:
                self._paused(event)

    def _paused(self, event: TurnPaused) -> None:
        self._usage = event.usage
        calls = [each for each in self._pause.waits() if each.kind == "client"]
        if not calls:
            return
        from seawall.hosts.http.client_calls import public_call_id  # noqa: PLC0415 - only here

        self.finish_reason = "tool_calls"
        self.called = [
            {
                "id": public_call_id(each.effect),
                "type": "function",
                "function": {"name": each.name, "arguments": each.arguments},
            }
            for each in calls
        ]

    def explanation(self) -> str:
        """Of a turn that has paused without a text: what it waits for, and where that is decided.

        Empty for any other.
        """
        return "" if self._text or self.called else self._pause.explanation()

    def extension(self) -> dict[str, object]:
        """The member `seawall` of a turn that has paused, or while a person has the conversation.

        Empty for any other.
        """
        paused = self._pause.paused
        if paused is None:
            return {"seawall": {"status": "person", "turn": self._id}} if self._with_person else {}
        approvals = self._pause.approvals()
        return {"seawall": {"status": "paused", "turn": paused.turn, "approvals": approvals}}

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that name the session, and what became of the client's instructions."""
        return [(b"seawall-session", self._session.encode()), *self._named]

    def body(self, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
        """A completion, or a chunk of one."""
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        """A frame of the stream."""
        return b"data: %b\n\n" % encode(self.body("chat.completion.chunk", choices) | more)

    def end(self, *, with_usage: bool) -> bytes:
        """The last frames of the stream.

        Args:
            with_usage: Whether one of them has the usage.
        """
        parts = []
        if explanation := self.explanation():
            parts.append(self.delta({"content": explanation}))
        for index, call in enumerate(self.called):
            function = call["function"]
            begun = call | {"index": index, "function": function | {"arguments": ""}}
            rest = {"index": index, "function": {"arguments": function["arguments"]}}
            parts += [self.delta({"tool_calls": [each]}) for each in (begun, rest)]
        last = {"index": 0, "delta": {}, "finish_reason": self.finish_reason}
        parts.append(self.chunk([last], **self.extension()))
        if with_usage:
            parts.append(self.chunk([], usage=self.usage()))
        return b"".join([*parts, b"data: [DONE]\n\n"])

    def delta(self, delta: dict[str, object]) -> bytes:
        """A frame with a piece of the message; their common beginning is encoded once."""
        if not self._head:
            encoded = encode(self.body("chat.completion.chunk", []))
            self._head = b"data: %b" % encoded.removesuffix(b"]}")
        return b'%b{"index":0,"delta":%b,"finish_reason":null}]}\n\n' % (self._head, encode(delta))

    def usage(self) -> dict[str, int]:
        """Token counts in OpenAI's format, of this answer: not of what the turn did before."""
        usage, before = self._usage, self._before
        read = max(0, usage.prompt_tokens - before.prompt_tokens)
        written = max(0, usage.completion_tokens - before.completion_tokens)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
