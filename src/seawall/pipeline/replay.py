"""Events of a turn from what is stored of it: the same events, at the same positions.

An event's position is the sum of the widths of all events up to it: a text is as wide as it has
characters, reasoning and waiting, which are not stored, have no width, and any other event has
width 1. So the
position does not depend on the pieces in which a text was streamed, and a broken stream can be
resumed anywhere, by any process.

A turn without a journal that is run again after an interruption starts over: its positions are
beyond those of the attempt before, so a client that knows only that one receives all events, from
`turn.started` on. A turn with a journal continues: only what follows its journal is beyond, from
`turn.resumed` on.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager

from msgspec import UNSET

from seawall.agents import HAND_OFF
from seawall.errors import DeadlineExceeded, SessionNotFound, TurnNotFound, problem_from
from seawall.events import (
    AgentSelected,
    ApprovalRequested,
    Event,
    IntentDetected,
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
from seawall.requests import session_of, time_of
from seawall.storage.port import (
    BackgroundJob,
    Begin,
    JobFailure,
    SessionStore,
    turn_of_lease_owner,
)
from seawall.turn import (
    ApprovalRequest,
    AssistantMessage,
    Cost,
    Principal,
    Resumption,
    SessionKey,
    ToolMessage,
    TurnRecord,
    Usage,
)

__all__ = [
    "advance",
    "attempt_offset",
    "call_limit",
    "events_after",
    "find_older",
    "paused",
    "remaining",
    "replay",
    "reported_outcomes",
    "stored_events",
    "width",
]

_NOT_OF_WIDTH_1 = (TextDelta, ReasoningDelta, TurnQueued, TurnResumed)
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
    return 0 if type(event) is ReasoningDelta or type(event) is TurnQueued else 1


def advance(position: int, event: Event) -> int:
    """The position after an event, from that before it."""
    if type(event) not in _NOT_OF_WIDTH_1:
        return position + 1
    if type(event) is TurnResumed:
        return attempt_offset(event.attempt) + 1
    return position + width(event)


def replay(turn: TurnRecord, session: str) -> Iterator[Event]:
    """All events of a stored turn, in order; without the timings.

    Of a turn that is not completed, up to the last result that is stored in order; if it is paused,
    up to `turn.paused`.

    Args:
        turn: The turn.
        session: Its session's id.
    """
    position = attempt_offset(turn.attempt)
    for event in _replay(turn, session):
        if type(event) is TurnResumed:
            event = TurnResumed(event.turn, event.attempt, position)  # noqa: PLW2901
        position = advance(position, event)
        yield event


def _replay(turn: TurnRecord, session: str) -> Iterator[Event]:
    """As `replay`; the positions in `turn.resumed` are not set."""
    yield TurnStarted(turn.id, session, turn.number == 1)
    yield IntentDetected(turn.intent, turn.confidence, turn.by)
    agent = turn.first_agent or turn.agent
    yield AgentSelected(agent, turn.reason)
    completed = turn.status == "completed"
    messages = turn.messages if completed else turn.messages + reported_outcomes(turn)
    resumptions = list(turn.journal.resumptions) if turn.journal is not UNSET else []
    effects = turn.journal.effects if turn.journal is not UNSET else ()
    shown = {each.call: each.asked or each.shown for each in effects if each.shown}
    theirs = {e.call for e in effects if e.request is not None and e.request.kind == "client"}
    for index in range(len(messages)):
        message = messages[index]
        if not isinstance(message, AssistantMessage):
            continue
        if message.text:
            yield TextDelta(message.text)
        for call in message.tool_calls:
            arguments = shown.get(call.id, call.arguments)
            yield ToolCalled(call.id, call.name, arguments, call.id in theirs)
        results = messages[index + 1 : index + 1 + len(message.tool_calls)]
        for count, result in enumerate((None, *results), index + 1):
            if isinstance(result, ToolMessage):
                yield ToolReturned(
                    result.call_id, result.name, result.content, result.failed, result.sources
                )
            yield from _resumed(turn, session, resumptions, count)
        successor = _successor(results) if len(results) == len(message.tool_calls) else None
        if successor is not None and (completed or index + 1 + len(results) < len(messages)):
            yield AgentSelected(successor, "handoff", agent)
            agent = successor
    if turn.status == "paused" and turn.journal is not UNSET:
        waiting = tuple(each.call for each in turn.journal.effects if each.status == "waiting")
        yield from paused(turn, session, waiting)
    if not completed:
        return
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


def paused(
    turn: TurnRecord,
    session: str,
    waited: tuple[str, ...],
    questions: tuple[int, ...] = (),
    usage: Usage | None = None,
) -> Iterator[Event]:
    """The events of a pause: what was requested, and that the turn waits.

    Args:
        turn: The turn.
        session: Its session's id.
        waited: Ids of the calls that waited.
        questions: As in `Resumption`; empty for what the calls waited for last.
        usage: Tokens of the turn until then; None for all.
    """
    effects = turn.journal.effects if turn.journal is not UNSET else ()
    numbers = dict(zip(waited, questions, strict=False))
    for effect in effects:
        if effect.call in waited and effect.request is not None:
            wanted = numbers.get(effect.call, _number(effect.request))
            found = [each for each in effect.requests if _number(each) == wanted]
            request = found[0] if found else effect.request
            yield ApprovalRequested(
                turn.id,
                effect.call,
                effect.tool,
                effect.shown or effect.arguments,
                request.expires_at,
                request.role,
                request.kind,
                request.question,
                effect.id if request.kind == "client" else "",
            )
    yield TurnPaused(turn.id, session, turn.number, waited, turn.usage if usage is None else usage)


def _resumed(
    turn: TurnRecord, session: str, resumptions: list[Resumption], count: int
) -> Iterator[Event]:
    """Pauses and resumptions after so many messages."""
    while resumptions and resumptions[0].messages == count:
        each = resumptions.pop(0)
        if each.waited:
            yield from paused(turn, session, each.waited, each.questions, each.usage)
        yield TurnResumed(turn.id, each.attempt, 0)


def _number(request: ApprovalRequest) -> int:
    """The number of what is asked; 0 if it is no question."""
    return request.question.number if request.question is not None else 0


def reported_outcomes(turn: TurnRecord) -> tuple[ToolMessage, ...]:
    """Of a turn that is not completed, the results of its last step up to the first gap."""
    message = turn.messages[-1]
    if turn.journal is UNSET or not isinstance(message, AssistantMessage):
        return ()
    stored = {each.call_id: each for each in turn.journal.outcomes}
    known: list[ToolMessage] = []
    for call in message.tool_calls:
        if call.id not in stored:
            break
        known.append(stored[call.id])
    return tuple(known)


def events_after(
    events: Iterable[Event], after: int, attempt: int = 1
) -> Iterator[tuple[int, Event]]:
    """The events beyond position `after`, with positions; of a text, only the remaining part."""
    position = attempt_offset(attempt)
    for event in events:
        before, position = position, advance(position, event)
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
    follow: Callable[[], AsyncGenerator[tuple[int, Event], None] | None] = lambda: None,
) -> AsyncGenerator[tuple[int, Event], None]:
    """The events of a turn of another process, or that is done, with positions.

    A turn in progress is waited for; a background turn until it is done or has failed. One that is
    about to go on, as it was decided about, is followed if it goes on in this process.

    Args:
        store: The session store.
        owner: Whose turn it must be.
        turn: Its id.
        after: Only events beyond this position.
        seconds: How long a turn in progress is waited for.
        call_seconds: The longest that one call of the store may take.
        follow: Its events as they happen; None while it is not in progress in this process.

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
        if (live := follow()) is not None:
            async with aclosing(live):
                async for position, event in live:
                    yield position, event
            return
        pause = min(pause * 1.5, _MAX_PAUSE_SECONDS)
    for position, event in events_after(replay(record, session), after, record.attempt):
        yield position, event
    if record.status == "interrupted" and record.journal is not UNSET:
        raise problem_from(record.journal.problem)


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
    async with call_limit(call_seconds):
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
    async with call_limit(call_seconds):
        read = Begin(key=key, turn="", turns=_NEWEST_TURNS, until=None)
        snapshot = await store.begin(read)
    lease = snapshot.session_lease
    running = lease is not None and turn_of_lease_owner(lease.owner) == turn
    for record in snapshot.turns:
        if record.id == turn:
            if record.status == "paused" and not running:
                if await _is_decided(store, key, turn, call_seconds):
                    raise TurnNotFound  # its job is awake, and about to continue it
                return record
            if record.status not in ("open", "paused"):
                return record
            if lease is None:  # its process is gone, and no other has continued it yet
                raise TurnNotFound
            return None
    if running:
        return None
    if snapshot.session is None:
        raise TurnNotFound
    return await find_older(store, key, turn, call_seconds)


async def _is_decided(store: SessionStore, key: SessionKey, turn: str, call_seconds: float) -> bool:
    """Whether all that a paused turn waited for is decided."""
    async with call_limit(call_seconds):
        page = await store.waits(key.tenant, turn=turn, limit=_PAGE)
    return bool(page.waits) and all(each.decision is not None for each in page.waits)


async def find_older(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> TurnRecord:
    """The turn, however old in its session.

    Raises:
        TurnNotFound: it is not stored.
    """
    earliest = time_of(turn) - _MAX_CLOCK_SKEW_SECONDS
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        async with call_limit(call_seconds):
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
async def call_limit(seconds: float) -> AsyncGenerator[None, None]:
    """The time limit of a call of the session store.

    Raises:
        DeadlineExceeded: it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The session store did not answer within {seconds:g} s.", field="session"
        ) from error
