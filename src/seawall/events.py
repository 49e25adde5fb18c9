"""Events of a turn, in order.

Every event is a flat JSON object whose `type` is the tag below, so that a stream can be read
without this package. A turn ends with exactly one of `turn.completed` and `turn.failed`.
"""

from typing import Any

from msgspec import Struct

from seawall.turn import Cost, Usage

__all__ = [
    "AgentSelected",
    "Event",
    "IntentDetected",
    "ReasoningDelta",
    "TextDelta",
    "ToolCalled",
    "ToolReturned",
    "TurnCompleted",
    "TurnFailed",
    "TurnStarted",
    "UsageReported",
]


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


class ToolCalled(Struct, frozen=True, tag="tool.called", tag_field="type"):
    """A tool call starts; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class ToolReturned(Struct, frozen=True, tag="tool.returned", tag_field="type"):
    """A tool call has ended; `failed` if the content is an error for the model to read."""

    id: str
    name: str
    content: str
    failed: bool


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
        finish_reason: Why the answer ended: "stop", "length" (a token limit cut it off) or
            "content_filter".
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
    """The turn failed without effect on the session; `problem` is an RFC 9457 object."""

    turn: str
    problem: dict[str, Any]


Event = (
    TurnStarted
    | IntentDetected
    | AgentSelected
    | TextDelta
    | ReasoningDelta
    | ToolCalled
    | ToolReturned
    | UsageReported
    | TurnCompleted
    | TurnFailed
)
