"""Leases of turns in progress: renewed, and a turn that lost its lease fails."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from seawall.errors import SessionConflict
from seawall.pipeline.leases import TurnLease
from seawall.storage.sqlite.store import SqliteStore
from tests.storage.calls import KEY, begin, commit

LEASE = 0.6


@asynccontextmanager
async def _leased(path: Path) -> AsyncGenerator[tuple[SqliteStore, TurnLease], None]:
    """A session that a turn named "first" has leased."""
    store = SqliteStore(path / "sessions.db")
    await store.open()
    try:
        await store.commit(commit(KEY, 0))
        first = begin(KEY, "first", until=time.time() + LEASE)
        assert (await store.begin(first)).session_lease is None
        yield store, TurnLease(store, first, LEASE)
    finally:
        await store.close()


async def test_a_turn_that_lost_its_lease_fails_while_in_progress(tmp_path: Path) -> None:
    async with _leased(tmp_path) as (store, lease):
        await store.release(lease.begin)
        second = begin(KEY, "second", until=time.time() + 60)
        assert (await store.begin(second)).session_lease is None
        async with asyncio.timeout(20):
            with pytest.raises(SessionConflict):
                async with lease.keep_renewed():
                    await asyncio.sleep(15)
                    raise AssertionError("the lost lease was not noticed")
        # The second turn's lease was not released by the first.
        assert (await store.begin(begin(KEY, "third"))).session_lease is not None


async def test_a_turn_longer_than_its_lease_keeps_the_session(tmp_path: Path) -> None:
    async with _leased(tmp_path) as (store, lease):
        async with lease.keep_renewed():
            await asyncio.sleep(3 * LEASE)
            found = await store.begin(begin(KEY, "second", until=time.time() + 60))
            assert found.session_lease is not None
            assert found.session_lease.owner == "first"
        await lease.release()
        second = begin(KEY, "second", until=time.time() + 60)
        assert (await store.begin(second)).session_lease is None
