"""Clocks that are set: leases that were written before count as over, and nothing is purged."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from seawall.pipeline.identifiers import new_request
from seawall.sessions.clock_trust import SETTLING_SECONDS, ClockTrust
from seawall.sessions.port import Pending, SessionStore
from seawall.sessions.sqlite import SqliteStore
from seawall.turn import SessionKey
from tests.sessions.calls import KEY, NOW, Clock, begin, commit
from tests.sessions.test_contract import Play, play

__all__ = ["play"]

_OTHER = SessionKey("acme", "ada", "s2")
_HOUR = 3_600.0
_DAY = 86_400.0


@pytest.mark.parametrize("back", [_HOUR, 40 * _DAY])
def test_a_dead_holder_keeps_nothing_after_the_clock_was_set_back(play: Play, back: float) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        await store.commit(commit(KEY, 0))
        await store.begin(begin(KEY, "dead", idempotency_key="k"))
        clock.now = NOW + 5
        assert (await store.begin(begin(KEY, "early"))).busy is not None
        clock.now = NOW - back
        until = clock.now + 10
        found = await store.begin(begin(KEY, "next", idempotency_key="k", until=until))
        assert (found.running, found.busy) == (None, None)
        assert found.session is not None
        other = await store.begin(begin(KEY, "other", until=until))
        assert other.busy is not None
        assert other.busy.turn == "next"
        await store.commit(commit(KEY, 1, by="next", idempotency_key="k", fingerprint="f"))
        looked = await store.begin(begin(KEY, "look", until=None, idempotency_key="k"))
        assert looked.replay is not None

    play(scenario)


def test_a_name_that_was_being_opened_is_free_after_the_clock_was_set_back(play: Play) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        await store.begin(begin(KEY, "dead", opens=True, idempotency_key="k"))
        clock.now = NOW - _HOUR
        until = clock.now + 10
        found = await store.begin(begin(KEY, "next", opens=True, idempotency_key="k", until=until))
        assert (found.running, found.busy) == (None, None)
        await store.commit(commit(KEY, 0, by="next", idempotency_key="k", fingerprint="f"))

    play(scenario)


def test_a_turn_without_a_lease_commits_after_the_clock_was_set_back(play: Play) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        await store.commit(commit(KEY, 0))
        await store.begin(begin(KEY, "dead", idempotency_key="k"))
        clock.now = NOW - _HOUR
        await store.commit(commit(KEY, 1, by="next", idempotency_key="k", fingerprint="f"))

    play(scenario)


def test_a_turn_in_the_background_is_taken_over_after_the_clock_was_set_back(play: Play) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        await store.commit(commit(KEY, 0))
        request = new_request("hello", session=KEY.session, background=True)
        promise = Pending(key=KEY, request=request, accepted_at=NOW, ends_at=NOW + _DAY)
        await store.begin(begin(KEY, request.id, pending=promise))
        assert await store.orphans(limit=5) == ()
        clock.now = NOW - _HOUR
        assert [each.request.id for each in await store.orphans(limit=5)] == [request.id]
        claimed = await store.claim(promise, until=clock.now + 10)
        assert claimed is not None
        assert await store.orphans(limit=5) == ()
        assert await store.claim(claimed, until=clock.now + 10) is None
        await store.commit(commit(KEY, 1, by=request.id, attempt=claimed.attempt))

    play(scenario)


def test_a_lease_of_a_server_whose_clock_is_a_little_ahead_is_respected(play: Play) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        await store.commit(commit(KEY, 0))
        await store.begin(begin(KEY, "ahead", until=NOW + 10 + 30))
        clock.now = NOW + 35
        assert (await store.begin(begin(KEY, "next", until=NOW + 45))).busy is not None

    play(scenario)


class Clocks:
    """A wall clock, and one that is never set; time passes on both."""

    def __init__(self) -> None:
        self.wall = NOW
        self.steady = 1_000.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def _sessions(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM sessions").fetchone()[0])


async def _until(done: Callable[[], bool], seconds: float = 5.0) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        if done():
            return True
        await asyncio.sleep(0.02)
    return done()


def _store(path: Path, clocks: Clocks) -> SqliteStore:
    return SqliteStore(
        path, clock=lambda: clocks.wall, steady=lambda: clocks.steady, idle_seconds=0.02
    )


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumps_ahead_purges_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, restarted: bool
) -> None:
    path = tmp_path / "s.db"
    clocks = Clocks()

    async def scenario() -> None:
        store = _store(path, clocks)
        await store.open()
        await store.commit(commit(KEY, 0))
        await asyncio.sleep(0.2)  # it has seen the time
        if restarted:
            await store.close()
        clocks.wall += 40 * _DAY
        if restarted:
            store = _store(path, clocks)
            await store.open()
            # A turn that is taken by the wrong clock does not make it believed.
            await store.commit(commit(_OTHER, 0, expires_at=clocks.wall + 9 * _DAY))
        count = 2 if restarted else 1
        assert not await _until(lambda: _sessions(path) < count, 0.5)
        assert (await store.load(KEY, turns=1)).session is None  # it is over by that clock
        clocks.wall -= 40 * _DAY
        assert (await store.load(KEY, turns=1)).session is not None
        # Time that goes on evenly for a day is believed; the expired session goes then.
        for _ in range(50):
            clocks.pass_by(_HOUR)
            await asyncio.sleep(0.03)
        assert await _until(lambda: _sessions(path) < count)
        await store.close()

    with caplog.at_level(logging.ERROR, "seawall.sessions"):
        asyncio.run(scenario())
    said = [each for each in caplog.records if "nothing is purged" in each.msg]
    assert 1 <= len(said) <= 2  # once there, once back


def test_what_has_expired_is_purged_while_the_clock_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    clocks = Clocks()

    async def scenario() -> None:
        store = _store(path, clocks)
        await store.open()
        await store.commit(commit(KEY, 0))
        clocks.pass_by(2_000)
        assert await _until(lambda: _sessions(path) == 0)
        await store.close()

    asyncio.run(scenario())


def test_when_a_clock_is_believed() -> None:
    trust = ClockTrust(NOW, 0.0, None)
    assert trust.check(NOW + 10 * _DAY + 300, 10 * _DAY)  # slewing is no jump
    assert not trust.check(NOW + 10 * _DAY + 300 + _HOUR, 10 * _DAY)
    assert not trust.check(NOW + 10 * _DAY + 2 * _HOUR, 10 * _DAY + _HOUR)
    assert trust.check(NOW + 12 * _DAY + 2 * _HOUR, 10 * _DAY + SETTLING_SECONDS + _HOUR) is False
    assert not ClockTrust(NOW, 0.0, NOW - 40 * _DAY).check(NOW, 1.0)
    assert ClockTrust(NOW, 0.0, NOW - _HOUR).check(NOW, 0.0)
    assert ClockTrust(NOW, 0.0, NOW + 40 * _DAY).check(NOW, 0.0)  # behind, it purges less
