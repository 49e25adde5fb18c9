"""Clocks that are set: earlier leases count as expired, and nothing is purged."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from email.utils import formatdate
from pathlib import Path

import pytest

from seawall.aws.dynamodb_calls import Item, Operation, Page
from seawall.requests import new_request
from seawall.storage.dynamodb.store import DynamoDBStore
from seawall.storage.port import BackgroundJob, SessionStore
from seawall.storage.sqlite.purge import SETTLING_SECONDS, ClockTrust
from seawall.storage.sqlite.store import SqliteStore
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import SessionKey
from tests.faulty_server import Answer, Request, serving
from tests.storage.calls import KEY, NOW, Clock, begin, commit
from tests.storage.stores import LocalClient, dynamodb_store, new_location

_OTHER = SessionKey("acme", "ada", "s2")
_HOUR = 3_600.0
_DAY = 86_400.0


@pytest.mark.parametrize("back", [_HOUR, 40 * _DAY])
async def test_a_dead_turns_lease_is_expired_after_the_clock_was_set_back(
    store: SessionStore, clock: Clock, back: float
) -> None:
    await store.commit(commit(KEY, 0))
    await store.begin(begin(KEY, "dead", idempotency_key="k"))
    clock.now = NOW + 5
    assert (await store.begin(begin(KEY, "early"))).session_lease is not None
    clock.now = NOW - back
    until = clock.now + 10
    found = await store.begin(begin(KEY, "next", idempotency_key="k", until=until))
    assert (found.key_lease, found.session_lease) == (None, None)
    assert found.session is not None
    other = await store.begin(begin(KEY, "other", until=until))
    assert other.session_lease is not None
    assert other.session_lease.owner == "next"
    await store.commit(commit(KEY, 1, by="next", idempotency_key="k", fingerprint="f"))
    read = await store.begin(begin(KEY, "reader", until=None, idempotency_key="k"))
    assert read.replay is not None


async def test_a_name_leased_for_opening_is_free_after_the_clock_was_set_back(
    store: SessionStore, clock: Clock
) -> None:
    await store.begin(begin(KEY, "dead", opens=True, idempotency_key="k"))
    clock.now = NOW - _HOUR
    until = clock.now + 10
    found = await store.begin(begin(KEY, "next", opens=True, idempotency_key="k", until=until))
    assert (found.key_lease, found.session_lease) == (None, None)
    await store.commit(commit(KEY, 0, by="next", idempotency_key="k", fingerprint="f"))


async def test_a_turn_without_a_lease_commits_after_the_clock_was_set_back(
    store: SessionStore, clock: Clock
) -> None:
    await store.commit(commit(KEY, 0))
    await store.begin(begin(KEY, "dead", idempotency_key="k"))
    clock.now = NOW - _HOUR
    await store.commit(commit(KEY, 1, by="next", idempotency_key="k", fingerprint="f"))


async def test_a_background_turn_is_claimed_after_the_clock_was_set_back(
    store: SessionStore, clock: Clock
) -> None:
    await store.commit(commit(KEY, 0))
    request = new_request("hello", session=KEY.session, background=True)
    background_job = BackgroundJob(key=KEY, request=request, accepted_at=NOW, ends_at=NOW + _DAY)
    await store.begin(begin(KEY, request.id, background_job=background_job))
    assert await store.orphaned_jobs(limit=5) == ()
    clock.now = NOW - _HOUR
    assert [each.request.id for each in await store.orphaned_jobs(limit=5)] == [request.id]
    claimed = await store.claim_job(background_job, until=clock.now + 10)
    assert claimed is not None
    assert await store.orphaned_jobs(limit=5) == ()
    assert await store.claim_job(claimed, until=clock.now + 10) is None
    await store.commit(commit(KEY, 1, by=request.id, attempt=claimed.attempt))


async def test_a_lease_is_respected_despite_small_clock_skew(
    store: SessionStore, clock: Clock
) -> None:
    await store.commit(commit(KEY, 0))
    await store.begin(begin(KEY, "ahead", until=NOW + 10 + 30))
    clock.now = NOW + 35
    assert (await store.begin(begin(KEY, "next", until=NOW + 45))).session_lease is not None


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
async def test_a_clock_that_jumps_ahead_purges_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, restarted: bool
) -> None:
    path = tmp_path / "s.db"
    clocks = Clocks()
    with caplog.at_level(logging.ERROR, "seawall.sessions"):
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
        # A clock that advanced evenly for a day is trusted; then the expired session is purged.
        for _ in range(50):
            clocks.pass_by(_HOUR)
            await asyncio.sleep(0.03)
        assert await _until(lambda: _sessions(path) < count)
        await store.close()
    said = [each for each in caplog.records if "nothing is purged" in each.msg]
    assert 1 <= len(said) <= 2  # once there, once back


async def test_expired_sessions_are_purged_by_a_trusted_clock(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    clocks = Clocks()
    store = _store(path, clocks)
    await store.open()
    await store.commit(commit(KEY, 0))
    clocks.pass_by(2_000)
    assert await _until(lambda: _sessions(path) == 0)
    await store.close()


def test_when_a_clock_is_trusted() -> None:
    trust = ClockTrust(NOW, 0.0, None)
    assert trust.check(NOW + 10 * _DAY + 300, 10 * _DAY)  # slewing is no jump
    assert not trust.check(NOW + 10 * _DAY + 300 + _HOUR, 10 * _DAY)
    assert not trust.check(NOW + 10 * _DAY + 2 * _HOUR, 10 * _DAY + _HOUR)
    assert trust.check(NOW + 12 * _DAY + 2 * _HOUR, 10 * _DAY + SETTLING_SECONDS + _HOUR) is False
    assert not ClockTrust(NOW, 0.0, NOW - 40 * _DAY).check(NOW, 1.0)
    assert ClockTrust(NOW, 0.0, NOW - _HOUR).check(NOW, 0.0)
    assert ClockTrust(NOW, 0.0, NOW + 40 * _DAY).check(NOW, 0.0)  # behind, it purges less


@pytest.mark.parametrize("off", [-40 * _DAY, 40 * _DAY])
async def test_a_server_whose_clock_is_wrong_uses_dynamodbs_time(dynamodb: str, off: float) -> None:
    """So that DynamoDB deletes nothing before its time, and others see the session as it is."""
    true = time.time()
    http = HttpClient()

    async def handle(request: Request) -> Answer:
        signed = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
        if abs(signed.timestamp() - true) > 300:
            body = b'{"__type":"x#InvalidSignatureException","message":"Signature expired: ..."}'
            return Answer(400, body, {"date": formatdate(true, usegmt=True)})
        real = await http.request(
            "POST",
            Endpoint.parse(dynamodb),
            headers=[
                (each.encode(), request.headers[each].encode())
                for each in ("content-type", "x-amz-target", "x-amz-date", "authorization")
            ],
            body=request.body,
            deadline=asyncio.get_running_loop().time() + 20,
            limit=32 << 20,
        )
        return Answer(real.status, real.body)

    table = new_location("dynamodb")
    async with asyncio.timeout(60), serving(handle) as server:
        right = dynamodb_store(dynamodb, table, lambda: true)
        await right.open()
        client = LocalClient(server.url, clock=lambda: true + off)
        wrong = DynamoDBStore(
            client, table, keep_seconds=_DAY, clock=lambda: true + off, closing=client.close
        )
        await wrong.open()
        try:
            ends = true + off + _DAY  # as the pipeline has it, by the same wrong clock
            first = commit(KEY, 0, expires_at=ends, idempotency_key="k", fingerprint="f")
            await wrong.commit(first)
            assert (await wrong.load(KEY, turns=1)).session is not None
            found = (await right.load(KEY, turns=1)).session
            assert found is not None
            assert abs(found.expires_at - true - _DAY) < 5
            scan = Operation("Scan", Page[Item])
            items = (
                await client.call(
                    scan,
                    {"TableName": table},
                    deadline=asyncio.get_running_loop().time() + 20,
                )
            ).items
            assert len(items) == 3
            for item in items:
                assert float(item["ttl"]["N"]) >= true + 2 * _DAY - 5
            leased = await wrong.begin(begin(KEY, "one", until=true + off + 10))
            assert leased.session_lease is None
            busy = (await right.begin(begin(KEY, "two", until=true + 10))).session_lease
            assert busy is not None
            assert busy.owner == "one"
        finally:
            await wrong.close()
            await right.close()
            await http.close()


class _Ticking(Clock):
    """A clock on which a lease ends after so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    def __call__(self) -> float:
        self.left -= 1
        return NOW + (9.999 if self.left >= 0 else 10.001)


@pytest.mark.parametrize("looks", range(8))
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_lease_that_ends_during_a_begin_is_reported_or_taken(
    dynamodb: str, looks: int, key: str | None
) -> None:
    table = new_location("dynamodb")
    first, second = (
        dynamodb_store(dynamodb, table, Clock()),
        dynamodb_store(dynamodb, table, Clock()),
    )
    third = dynamodb_store(dynamodb, table, _Ticking(looks))
    for each in (first, second, third):
        await each.open()
    await first.commit(commit(KEY, 0))
    held = begin(KEY, "first", idempotency_key=key) if key else begin(KEY, "first")
    await first.begin(held)
    wanted = {"until": NOW + 20} | ({"idempotency_key": key} if key else {})
    snapshot = await third.begin(begin(KEY, "third", **wanted))
    found = (await second.load(KEY, turns=0)).session
    assert found is not None
    if snapshot.session_lease is None and snapshot.key_lease is None:
        assert found.lease is not None
        assert found.lease.owner == "third"
    elif found.lease is None:  # it took the lease that had ended, and gave it back for the key's
        assert snapshot.key_lease is not None
    for each in (first, second, third):
        await each.close()
