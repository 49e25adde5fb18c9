"""The events of a turn, typed and in order.

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
    """The caller is authenticated and the session loaded.

    Attributes:
        turn: The turn's id.
        session: The session's id.
        new: Whether this turn opens the session.
    """

    turn: str
    session: str
    new: bool


class IntentDetected(Struct, frozen=True, tag="intent.detected", tag_field="type"):
    """What the user wants.

    Attributes:
        intent: None for "none of these".
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
    """An agent answers from here on.

    Attributes:
        agent: Its name.
        reason: "requested", "intent", "sticky", "default" or "handoff".
        previous: The agent that handed over, if one did.
    """

    agent: str
    reason: str
    previous: str | None = None


class TextDelta(Struct, frozen=True, tag="text.delta", tag_field="type"):
    """The next piece of the answer."""

    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning.delta", tag_field="type"):
    """The next piece of the model's reasoning; only for agents with `reasoning`.

    It is not part of the answer: it is not stored, and has no position of its own.
    """

    text: str


class ToolCalled(Struct, frozen=True, tag="tool.called", tag_field="type"):
    """A tool is called.

    Attributes:
        id: Of the call.
        name: The tool's name.
        arguments: JSON text.
    """

    id: str
    name: str
    arguments: str


class ToolReturned(Struct, frozen=True, tag="tool.returned", tag_field="type"):
    """A tool returned.

    Attributes:
        id: Of the call.
        name: The tool's name.
        content: The result as text.
        failed: Whether the content is an error message for the model.
    """

    id: str
    name: str
    content: str
    failed: bool


class UsageReported(Struct, frozen=True, tag="usage", tag_field="type", omit_defaults=True):
    """Tokens used by the turn, and their cost.

    Attributes:
        usage: Of all steps and of intent detection.
        cost: None if models have no prices.
    """

    usage: Usage
    cost: Cost | None = None


class TurnCompleted(
    Struct, frozen=True, tag="turn.completed", tag_field="type", omit_defaults=True
):
    """The turn is committed.

    Attributes:
        turn: The turn's id.
        session: The session's id.
        version: The session's version, equal to the number of its turns.
        agent: The agent that answered last.
        replayed: Whether the answer is the stored one of an earlier request with the same key.
        timings: Milliseconds by stage.
        cached: Whether the answer was produced for another turn.
        finish_reason: Why the answer ended: "stop", "length" (a limit on its tokens) or
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
    """The turn ended without effect on the session.

    Attributes:
        turn: The turn's id.
        problem: An RFC 9457 problem details object.
    """

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
