"""Holding on to a session while a turn runs: the lease is renewed, and who lost it is told."""

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
async def _held(path: Path) -> AsyncGenerator[tuple[SqliteStore, TurnLease], None]:
    """A session that a turn named "first" holds."""
    store = SqliteStore(path / "sessions.db")
    await store.open()
    try:
        await store.commit(commit(KEY, 0))
        first = begin(KEY, "first", until=time.time() + LEASE)
        assert (await store.begin(first)).session_lease is None
        yield store, TurnLease(store, first, LEASE)
    finally:
        await store.close()


async def test_who_lost_the_session_is_told_while_it_runs(tmp_path: Path) -> None:
    async with _held(tmp_path) as (store, holding):
        await store.release(holding.begin)
        second = begin(KEY, "second", until=time.time() + 60)
        assert (await store.begin(second)).session_lease is None
        async with asyncio.timeout(20):
            with pytest.raises(SessionConflict):
                async with holding.keep_renewed():
                    await asyncio.sleep(15)
                    raise AssertionError("nobody said so")
        # What the second holds was not let go of in the first's name.
        assert (await store.begin(begin(KEY, "third"))).session_lease is not None


async def test_who_takes_longer_than_a_lease_still_has_the_session(tmp_path: Path) -> None:
    async with _held(tmp_path) as (store, holding):
        async with holding.keep_renewed():
            await asyncio.sleep(3 * LEASE)
            found = await store.begin(begin(KEY, "second", until=time.time() + 60))
            assert found.session_lease is not None
            assert found.session_lease.owner == "first"
        await holding.release()
        second = begin(KEY, "second", until=time.time() + 60)
        assert (await store.begin(second)).session_lease is None
