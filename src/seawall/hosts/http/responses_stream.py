"""Responses in OpenAI's format, as objects and as streams, from the events of a turn.

Format: https://platform.openai.com/docs/api-reference/responses-streaming and
https://www.openresponses.org. Calls of the agent's own tools are items of the type `mcp_call`,
which no client runs, once they have ended; calls of the client's tools are `function_call` items,
and a call that the client may approve is an `mcp_approval_request`.

**Sequence numbers** do not depend on the pieces in which a text was streamed: a piece counts as
many as it has characters, any other event 1. So a broken stream of a background response can be
resumed anywhere, on any server. What follows an interruption has numbers beyond all before, since
it may be another text. Reasoning is not stored: it is shown by streams that are not resumed.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

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
    UsageReported,
)
from seawall.hosts.http.client_calls import public_call_id
from seawall.hosts.http.exchange import encode
from seawall.hosts.http.responses_body import SERVER_LABEL
from seawall.hosts.http.responses_ids import ResponseKey, approval_id
from seawall.hosts.http.turns import Pause
from seawall.pipeline.replay import attempt_offset
from seawall.turn import Usage

__all__ = ["DONE", "SILENT", "ResponseStream"]

DONE = b"data: [DONE]\n\n"
SILENT = 1 << 62
"""Sequence number behind which there are no events: of a response that is not streamed."""

_QUEUED, _IN_PROGRESS = 1, 2  # numbers of these events; that of response.created is 0
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseStream:
    """Builds one response; each method that takes an event returns its frames.

    Attributes:
        key: What the response is of.
        status: Of the response so far.
    """

    __slots__ = (
        "_after",
        "_approves",
        "_before",
        "_begun",
        "_calls",
        "_completed_at",
        "_done",
        "_eventful",
        "_head",
        "_number",
        "_open",
        "_own",
        "_pause",
        "_problem",
        "_reasoning",
        "_response",
        "_result",
        "_sequence",
        "_text",
        "_usage",
        "key",
        "status",
    )

    def __init__(
        self,
        key: ResponseKey,
        base: Mapping[str, Any],
        *,
        own: Collection[str],
        calls: Mapping[str, dict[str, str]] | None = None,
        before: Usage | None = None,
        after: int = -1,
        reasoning: bool = True,
        approves: bool = True,
    ) -> None:
        """Begin a response.

        Args:
            key: What it is of.
            base: What it repeats of the request.
            own: Names of the agents' own tools.
            calls: Of the turn's earlier calls of own tools, by their ids: `arguments`, and the
                `approval_request_id` of those that the client approved.
            before: Tokens of the turn before this response.
            after: Only events with larger sequence numbers have frames.
            reasoning: Whether reasoning is shown.
            approves: Whether the client knows requests for approval.
        """
        self.key = key
        self.status = "in_progress"
        self._response = dict(base)
        self._own = own
        self._calls = dict(calls or {})
        self._before = before or Usage()
        self._after = after
        self._reasoning = reasoning
        self._approves = approves
        self._sequence = 0
        self._begun = ""  # "", "created" or "in_progress"
        self._number = {"msg": 0, "rs": 0, "mcp": 0}
        self._open: dict[str, Any] | None = None  # the message or reasoning that is being written
        self._text: list[str] = []  # its pieces
        self._head = b""  # what the events of its pieces have in common
        self._usage: Usage | None = None
        self._result: dict[str, Any] = {}
        self._pause = Pause()
        self._problem: Problem | None = None
        self._completed_at: int | None = None
        self._done = False
        self._eventful = _IN_PROGRESS + 1  # the sequence number behind the beginning
        self._response["output"] = []

    @property
    def begun(self) -> bool:
        """Whether it has begun, or waits in a queue."""
        return bool(self._begun)

    @property
    def ended(self) -> bool:
        """Whether the turn is completed, or waits."""
        return self.paused or self._done

    @property
    def paused(self) -> bool:
        """Whether the turn waits."""
        return self._pause.paused is not None

    def begin(self, key: ResponseKey | None = None, *, first: int = 0) -> bytes:
        """The beginning of the response, once.

        Args:
            key: If it is of another turn than the one that was requested.
            first: Sequence number of the first event.
        """
        if self._begun == "in_progress":
            return b""
        self.key = key or self.key
        if not self._begun:
            self._sequence = first
        frames = b""
        if not self._begun:
            frames = self._frame("response.created", response=self.response())
        self._begun = "in_progress"
        self._sequence = first + _IN_PROGRESS
        self._eventful = first + _IN_PROGRESS + 1
        return frames + self._frame("response.in_progress", response=self.response())

    def queue(self, event: TurnQueued) -> bytes:
        """The turn waits for others; its place in the queue is a comment."""
        frames = b""
        if not self._begun:
            self._begun, self.status = "created", "queued"
            frames = self._frame("response.created", response=self.response())
            self._sequence = _QUEUED
            frames += self._frame("response.queued", response=self.response())
            self.status = "in_progress"
        return frames + (b"" if self._after == SILENT else b": turn.queued %b\n\n" % encode(event))

    def take(self, event: Event) -> bytes:
        """The frames of an event; empty for one that has none, and behind a pause."""
        if self.paused:
            return b""
        if type(event) is TextDelta:
            return self._piece("msg", event.text)
        if type(event) is ReasoningDelta:
            return self._piece("rs", event.text) if self._reasoning else b""
        self._pause.take(event)
        handler = self._handlers.get(type(event))
        return handler(self, event) if handler is not None else b""

    def end(self) -> bytes:
        """The end of a turn that is completed, or has paused."""
        frames = self._close() + self._requested_calls() + self._explain()
        frames += self._requested_approvals()
        self.status = "incomplete" if self._response["incomplete_details"] else "completed"
        if self._response["completed_at"] is None and self.status == "completed":
            self._response["completed_at"] = self._completed_at
        return frames + self._frame(f"response.{self.status}", response=self.response()) + DONE

    def fail(self, problem: Problem) -> bytes:
        """The end of a turn that has failed, or was cancelled; never left out."""
        frames = self._close("incomplete")
        self.fault(problem)
        self._sequence = max(self._sequence, self._after + 1)
        return frames + self._frame("response.failed", response=self.response()) + DONE

    def fault(self, problem: Problem) -> None:
        """The turn has failed, or was cancelled."""
        self._problem = problem
        self.status = "cancelled" if isinstance(problem, TurnCancelled) else "failed"

    def response(self) -> dict[str, Any]:
        """The response so far."""
        problem = self._problem
        error = None
        if problem is not None and self.status == "failed":
            error = {"code": problem.code, "message": problem.detail}
        seawall: dict[str, Any] = {"session": self.key.session, "turn": self.key.turn}
        if self.paused:
            seawall |= {"status": "paused", "approvals": self._pause.approvals()}
        if problem is not None and problem.effects:
            seawall["effects"] = problem.effects
        return self._response | {
            "id": self.key.id,
            "status": self.status,
            "error": error,
            "usage": self._used(),
            "conversation": {"id": self.key.session} if self._response["store"] else None,
            "output": list(self._response["output"]),
            "seawall": seawall | self._result,
        }

    def complete_at(self, seconds: float) -> None:
        """When the response was completed, in Unix seconds."""
        self._completed_at = int(seconds)

    def instruct(self, outcome: str, instructions: str | None) -> None:
        """What became of the client's instructions: "ignored" or "appended"."""
        self._result["client_instructions"] = outcome
        self._response["instructions"] = instructions if outcome == "appended" else None

    def _frame(self, kind: str, **members: object) -> bytes:
        number = self._sequence
        self._sequence += 1
        if number <= self._after:
            return b""
        event = {"type": kind, "sequence_number": number, **members}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(event))

    def _piece(self, kind: str, text: str) -> bytes:
        """A piece of a message's text, or of reasoning."""
        frames = b""
        if self._open is None or self._open["id"][: len(kind) + 1] != f"{kind}_":
            frames = self._close() + self._open_item(kind)
        if not text:
            return frames
        self._text.append(text)
        first = self._sequence
        self._sequence += len(text)
        last = self._sequence - 1
        if last <= self._after:
            return frames
        if first <= self._after:
            text = text[self._after + 1 - first :]
        return b'%b%b"sequence_number":%d,"delta":%b}\n\n' % (
            frames,
            self._head,
            last,
            encode(text),
        )

    def _open_item(self, kind: str) -> bytes:
        item: dict[str, Any] = {"id": self._new_id(kind), "status": "in_progress"}
        place = {"item_id": item["id"], "output_index": len(self._response["output"])}
        if kind == "msg":
            item |= {"type": "message", "role": "assistant", "content": []}
            part = "response.content_part.added"
            place["content_index"] = 0
            delta = "response.output_text.delta"
        else:
            item |= {"type": "reasoning", "summary": []}
            part = "response.reasoning_summary_part.added"
            place["summary_index"] = 0
            delta = "response.reasoning_summary_text.delta"
        self._open, self._text = item, []
        logprobs: dict[str, Any] = {"logprobs": []} if kind == "msg" else {}
        common = encode({"type": delta, **place, **logprobs}).removesuffix(b"}")
        self._head = b"event: %b\ndata: %b," % (delta.encode(), common)
        added = self._frame(
            "response.output_item.added", output_index=place["output_index"], item=dict(item)
        )
        self._response["output"].append(item)
        return added + self._frame(part, **place, part=_part(kind, ""))

    def _close(self, status: str = "completed") -> bytes:
        """The end of what is being written."""
        item, self._open = self._open, None
        if item is None:
            return b""
        kind = "msg" if item["type"] == "message" else "rs"
        text, self._text = "".join(self._text), []
        item["status"] = status
        item["content" if kind == "msg" else "summary"] = [_part(kind, text)]
        index = len(self._response["output"]) - 1
        place = {"item_id": item["id"], "output_index": index}
        if kind == "msg":
            place["content_index"] = 0
            frames = self._frame("response.output_text.done", **place, text=text, logprobs=[])
            frames += self._frame("response.content_part.done", **place, part=_part(kind, text))
        else:
            place["summary_index"] = 0
            frames = self._frame("response.reasoning_summary_text.done", **place, text=text)
            done = "response.reasoning_summary_part.done"
            frames += self._frame(done, **place, part=_part(kind, text))
        return frames + self._frame("response.output_item.done", output_index=index, item=item)

    def _new_id(self, kind: str) -> str:
        self._number[kind] += 1
        return f"{kind}_{self.key.suffix}-{self._number[kind]}"

    def _whole(
        self, item: dict[str, Any], begun: dict[str, Any], *between: tuple[str, dict[str, Any]]
    ) -> bytes:
        """An item that is added and done at once.

        Args:
            item: As it is when it is done.
            begun: What is different when it is added.
            between: Events between; their types and members.
        """
        index = len(self._response["output"])
        place = {"item_id": item["id"], "output_index": index}
        frames = self._frame("response.output_item.added", output_index=index, item=item | begun)
        for kind, members in between:
            frames += self._frame(kind, **place, **members)
        self._response["output"].append(item)
        return frames + self._frame("response.output_item.done", output_index=index, item=item)

    def _selected(self, event: AgentSelected) -> bytes:
        self._response["model"] = event.agent
        return b""

    def _called(self, event: ToolCalled) -> bytes:
        frames = self._close()
        if event.name in self._own:
            self._calls[event.id] = {"arguments": event.arguments}
        return frames

    def _returned(self, event: ToolReturned) -> bytes:
        frames = self._close()
        call = self._calls.pop(event.id, None)
        if call is None:
            return frames
        arguments = call["arguments"]
        outcome, error = "completed", None
        if event.failed:
            said = [{"type": "text", "text": event.content}]
            outcome, error = "failed", {"type": "mcp_tool_execution_error", "content": said}
        item = {
            "type": "mcp_call",
            "id": self._new_id("mcp"),
            "server_label": SERVER_LABEL,
            "name": event.name,
            "approval_request_id": None,
            **call,
            "output": None if event.failed else event.content,
            "error": error,
            "status": outcome,
        }
        return frames + self._whole(
            item,
            {"arguments": "", "output": None, "error": None, "status": "in_progress"},
            ("response.mcp_call.in_progress", {}),
            ("response.mcp_call_arguments.delta", {"delta": arguments}),
            ("response.mcp_call_arguments.done", {"arguments": arguments}),
            (f"response.mcp_call.{outcome}", {}),
        )

    def _paused(self, event: TurnPaused) -> bytes:
        self._usage = event.usage
        return b""

    def _resumed(self, event: TurnResumed) -> bytes:
        if self._sequence > self._eventful:
            self._sequence = max(self._sequence, attempt_offset(event.attempt))
        return b""

    def _wanted(self, event: ApprovalRequested) -> bytes:
        self._calls.pop(event.id, None)  # it has an item of its own
        return b""

    def _requested_calls(self) -> bytes:
        """The items of the calls that the client runs."""
        frames = b""
        for each in self._pause.waits():
            if each.kind != "client":
                continue
            call, arguments = public_call_id(each.effect), each.arguments
            item = {
                "type": "function_call",
                "id": f"fc_{call.removeprefix('call_')}",
                "call_id": call,
                "name": each.name,
                "arguments": arguments,
                "status": "completed",
            }
            done = {"arguments": arguments, "name": each.name}
            frames += self._whole(
                item,
                {"arguments": "", "status": "in_progress"},
                ("response.function_call_arguments.delta", {"delta": arguments}),
                ("response.function_call_arguments.done", done),
            )
        return frames

    def _requested_approvals(self) -> bytes:
        """The items of the calls that the client may approve."""
        frames = b""
        for each in self._pause.waits():
            if self._approves and each.kind == "approval" and each.role is None:
                item = {
                    "type": "mcp_approval_request",
                    "id": approval_id(each.turn, each.id),
                    "server_label": SERVER_LABEL,
                    "name": each.name,
                    "arguments": each.arguments,
                }
                frames += self._whole(item, {})
        return frames

    def _explain(self) -> bytes:
        """A sentence that says what the turn waits for, if the response says nothing else."""
        if any(each["type"] in ("message", "function_call") for each in self._response["output"]):
            return b""
        explanation = self._pause.explanation()
        return self._piece("msg", explanation) + self._close() if explanation else b""

    def _reported(self, event: UsageReported) -> bytes:
        self._usage = event.usage
        if event.cost is not None:
            self._result["cost"] = event.cost
        return b""

    def _completed(self, event: TurnCompleted) -> bytes:
        self._done = True
        self._response["model"] = event.agent
        self._result |= {"version": event.version, "replayed": event.replayed}
        if event.finish_reason == "person":
            self._result["status"] = "person"
        reason = _INCOMPLETE.get(event.finish_reason)
        self._response["incomplete_details"] = {"reason": reason} if reason else None
        return b""

    def _used(self) -> dict[str, Any] | None:
        if self._usage is None:
            return None
        used, before = self._usage, self._before
        read = max(0, used.prompt_tokens - before.prompt_tokens)
        written = max(0, used.completion_tokens - before.completion_tokens)
        cached = max(0, used.cached_prompt_tokens - before.cached_prompt_tokens)
        stored = max(0, used.cache_write_tokens - before.cache_write_tokens)
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": stored},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        }

    _handlers: ClassVar[dict[type, Callable[["ResponseStream", Any], bytes]]] = {
        AgentSelected: _selected,
        ToolCalled: _called,
        ToolReturned: _returned,
        ApprovalRequested: _wanted,
        TurnPaused: _paused,
        TurnResumed: _resumed,
        UsageReported: _reported,
        TurnCompleted: _completed,
    }


def _part(kind: str, text: str) -> dict[str, Any]:
    """The only part of a message, or of reasoning."""
    if kind == "msg":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "summary_text", "text": text}
