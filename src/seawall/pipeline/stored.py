"""The events of a turn that ran in another process, or is over: from the store."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from seawall.errors import DeadlineExceeded, SessionNotFound, TurnNotFound, problem_from
from seawall.events import Event
from seawall.pipeline.identifiers import session_of, time_of
from seawall.pipeline.replay import events_after, replay
from seawall.storage.port import (
    BackgroundJob,
    Begin,
    JobFailure,
    SessionStore,
    turn_of_lease_owner,
)
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = ["stored_events"]

_NEWEST_TURNS = 8
_PAGE = 100
_MAX_PAGES = 50
_MAX_CLOCK_SKEW_SECONDS = 300.0
_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 1.0


async def stored_events(
    store: SessionStore,
    owner: Principal,
    turn: str,
    *,
    after: int,
    seconds: float,
    call_seconds: float,
) -> AsyncGenerator[tuple[int, Event], None]:
    """What goes beyond position `after`; a turn that still runs is waited for, up to `seconds`.

    One in the background is waited for as long as it is promised, wherever it is done in the end.
    look_seconds: the longest that one look at the store may take.

    Raises:
        TurnNotFound: there is no such turn of this owner, or it ended without being durable.
        DeadlineExceeded: a look at the store took too long.
        Problem: it was promised, and has failed for good.
    """
    session = session_of(turn)
    if session is None or len(turn) > 256:
        raise TurnNotFound
    key = SessionKey(owner.tenant, owner.subject, session)
    latest = asyncio.get_running_loop().time() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while (record := await _find_or_wait(store, key, turn, call_seconds)) is None:
        if asyncio.get_running_loop().time() + pause > latest:
            if not await _is_pending_job(store, key, turn, call_seconds):
                raise TurnNotFound
            latest += seconds
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LAST_PAUSE_SECONDS)
    for position, event in events_after(replay(record, session), after, record.attempt):
        yield position, event


async def _find_or_wait(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> TurnRecord | None:
    try:
        return await _find(store, key, turn, call_seconds)
    except TurnNotFound:
        if await _is_pending_job(store, key, turn, call_seconds):
            return None
        return await _find(store, key, turn, call_seconds)  # done in this very moment, or never


async def _is_pending_job(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> bool:
    """Whether it is to be done yet.

    Raises:
        Problem: why it was not.
    """
    async with _call_limit(call_seconds):
        known = await store.find_job(Principal(key.tenant, key.subject), turn)
    if isinstance(known, JobFailure):
        raise problem_from(known.problem)
    return isinstance(known, BackgroundJob)


async def _find(
    store: SessionStore, key: SessionKey, turn: str, call_seconds: float
) -> TurnRecord | None:
    """The turn; None while it runs.

    Raises:
        TurnNotFound: it neither runs nor is it there.
    """
    async with _call_limit(call_seconds):
        looking = Begin(key=key, turn="", turns=_NEWEST_TURNS, until=None)
        snapshot = await store.begin(looking)
    for record in snapshot.turns:
        if record.id == turn:
            return record
    if snapshot.busy is not None and turn_of_lease_owner(snapshot.busy.turn) == turn:
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
