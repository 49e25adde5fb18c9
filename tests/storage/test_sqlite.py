"""The SQLite store with several processes, kills and locks."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from seawall.errors import ConfigError, SessionConflict, StoreUnavailable
from seawall.storage.sqlite.store import SqliteStore
from seawall.storage.sqlite.thread import BatchThread
from seawall.turn import SessionKey, UserMessage
from tests.fork_server import forking
from tests.storage.calls import KEY, NOW, commit


def _race(path: Path, worker: int, won: "multiprocessing.SimpleQueue[tuple[int, int]]") -> None:
    async def run() -> None:
        store = SqliteStore(path, clock=lambda: NOW)
        await store.open()
        for version in range(100):
            while True:
                found = await store.load(KEY, turns=0)
                if found.session is not None and found.session.version > version:
                    break
                try:
                    await store.commit(commit(KEY, version, f"w{worker}"))
                    won.put((version, worker))
                    break
                except SessionConflict:
                    continue
        await store.close()

    asyncio.run(run())


def test_processes_that_race_for_every_version() -> None:
    """Each version is won exactly once, and both keep going."""
    context = forking()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        won: multiprocessing.SimpleQueue[tuple[int, int]] = context.SimpleQueue()
        workers = [context.Process(target=_race, args=(path, each, won)) for each in range(3)]
        for each in workers:
            each.start()
        versions = sorted(won.get()[0] for _ in range(100))
        for each in workers:
            each.join(60)
            assert each.exitcode == 0
        assert versions == list(range(100))


def _write_until_killed(path: Path, acknowledged_queue: "multiprocessing.SimpleQueue[str]") -> None:
    async def run() -> None:
        store = SqliteStore(path, clock=lambda: NOW)
        await store.open()

        async def write(writer: int) -> None:
            for number in range(100_000):
                session = f"s{writer}-{number}"
                await store.commit(commit(SessionKey("acme", "ada", session), 0))
                acknowledged_queue.put(session)

        await asyncio.gather(*(write(writer) for writer in range(20)))

    asyncio.run(run())


def test_acknowledged_commits_survive_a_kill(tmp_path: Path) -> None:
    context = forking()
    acknowledged_queue: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    writer = context.Process(
        target=_write_until_killed, args=(tmp_path / "s.db", acknowledged_queue)
    )
    writer.start()
    acknowledged = {acknowledged_queue.get() for _ in range(500)}
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        stored = {row[0] for row in database.execute("SELECT session FROM sessions")}
        turns = {row[0] for row in database.execute("SELECT session FROM turns")}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert acknowledged <= stored
    assert stored == turns


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_text("this is not a database, but it is long enough" * 100)
    before = (tmp_path / "s.db").read_bytes()
    with pytest.raises(ConfigError, match="is not a database"):
        await SqliteStore(tmp_path / "s.db").open()
    assert (tmp_path / "s.db").read_bytes() == before
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await SqliteStore(tmp_path / "missing" / "s.db").open()


async def test_a_locked_database_is_reported_in_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", clock=lambda: NOW, busy_seconds=0.2)
    await store.open()
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable):
                await store.commit(commit(KEY, 0))
        other.execute("ROLLBACK")
    await store.commit(commit(KEY, 0))
    await store.close()


def _open(path: Path, start: float) -> None:
    async def run() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.close()

    while time.monotonic() < start:
        pass
    asyncio.run(run())


def test_concurrent_processes_can_open_a_new_file(tmp_path: Path) -> None:
    """It failed one start in five: "database is locked", at once, whatever the timeout."""
    with ProcessPoolExecutor(4, forking()) as workers:
        for number in range(25):
            start = time.monotonic() + 0.05
            opened = [workers.submit(_open, tmp_path / f"{number}.db", start) for _ in range(4)]
            for each in opened:
                each.result(30)


@pytest.mark.parametrize("count", [1, 3, 64, 65, 150])
async def test_commits_at_once_are_each_applied_repeated_or_refused(
    tmp_path: Path, count: int
) -> None:
    """Of the sessions that have a turn, every other one gets the same again, or another one."""
    keys = [SessionKey("acme", "ada", f"s{number}") for number in range(count)]
    store = SqliteStore(tmp_path / "s.db", clock=lambda: NOW)
    await store.open()
    try:
        await asyncio.gather(*(store.commit(commit(key, 0)) for key in keys[::3]))
        texts = [("hello", "other")[number % 2] for number in range(count)]
        ends = await asyncio.gather(
            *(store.commit(commit(key, 0, text)) for key, text in zip(keys, texts, strict=True)),
            return_exceptions=True,
        )
        for number, (key, text, end) in enumerate(zip(keys, texts, ends, strict=True)):
            conflicts = number % 3 == 0 and text != "hello"
            assert isinstance(end, SessionConflict) if conflicts else end is None
            found = await store.load(key, turns=9)
            stored = "hello" if conflicts else text
            assert [each.messages[0] for each in found.turns] == [UserMessage(stored)]
    finally:
        await store.close()


async def test_what_a_pass_of_the_loop_gives_is_one_batch_after_it() -> None:
    """And what was given in the pass that stops the thread is done before it ends."""
    batches: list[list[int]] = []

    def work(_: sqlite3.Connection, batch: Sequence[int]) -> Sequence[int]:
        batches.append(list(batch))
        return batch

    thread: BatchThread[int, int] = BatchThread(
        "test", connect=lambda: sqlite3.connect(":memory:"), work=work, max_queued=10, max_batch=10
    )
    await thread.start()
    tasks = [asyncio.create_task(thread.submit(number)) for number in range(3)]
    await asyncio.sleep(0)  # they have given their requests
    time.sleep(0.05)  # noqa: ASYNC251 - a pass that takes long, with the lock free
    assert batches == []
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert batches == [[0, 1, 2]]
    last = asyncio.create_task(thread.submit(3))
    await asyncio.sleep(0)
    await thread.stop()
    assert await last == 3
    assert batches == [[0, 1, 2], [3]]
