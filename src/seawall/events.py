"""Events of a turn, in order.

Every event is a flat JSON object whose `type` is the tag below, so that a stream can be read
without this package. A turn ends with exactly one of `turn.completed` and `turn.failed`.
"""

from typing import Any

from msgspec import Struct

from seawall.turn import Cost, Question, Source, Usage

__all__ = [
    "AgentSelected",
    "ApprovalRequested",
    "Event",
    "IntentDetected",
    "ReasoningDelta",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "TurnCompleted",
    "TurnFailed",
    "TurnPaused",
    "TurnQueued",
    "TurnResumed",
    "TurnStarted",
    "UsageReported",
]


class TurnQueued(Struct, frozen=True, tag="turn.queued", tag_field="type"):
    """The turn waits for others; sent when that takes about a second or longer, and as it changes.

    It is not stored, has no position of its own, and may come before `turn.started`.

    Attributes:
        turn: Id of the turn.
        waits_for: "slot", of this server, or "quota", of the model's account at its provider.
        position: In the queue, from 1.
        seconds: The expected wait.
    """

    turn: str
    waits_for: str
    position: int
    seconds: float


class TurnStarted(Struct, frozen=True, tag="turn.started", tag_field="type"):
    """The caller is authenticated and the session loaded; `new` if this turn creates it."""

    turn: str
    session: str
    new: bool


class IntentDetected(Struct, frozen=True, tag="intent.detected", tag_field="type"):
    """The intent of the message was detected.

    Attributes:
        intent: None for no intent.
        confidence: 0 to 1.
        by: The step of the cascade that decided: "rules", "classifier", "embeddings", "model" or
            "none".
    """

    intent: str | None
    confidence: float
    by: str


class AgentSelected(
    Struct, frozen=True, tag="agent.selected", tag_field="type", omit_defaults=True
):
    """An agent was selected to answer.

    Attributes:
        agent: Its name.
        reason: "requested", "intent", "sticky", "default" or "handoff".
        previous: The agent that handed over; None for other reasons.
    """

    agent: str
    reason: str
    previous: str | None = None


class TextDelta(Struct, frozen=True, tag="text.delta", tag_field="type"):
    """The next piece of the answer."""

    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning.delta", tag_field="type"):
    """The next piece of the model's reasoning; only for agents with `reasoning`.

    It is not part of the answer, not stored, and has no position of its own.
    """

    text: str


class ToolCalled(Struct, frozen=True, tag="tool.called", tag_field="type", omit_defaults=True):
    """A tool call starts.

    Attributes:
        id: Id of the call.
        name: Name of the tool.
        arguments: JSON text.
        by_client: Whether the client runs it; the turn then pauses for its result.
    """

    id: str
    name: str
    arguments: str
    by_client: bool = False


class ToolReturned(Struct, frozen=True, tag="tool.returned", tag_field="type", omit_defaults=True):
    """A tool call has ended; `failed` if the content is an error for the model to read.

    Attributes:
        id: Of the call.
        name: Of the tool.
        content: Its result, as the model gets it.
        failed: Whether that is an error.
        sources: What the parts of the result were taken from, in their order, to show people.
    """

    id: str
    name: str
    content: str
    failed: bool
    sources: tuple[Source, ...] = ()


class ApprovalRequested(
    Struct, frozen=True, tag="approval.requested", tag_field="type", omit_defaults=True
):
    """A tool call waits for a decision; `POST /v1/turns/{turn}/approvals/{id}` takes it.

    A call that the client runs waits for its result; `POST /v1/turns/{turn}/tools/{id}` takes it.

    Attributes:
        turn: Id of the turn.
        id: Id of the tool call.
        name: Name of the tool.
        arguments: JSON text, redacted as the tool declares.
        expires_at: Unix seconds; afterwards the call is rejected.
        role: The role that decides; None for the turn's own subject.
        kind: "approval"; "input" if a server of tools asks the user something; "person" if the
            conversation is handed over to a person; "client" if the client runs the tool.
        question: Of "input".
        effect: Of "client", the id of the call that is unique in the tenant.
    """

    turn: str
    id: str
    name: str
    arguments: str
    expires_at: float
    role: str | None = None
    kind: str = "approval"
    question: Question | None = None
    effect: str = ""


class TurnPaused(Struct, frozen=True, tag="turn.paused", tag_field="type", omit_defaults=True):
    """The turn waits for decisions, without connection or memory.

    Attributes:
        turn: Id of the turn.
        session: Id of the session.
        version: The session's version.
        waits: Ids of the tool calls that wait.
        usage: Tokens of the turn so far.
    """

    turn: str
    session: str
    version: int
    waits: tuple[str, ...]
    usage: Usage = Usage()


class TurnResumed(Struct, frozen=True, tag="turn.resumed", tag_field="type"):
    """The turn continues from its journal, after a pause or an interruption.

    Attributes:
        turn: Id of the turn.
        attempt: Number of the attempt, from 2.
        after: Position of the last event before that is still valid: what came later, of an attempt
            that was interrupted, is void.
    """

    turn: str
    attempt: int
    after: int


class UsageReported(Struct, frozen=True, tag="usage", tag_field="type", omit_defaults=True):
    """Tokens used by the turn, and their cost if models have prices."""

    usage: Usage
    cost: Cost | None = None


class TurnCompleted(
    Struct, frozen=True, tag="turn.completed", tag_field="type", omit_defaults=True
):
    """The turn is committed.

    Attributes:
        turn: Id of the turn.
        session: Id of the session.
        version: The session's version, equal to the number of its turns.
        agent: The agent that answered.
        replayed: Whether the answer is that of an earlier request with the same idempotency key.
        timings: Milliseconds by stage.
        cached: Whether the answer was produced for another turn.
        finish_reason: Why the answer ended: "stop", "length" (a token limit cut it off),
            "content_filter", or "person" (a person has the conversation; no model was called).
    """

    turn: str
    session: str
    version: int
    agent: str
    replayed: bool
    timings: dict[str, float]
    cached: bool = False
    finish_reason: str = ""


class TurnFailed(Struct, frozen=True, tag="turn.failed", tag_field="type"):
    """The turn failed; `problem` is an RFC 9457 object.

    Its member `effects` names what was done nevertheless: then the session has the turn, as
    interrupted. Without it the session is unchanged.
    """

    turn: str
    problem: dict[str, Any]


Event = (
    TurnQueued
    | TurnStarted
    | IntentDetected
    | AgentSelected
    | TextDelta
    | ReasoningDelta
    | ToolCalled
    | ToolReturned
    | ApprovalRequested
    | TurnPaused
    | TurnResumed
    | UsageReported
    | TurnCompleted
    | TurnFailed
)
