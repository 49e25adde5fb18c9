"""What happens in a turn, in order, as typed events.

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
    """The caller is authenticated, the session loaded; `new` when this turn opens it."""

    turn: str
    session: str
    new: bool


class IntentDetected(Struct, frozen=True, tag="intent.detected", tag_field="type"):
    """What the customer wants; `intent` is None for "none of these".

    by: the step of the cascade that answered: "rules", "classifier", "embeddings", "model" or
    "none".
    """

    intent: str | None
    confidence: float
    by: str


class AgentSelected(
    Struct, frozen=True, tag="agent.selected", tag_field="type", omit_defaults=True
):
    """An agent has the conversation.

    reason: "requested", "intent", "sticky", "default" or "handoff" (then `previous` is set).
    """

    agent: str
    reason: str
    previous: str | None = None


class TextDelta(Struct, frozen=True, tag="text.delta", tag_field="type"):
    """The next piece of the answer, in the order of writing."""

    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning.delta", tag_field="type"):
    """The next piece of what the model thinks; only for agents with `reasoning`.

    It is no part of the answer: it is not stored, and has no position of its own.
    """

    text: str


class ToolCalled(Struct, frozen=True, tag="tool.called", tag_field="type"):
    """A tool is being called; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class ToolReturned(Struct, frozen=True, tag="tool.returned", tag_field="type"):
    """A tool answered; `failed` when the content is an error for the model to read."""

    id: str
    name: str
    content: str
    failed: bool


class UsageReported(Struct, frozen=True, tag="usage", tag_field="type", omit_defaults=True):
    """Tokens spent by the turn, and what they cost, where models have prices."""

    usage: Usage
    cost: Cost | None = None


class TurnCompleted(
    Struct, frozen=True, tag="turn.completed", tag_field="type", omit_defaults=True
):
    """The turn is durable.

    version: the session's version, equal to the number of its turns.
    replayed: the answer came from the record of an earlier request with the same key.
    timings: milliseconds by stage. cached: the answer was produced for another turn.
    finish_reason: why the answer ended: "stop", "length" (a bound on its tokens cut it off) or
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
    """The turn ended without effect on the session; `problem` is an RFC 9457 object."""

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
