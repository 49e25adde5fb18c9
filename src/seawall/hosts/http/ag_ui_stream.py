"""AG-UI, version 1.0, from the events of a turn.

Format: https://docs.ag-ui.com/spec/1.0. What a turn waits for are the interrupts of its run.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from seawall.errors import Problem, TurnCancelled
from seawall.events import (
    ApprovalRequested,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnCompleted,
    TurnPaused,
    TurnQueued,
    TurnResumed,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.exchange import encode
from seawall.hosts.http.turns import Pause

__all__ = ["RunStream"]

_REASONING = ".reasoning"  # of the id of a message
_APPROVAL = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean"},
        "reason": {"type": "string"},
        "editedArgs": {"type": "object"},
    },
    "required": ["approved"],
}


class RunStream:
    """Translates the events of one run; each method returns frames.

    Attributes:
        returned: Ids of calls whose results the client of this run has returned.
        begun: Whether the run has begun.
        pause: Whether the turn waits.
    """

    __slots__ = (
        "_block",
        "_head",
        "_number",
        "_result",
        "_run",
        "_turn",
        "_usage",
        "begun",
        "pause",
        "returned",
    )

    def __init__(self, thread: str, run: str, returned: frozenset[str] = frozenset()) -> None:
        self.returned = returned
        self._run = {"threadId": thread, "runId": run}
        self._turn = run  # until it is known
        self._block = ""  # "TEXT", "REASONING" or none
        self._head = b""  # what the pieces of a block have in common
        self._number = 0
        self._result: dict[str, Any] = {"session": thread}
        self._usage: list[dict[str, int]] = []
        self.begun = False
        self.pause = Pause()

    def begin(self, turn: str = "") -> bytes:
        """The beginning of the run, once."""
        if turn:
            self._turn = self._result["turn"] = turn
        if self.begun:
            return b""
        self.begun = True
        return _frame("RUN_STARTED", **self._run, protocolVersion="1.0")

    def take(self, event: Event) -> bytes:
        """The frames of an event; empty for one that has none."""
        if type(event) is TextDelta:
            return self._piece("TEXT", event.text)
        if type(event) is ReasoningDelta:
            return self._piece("REASONING", event.text)
        self.pause.take(event)
        handler = self._handlers.get(type(event))
        return handler(self, event) if handler is not None else b""

    def end(self) -> bytes:
        """The end of a turn that is completed, or has paused.

        Calls that the client runs are no interrupts: they are those without a result.
        """
        waits = [each for each in self.pause.waits() if each.kind != "client"]
        outcome: dict[str, Any] = {"type": "success"}
        if waits:
            outcome = {"type": "interrupt", "interrupts": list(map(_interrupt, waits))}
        usage = {"usage": self._usage} if self._usage else {}
        return self._close() + _frame(
            "RUN_FINISHED", **self._run, outcome=outcome, result=self._result, **usage
        )

    def fail(self, problem: Problem) -> bytes:
        """The end of a turn that has failed."""
        if isinstance(problem, TurnCancelled):
            return self._close() + _frame(
                "RUN_FINISHED", **self._run, outcome={"type": "cancelled"}
            )
        return self._close() + _frame(
            "RUN_ERROR",
            message=problem.detail,
            code=problem.code,
            metadata={"problem": problem.as_dict()},
        )

    def _message(self, suffix: str = "") -> str:
        """The id of the current message of the turn; its calls belong to it as well."""
        return f"{self._turn}.{self._number}{suffix}"

    def _piece(self, block: str, text: str) -> bytes:
        frames = b""
        if self._block != block:
            frames = self._close()
            self._number += 1
            self._block = block
            message = self._message("" if block == "TEXT" else _REASONING)
            if block == "TEXT":
                frames += _frame("TEXT_MESSAGE_START", messageId=message, role="assistant")
            else:
                frames += _frame("REASONING_START", messageId=message)
                frames += _frame("REASONING_MESSAGE_START", messageId=message, role="reasoning")
            self._head = b'data: {"type":"%b_MESSAGE_CONTENT","messageId":%b,"delta":' % (
                block.encode(),
                encode(message),
            )
        return b"%b%b%b}\n\n" % (frames, self._head, encode(text)) if text else frames

    def _close(self) -> bytes:
        """The end of the open block."""
        block, self._block = self._block, ""
        if not block:
            return b""
        if block == "TEXT":
            return _frame("TEXT_MESSAGE_END", messageId=self._message())
        message = self._message(_REASONING)
        frames = _frame("REASONING_MESSAGE_END", messageId=message)
        return frames + _frame("REASONING_END", messageId=message)

    def _started(self, event: TurnStarted) -> bytes:
        return self.begin(event.turn)

    def _queued(self, event: TurnQueued) -> bytes:
        value = {
            "waits_for": event.waits_for,
            "position": event.position,
            "seconds": event.seconds,
        }
        return self.begin() + _frame("CUSTOM", name="seawall:queued", value=value)

    def _called(self, event: ToolCalled) -> bytes:
        call = event.id
        frames = self._close() + _frame(
            "TOOL_CALL_START",
            toolCallId=call,
            toolCallName=event.name,
            parentMessageId=self._message(),
        )
        if event.arguments:
            frames += _frame("TOOL_CALL_ARGS", toolCallId=call, delta=event.arguments)
        return frames + _frame("TOOL_CALL_END", toolCallId=call)

    def _returned(self, event: ToolReturned) -> bytes:
        frames = self._close()
        self._number += 1
        if event.id in self.returned:
            return frames  # the client has it
        notes: dict[str, object] = {"failed": True} if event.failed else {}
        if event.sources:
            notes["sources"] = event.sources
        metadata = {"metadata": {"seawall": notes}} if notes else {}
        return frames + _frame(
            "TOOL_CALL_RESULT",
            messageId=f"{self._message()}.{event.id}",
            toolCallId=event.id,
            content=event.content,
            role="tool",
            **metadata,
        )

    def _resumed(self, event: TurnResumed) -> bytes:
        # The messages of a continuation have other ids than those before it.
        self._number = 0
        self._turn = f"{event.turn}.{event.attempt}"
        return b""

    def _used(self, event: UsageReported) -> bytes:
        usage = event.usage
        self._usage = [
            {
                "inputTokens": usage.prompt_tokens,
                "outputTokens": usage.completion_tokens,
                "totalTokens": usage.prompt_tokens + usage.completion_tokens,
            }
        ]
        if event.cost is not None:
            self._result["cost"] = event.cost
        return b""

    def _paused(self, event: TurnPaused) -> bytes:
        self._result["version"] = event.version
        return b""

    def _completed(self, event: TurnCompleted) -> bytes:
        self._result |= {
            "version": event.version,
            "agent": event.agent,
            "replayed": event.replayed,
            "finish_reason": event.finish_reason or "stop",
        }
        return b""

    _handlers: ClassVar[dict[type, Callable[["RunStream", Any], bytes]]] = {
        TurnStarted: _started,
        TurnQueued: _queued,
        ToolCalled: _called,
        ToolReturned: _returned,
        TurnResumed: _resumed,
        TurnPaused: _paused,
        UsageReported: _used,
        TurnCompleted: _completed,
    }


def _interrupt(event: ApprovalRequested) -> dict[str, object]:
    shown: dict[str, object] = {
        "toolCallId": event.id,
        "expiresAt": datetime.fromtimestamp(event.expires_at, UTC).isoformat(),
    }
    if event.role is None and event.kind == "approval":
        return shown | {
            "id": f"{event.turn}/approval/{event.id}",
            "reason": "tool_call",
            "message": f"{event.name} needs approval.",
            "responseSchema": _APPROVAL,
        }
    question = event.question
    if event.role is None and question is not None:
        asked = {
            "id": f"{event.turn}/input/{question.number}/{event.id}",
            "reason": "input_required",
            "message": question.message,
            "metadata": {"source": question.source, "url": question.url},
        }
        schema = {} if question.schema is None else {"responseSchema": question.schema}
        return shown | asked | schema
    return shown | {
        "id": f"{event.turn}/other/{event.id}",
        "reason": f"seawall:{event.kind}",
        "message": f"{event.name} waits for {event.role or 'another program'}.",
        "metadata": {"role": event.role},
    }


def _frame(kind: str, **members: object) -> bytes:
    return b"data: %b\n\n" % encode({"type": kind, **members})
