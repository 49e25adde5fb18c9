"""A turn's events from a slow store."""

import asyncio
from pathlib import Path

import pytest

from seawall.errors import DeadlineExceeded, TurnNotFound
from seawall.pipeline.replay import stored_events
from seawall.requests import new_request
from seawall.storage.port import Begin, Snapshot
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal


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
