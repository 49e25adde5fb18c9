"""The events of a turn again, from what is stored of it: the same, at the same positions.

An event's position is the sum of the widths of all events up to it: a text is as wide as it has
characters, reasoning, which is not stored, has no width, and anything else has width 1. So the
position does not depend on the pieces in which a text happened to be streamed, and a stream that
broke off can go on anywhere, from any process.

A turn that is done again, after an interruption, begins anew: its positions lie beyond those of
the attempt before, and whoever knows only that one is told everything, from `turn.started` on.
"""

from collections.abc import Iterable, Iterator

from seawall.agents.definition import HAND_OFF
from seawall.events import (
    AgentSelected,
    Event,
    IntentDetected,
    ReasoningDelta,
    TextDelta,
    ToolCalled,
    ToolReturned,
    TurnCompleted,
    TurnStarted,
    UsageReported,
)
from seawall.turn import AssistantMessage, Cost, ToolMessage, TurnRecord

__all__ = ["attempt_offset", "events_after", "remaining", "replay", "width"]

_ATTEMPT_WIDTH = 1_000_000_000  # more than any turn is wide


def attempt_offset(attempt: int) -> int:
    """The position before the first event of an attempt at a turn."""
    return (attempt - 1) * _ATTEMPT_WIDTH


def width(event: Event) -> int:
    """How far an event moves the position on."""
    if type(event) is TextDelta:
        return len(event.text)
    return 0 if type(event) is ReasoningDelta else 1


def replay(turn: TurnRecord, session: str) -> Iterator[Event]:
    """All events of a committed turn, in order. Only the timings are not told again."""
    yield TurnStarted(turn.id, session, turn.number == 1)
    yield IntentDetected(turn.intent, turn.confidence, turn.by)
    agent = turn.first_agent or turn.agent
    yield AgentSelected(agent, turn.reason)
    messages = turn.messages[1:]
    for index, message in enumerate(messages):
        if not isinstance(message, AssistantMessage):
            continue
        if message.text:
            yield TextDelta(message.text)
        for call in message.tool_calls:
            yield ToolCalled(call.id, call.name, call.arguments)
        results = messages[index + 1 : index + 1 + len(message.tool_calls)]
        for result in results:
            if isinstance(result, ToolMessage):
                yield ToolReturned(result.call_id, result.name, result.content, result.failed)
        successor = _successor(results)
        if successor is not None:
            yield AgentSelected(successor, "handoff", agent)
            agent = successor
    yield UsageReported(turn.usage, turn.cost if isinstance(turn.cost, Cost) else None)
    yield TurnCompleted(
        turn=turn.id,
        session=session,
        version=turn.number,
        agent=turn.agent,
        replayed=True,
        timings={},
        finish_reason=turn.finish_reason,
    )


def events_after(
    events: Iterable[Event], after: int, attempt: int = 1
) -> Iterator[tuple[int, Event]]:
    """What goes beyond position `after`, with positions; of a text, only the rest."""
    position = attempt_offset(attempt)
    for event in events:
        before, position = position, position + width(event)
        if position > after:
            yield position, remaining(event, after - before)


def remaining(event: Event, known: int) -> Event:
    """An event of which the first `known` positions are known already."""
    return TextDelta(event.text[known:]) if type(event) is TextDelta and known > 0 else event


def _successor(results: tuple[object, ...]) -> str | None:
    """To whom a step's tools handed the conversation over: the first that did."""
    for result in results:
        if isinstance(result, ToolMessage) and result.name == HAND_OFF and not result.failed:
            return result.content
    return None
