"""A turn's events from a store that is slow, and from one where the turn is about to go on."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from msgspec import structs

from seawall.errors import DeadlineExceeded, TurnNotFound
from seawall.events import Event, TextDelta, TurnStarted
from seawall.pipeline.live import LiveTurn
from seawall.pipeline.replay import stored_events
from seawall.requests import new_request
from seawall.storage.port import BackgroundJob, Begin, Snapshot
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal, SessionKey


class SlowStore(SqliteStore):
    """Answers, but not in time."""

    async def begin(self, begin: Begin) -> Snapshot:
        await asyncio.sleep(0.5)
        return await super().begin(begin)


@pytest.mark.parametrize(
    ("call_seconds", "expected"), [(0.05, DeadlineExceeded), (5.0, TurnNotFound)]
)
async def test_a_slow_store_is_deadline_exceeded(
    tmp_path: Path, call_seconds: float, expected: type[Exception]
) -> None:
    """Regression: it was a defect, and so a 500."""
    store = SlowStore(tmp_path / "sessions.db")
    await store.open()
    try:
        events = stored_events(
            store,
            Principal("acme", "ada"),
            new_request("hello").id,
            after=0,
            seconds=5.0,
            call_seconds=call_seconds,
        )
        with pytest.raises(expected):
            await anext(events)
    finally:
        await store.close()


class WaitingStore(SqliteStore):
    """Has a background turn that no process runs yet."""

    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob:
        key = SessionKey(owner.tenant, owner.subject, "s1")
        request = structs.replace(new_request("hello"), id=turn)
        return BackgroundJob(key=key, request=request, accepted_at=0.0, ends_at=1e12)


async def test_a_turn_that_goes_on_here_is_followed_from_then_on(tmp_path: Path) -> None:
    """Regression: asked for just before it went on, its events came when it was durable."""
    store = WaitingStore(tmp_path / "sessions.db")
    await store.open()
    live = [None, None, LiveTurn(request := new_request("hello"))]
    last = live[-1]
    assert last is not None
    await last.emit(TurnStarted(request.id, "s1", new=True), TextDelta("Hel"))

    def follow() -> AsyncGenerator[tuple[int, Event], None] | None:
        found = live.pop(0) if len(live) > 1 else live[0]
        return None if found is None else found.follow(2)

    try:
        events = stored_events(
            store,
            Principal("acme", "ada"),
            request.id,
            after=2,
            seconds=5.0,
            call_seconds=5.0,
            follow=follow,
        )
        assert await anext(events) == (4, TextDelta("el"))
        await last.emit(TextDelta("lo"))
        assert await anext(events) == (6, TextDelta("lo"))
        await events.aclose()
    finally:
        await store.close()
