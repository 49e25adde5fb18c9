"""Events of a turn from what is stored of it: the same events, at the same positions.

An event's position is the sum of the widths of all events up to it: a text is as wide as it has
characters, reasoning, which is not stored, has no width, and any other event has width 1. So the
position does not depend on the pieces in which a text was streamed, and a broken stream can be
resumed anywhere, by any process.

A turn that is run again after an interruption starts over: its positions are beyond those of the
attempt before, so a client that knows only that one receives all events, from `turn.started` on.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager

from seawall.agents.definition import HAND_OFF
from seawall.errors import DeadlineExceeded, SessionNotFound, TurnNotFound, problem_from
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
from seawall.pipeline.identifiers import session_of, time_of
from seawall.storage.port import (
    BackgroundJob,
    Begin,
    JobFailure,
    SessionStore,
    turn_of_lease_owner,
)
from seawall.turn import AssistantMessage, Cost, Principal, SessionKey, ToolMessage, TurnRecord

__all__ = ["attempt_offset", "events_after", "remaining", "replay", "stored_events", "width"]

_ATTEMPT_WIDTH = 1_000_000_000  # more than any turn is wide
_NEWEST_TURNS = 8
_PAGE = 100
_MAX_PAGES = 50
_MAX_ID_CHARACTERS = 256
_MAX_CLOCK_SKEW_SECONDS = 300.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0


def attempt_offset(attempt: int) -> int:
    """The position before the first event of an attempt at a turn."""
    return (attempt - 1) * _ATTEMPT_WIDTH


def width(event: Event) -> int:
    """By how much an event advances the position."""
    if type(event) is TextDelta:
        return len(event.text)
    return 0 if type(event) is ReasoningDelta else 1


def replay(turn: TurnRecord, session: str) -> Iterator[Event]:
    """All events of a committed turn, in order; without the timings.

    Args:
        turn: The turn.
        session: Its session's id.
    """
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
    """The events beyond position `after`, with positions; of a text, only the remaining part."""
    position = attempt_offset(attempt)
    for event in events:
        before, position = position, position + width(event)
        if position > after:
            yield position, remaining(event, after - before)


def remaining(event: Event, known: int) -> Event:
    """The part of an event beyond its first `known` positions."""
    return TextDelta(event.text[known:]) if type(event) is TextDelta and known > 0 else event


def _successor(results: tuple[object, ...]) -> str | None:
    """The agent to which a step's tools handed over: the first that did."""
    for result in results:
        if isinstance(result, ToolMessage) and result.name == HAND_OFF and not result.failed:
            return result.content
    return None


async def stored_events(
    store: SessionStore,
    owner: Principal,
    turn: str,
    *,
    after: int,
    seconds: float,
    call_seconds: float,
) -> AsyncGenerator[tuple[int, Event], None]:
    """The events of a turn of another process, or that is done, with positions.

    A turn in progress is waited for; a background turn until it is done or has failed.

    Args:
        store: The session store.
        owner: Whose turn it must be.
        turn: Its id.
        after: Only events beyond this position.
        seconds: How long a turn in progress is waited for.
        call_seconds: The longest that one call of the store may take.

    Raises:
        TurnNotFound: there is no such turn of this owner, or it ended without a commit.
        DeadlineExceeded: a call of the store took too long.
        Problem: a background turn has failed permanently.
    """
    session = session_of(turn)
    if session is None or len(turn) > _MAX_ID_CHARACTERS:
        raise TurnNotFound
    key = SessionKey(owner.tenant, owner.subject, session)
    latest = asyncio.get_running_loop().time() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while (record := await _find_or_wait(store, key, turn, call_seconds)) is None:
        if asyncio.get_running_loop().time() + pause > latest:
            if not await _is_unfinished_job(store, key, turn, call_seconds):
                raise TurnNotFound
            latest += seconds
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _MAX_PAUSE_SECONDS)
    for position, event in events_after(replay(record, session), after, record.attempt):
        yield position, event


async def _find_or_wait(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> TurnRecord | None:
    try:
        return await _find(store, key, turn, call_seconds)
    except TurnNotFound:
        if await _is_unfinished_job(store, key, turn, call_seconds):
            return None
        return await _find(store, key, turn, call_seconds)  # just committed, or never


async def _is_unfinished_job(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> bool:
    """Whether it is a background turn that is not done.

    Raises:
        Problem: why it failed.
    """
    async with _call_limit(call_seconds):
        known = await store.find_job(Principal(key.tenant, key.subject), turn)
    if isinstance(known, JobFailure):
        raise problem_from(known.problem)
    return isinstance(known, BackgroundJob)


async def _find(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> TurnRecord | None:
    """The turn; None while it is in progress.

    Raises:
        TurnNotFound: it is neither in progress nor stored.
    """
    async with _call_limit(call_seconds):
        read = Begin(key=key, turn="", turns=_NEWEST_TURNS, until=None)
        snapshot = await store.begin(read)
    for record in snapshot.turns:
        if record.id == turn:
            return record
    lease = snapshot.session_lease
    if lease is not None and turn_of_lease_owner(lease.owner) == turn:
        return None
    if snapshot.session is None:
        raise TurnNotFound
    return await _find_older(store, key, turn, call_seconds)


async def _find_older(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> TurnRecord:
    earliest = time_of(turn) - _MAX_CLOCK_SKEW_SECONDS
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        async with _call_limit(call_seconds):
            try:
                page = await store.turns(key, limit=_PAGE, cursor=cursor)
            except SessionNotFound as error:
                raise TurnNotFound from error
        for record in page.turns:
            if record.id == turn:
                return record
        cursor = page.cursor
        if cursor is None or page.turns[-1].created_at < earliest:
            break
    raise TurnNotFound


@asynccontextmanager
async def _call_limit(seconds: float) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The session store did not answer within {seconds:g} s.", field="session"
        ) from error
