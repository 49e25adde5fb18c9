"""The AI SDK's UI message stream, version 1, from the events of a turn.

Format: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol. The message's id is the turn's.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec

from seawall.errors import Problem, TurnCancelled
from seawall.events import (
    AgentSelected,
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
from seawall.hosts.http.conversations import wait_id
from seawall.hosts.http.effects import requested_approval
from seawall.hosts.http.exchange import encode
from seawall.turn import cited_title

__all__ = ["DONE", "UiStream"]

DONE = b"data: [DONE]\n\n"

_REASONS = {"stop": "stop", "length": "length", "content_filter": "content-filter"}


class UiStream:
    """Translates the events of one stream; each method returns frames.

    Attributes:
        rejected: Ids of calls that the client of this stream has rejected.
        returned: Ids of calls whose results it has returned.
    """

    __slots__ = (
        "_by_client",
        "_head",
        "_kind",
        "_metadata",
        "_number",
        "_returned",
        "_step",
        "rejected",
        "returned",
    )

    def __init__(
        self, rejected: frozenset[str] = frozenset(), returned: frozenset[str] = frozenset()
    ) -> None:
        self.rejected = rejected
        self.returned = returned
        self._by_client: set[str] = set()  # calls in this stream
        self._metadata: dict[str, Any] = {}
        self._kind = ""  # of the open block: "text", "reasoning" or none
        self._number = 0  # of the open block, or the last one
        self._head = b""  # what its pieces have in common
        self._step = False
        self._returned = False  # a result came: what follows is of another step

    def start(self, turn: str, session: str) -> bytes:
        """The beginning of a message, or of its continuation."""
        self._metadata = {"turn": turn, "session": session}
        return _frame(type="start", messageId=turn, messageMetadata=dict(self._metadata))

    def wait(self) -> None:
        """Nothing has happened: the turn waits for further decisions."""
        self._metadata["status"] = "paused"

    def take(self, event: Event) -> bytes:
        """The frames of an event; empty for one that has none."""
        if type(event) is TextDelta:
            return self._piece("text", event.text)
        if type(event) is ReasoningDelta:
            return self._piece("reasoning", event.text)
        handler = self._handlers.get(type(event))
        return handler(self, event) if handler is not None else b""

    def end(self) -> bytes:
        """The end of a turn that is completed, or has paused."""
        frames = self._close()
        if self._step:
            frames += _frame(type="finish-step")
        reason = self._metadata.pop("finish_reason", "")
        paused = self._metadata.get("status") == "paused"
        shown = "tool-calls" if paused else _REASONS.get(reason or "stop", "other")
        finish = _frame(type="finish", finishReason=shown, messageMetadata=self._metadata)
        return frames + finish + DONE

    def fail(self, problem: Problem) -> bytes:
        """The end of a turn that has failed."""
        if isinstance(problem, TurnCancelled):
            return self._close() + _frame(type="abort", reason=problem.detail) + DONE
        detail = _frame(type="data-problem", data=problem.as_dict(), transient=True)
        return self._close() + detail + _frame(type="error", errorText=problem.detail) + DONE

    def _piece(self, kind: str, text: str) -> bytes:
        frames = b""
        if self._kind != kind:
            frames = self._close() + self._in_step()
            self._number += 1
            self._kind = kind
            frames += _frame(type=f"{kind}-start", id=str(self._number))
            self._head = b'data: {"type":"%b-delta","id":"%d","delta":' % (
                kind.encode(),
                self._number,
            )
        return b"%b%b%b}\n\n" % (frames, self._head, encode(text))

    def _close(self) -> bytes:
        """The end of the open block."""
        if not self._kind:
            return b""
        frame = _frame(type=f"{self._kind}-end", id=str(self._number))
        self._kind = ""
        return frame

    def _in_step(self) -> bytes:
        """The beginning of a step, unless one has begun."""
        if self._step and not self._returned:
            return b""
        ended = _frame(type="finish-step") if self._step else b""
        self._step, self._returned = True, False
        return ended + _frame(type="start-step")

    def _started(self, event: TurnStarted) -> bytes:
        return self.start(event.turn, event.session)

    def _queued(self, event: TurnQueued) -> bytes:
        return _frame(type="data-queued", data=_data(event), transient=True)

    def _selected(self, event: AgentSelected) -> bytes:
        self._metadata["agent"] = event.agent
        return _frame(type="message-metadata", messageMetadata={"agent": event.agent})

    def _called(self, event: ToolCalled) -> bytes:
        call: dict[str, Any] = {"toolCallId": event.id, "toolName": event.name, "dynamic": True}
        if event.by_client:
            self._by_client.add(event.id)
        else:
            call["providerExecuted"] = True
        before = self._close() + self._in_step()
        try:
            msgspec.json.decode(event.arguments)
        except (msgspec.DecodeError, RecursionError):
            text = "The arguments are not JSON."
            return before + _frame(
                type="tool-input-error", input=event.arguments, errorText=text, **call
            )
        given = msgspec.Raw(event.arguments.encode())
        return before + _frame(type="tool-input-available", input=given, **call)

    def _returned_result(self, event: ToolReturned) -> bytes:
        frames = self._close()
        self._returned = True
        if event.id in self.rejected:
            return frames + _frame(type="tool-output-denied", toolCallId=event.id)
        if event.id in self.returned:
            return frames  # the client has it
        result: dict[str, Any] = {"toolCallId": event.id, "dynamic": True}
        if event.id not in self._by_client:
            result["providerExecuted"] = True
        if event.failed:
            return frames + _frame(type="tool-output-error", errorText=event.content, **result)
        frames += _frame(type="tool-output-available", output=event.content, **result)
        return frames + b"".join(_sources(event))

    def _requested(self, event: ApprovalRequested) -> bytes:
        frames = self._close()
        if event.kind == "client":
            return frames  # the call says so
        if event.kind == "approval" and event.role is None:
            wait = wait_id(event.turn, event.id)
            return frames + _frame(
                type="tool-approval-request", approvalId=wait, toolCallId=event.id
            )
        if event.kind in ("approval", "input"):
            shown = requested_approval(event)
        else:
            shown = {"call": event.id, "kind": event.kind, "expires_at": event.expires_at}
        return frames + _frame(type="data-wait", id=event.id, data=shown)

    def _paused(self, event: TurnPaused) -> bytes:
        self._metadata |= {"status": "paused", "version": event.version}
        return b""

    def _resumed(self, _: TurnResumed) -> bytes:
        self._metadata.pop("status", None)
        return b""

    def _used(self, event: UsageReported) -> bytes:
        self._metadata["usage"] = event.usage
        if event.cost is not None:
            self._metadata["cost"] = event.cost
        return b""

    def _completed(self, event: TurnCompleted) -> bytes:
        self._metadata |= {
            "status": "person" if event.finish_reason == "person" else "completed",
            "version": event.version,
            "agent": event.agent,
            "replayed": event.replayed,
            "finish_reason": event.finish_reason,
        }
        return b""

    _handlers: ClassVar[dict[type, Callable[["UiStream", Any], bytes]]] = {
        TurnStarted: _started,
        TurnQueued: _queued,
        AgentSelected: _selected,
        ToolCalled: _called,
        ToolReturned: _returned_result,
        ApprovalRequested: _requested,
        TurnPaused: _paused,
        TurnResumed: _resumed,
        UsageReported: _used,
        TurnCompleted: _completed,
    }


def _sources(event: ToolReturned) -> Iterator[bytes]:
    """The frames that cite a result's sources: those with an address, and documents."""
    for number, source in enumerate(event.sources, 1):
        named = {"sourceId": f"{event.id}-{number}", "title": cited_title(source)}
        if source.url:
            yield _frame(type="source-url", url=source.url, **named)
        else:
            media_type = source.media_type or "text/plain"
            named |= {"filename": source.path} if source.path else {}
            yield _frame(type="source-document", mediaType=media_type, **named)


def _data(event: TurnQueued) -> dict[str, object]:
    return {
        "turn": event.turn,
        "waits_for": event.waits_for,
        "position": event.position,
        "seconds": event.seconds,
    }


def _frame(**part: object) -> bytes:
    return b"data: %b\n\n" % encode(part)
