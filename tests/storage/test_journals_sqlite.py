"""Turns with effects in a SQLite file: upgrades of earlier files, and what is purged."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seawall.errors import ConfigError, SessionConflict, StoreUnavailable
from seawall.storage.sqlite import file as schema
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import SessionKey
from tests.storage.calls import KEY, NOW, Clock, commit
from tests.storage.test_background_jobs import accept, new_job
from tests.storage.test_journals import ADA, audit_of, journal, paused, sleeping_job
from tests.storage.test_notifications import notification


def columns(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as connection:
        tables = connection.execute(
            "SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        ).fetchall()
        found = {
            name: connection.execute(f"PRAGMA table_info({name})").fetchall()
            for kind, name in tables
            if kind == "table" and name != "clock"
        }
        found["indexes"] = [name for kind, name in tables if kind == "index"]
    return found


@pytest.mark.parametrize("version", [3, 4])
async def test_an_earlier_file_is_upgraded_with_its_jobs(tmp_path: Path, version: int) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    made = SqliteStore(new, clock=Clock())
    await made.open()
    await made.close()
    with sqlite3.connect(old) as connection:
        before = schema._SCHEMA.removesuffix(schema._JOURNALS + ";" + schema._NOTIFICATIONS)
        schema._run(connection, before)
        if version == 4:
            schema._run(connection, schema._JOURNALS)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute(
            "INSERT INTO pending (tenant, subject, turn, session, record, attempt, handed, "
            "held_until) VALUES ('acme', 'ada', 't1', 's1', ?, 1, 0, ?)",
            (msgspec.json.encode(new_job("t1")).decode(), NOW + 10),
        )
    clock = Clock()
    store = SqliteStore(old, clock=clock)
    await store.open()
    try:
        assert await store.find_job(ADA, "t1") == new_job("t1")
        clock.now = NOW + 11
        assert await store.orphaned_jobs(limit=9) == (new_job("t1"),)
        await store.journal(journal(1, audit=(audit_of(),)))
    finally:
        await store.close()
    assert columns(old) == columns(new)


async def test_a_file_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    with sqlite3.connect(path) as connection:
        schema._run(connection, schema._SCHEMA)
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    store = SqliteStore(path)
    with pytest.raises(ConfigError):
        await store.open()
    await store.close()


async def test_waits_and_sleeping_jobs_end_with_their_session_and_audit_later(
    tmp_path: Path,
) -> None:
    clock = Clock()
    store = SqliteStore(
        tmp_path / "s.db",
        clock=clock,
        steady=clock,
        idle_seconds=0.02,
        audit_keep_seconds=5_000,
    )
    await store.open()
    try:
        await store.journal(paused(audit=(audit_of(),), notifications=(notification(),)))
        other = new_job("t9", msgspec.structs.replace(KEY, session="s9"))
        await accept(store, other)
        async with asyncio.timeout(20):
            clock.now = NOW + 1_001
            while await store.find_wait("acme", "t1.1") is not None:  # noqa: ASYNC110 - purged by a thread
                await asyncio.sleep(0.02)
            assert await store.find_job(ADA, "t1") is None
            assert await store.due_notifications(limit=9) == ()
            assert await store.find_job(ADA, "t9") == other
            assert len((await store.audit(limit=9)).records) == 1
            clock.now = NOW + 5_001
            while (await store.audit(limit=9)).records:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
    finally:
        await store.close()


async def test_sleeping_jobs_are_found_by_an_index(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SqliteStore(path, clock=Clock())
    await store.open()
    try:
        await store.commit(commit(msgspec.structs.replace(KEY, session="s2"), 0))
        await store.journal(paused())
        assert await store.find_job(ADA, "t1") == sleeping_job()
    finally:
        await store.close()
    with sqlite3.connect(path) as connection:
        for which, index in (
            ("wakes_at IS NOT NULL AND wakes_at <= 1", "pending_asleep"),
            ("failure IS NULL AND wakes_at IS NULL AND held_until <= 1", "pending_by_hold"),
        ):
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT record FROM pending WHERE {which}"
            ).fetchall()
            assert index in plan[0][3]


async def test_journals_that_wait_are_one_transaction(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", clock=Clock())
    await store.open()
    statements: list[str] = []
    go_on = threading.Event()
    keys = [SessionKey("acme", "ada", f"s{number}") for number in range(8)]
    try:
        await store.journal(journal(1, key=keys[0]))
        await store.write(lambda db: db.set_trace_callback(statements.append))
        busy = asyncio.create_task(store.write(lambda _: go_on.wait(10)))
        await asyncio.sleep(0)
        writes = [
            journal(2, key=keys[0]),
            journal(3, key=keys[0], audit=(audit_of(key=keys[0]),)),
            journal(1, turn="t2", key=keys[0]),  # the turn before it is not over
            *(journal(1, key=each, audit=(audit_of(key=each),)) for each in keys[1:]),
        ]
        tasks = [asyncio.create_task(store.journal(each)) for each in writes]
        await asyncio.sleep(0)
        statements.clear()
        go_on.set()
        await busy
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await store.write(lambda db: db.set_trace_callback(None))
        assert [type(each) for each in outcomes] == [
            *(type(None), type(None), SessionConflict),
            *[type(None)] * 7,
        ]
        commits = [each for each in statements if each == "COMMIT"]
        assert len(commits) == 2  # of what was waited for, and of the journals
        for key in keys:
            (turn,) = (await store.turns(key, limit=9)).turns
            assert turn.journal is not msgspec.UNSET
            assert turn.journal.revision == (3 if key == keys[0] else 1)
        assert len((await store.audit(tenant="acme", limit=99)).records) == len(keys)
    finally:
        go_on.set()
        await store.close()


async def test_commits_and_journals_that_wait_mixed_are_two_transactions(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", clock=Clock())
    await store.open()
    statements: list[str] = []
    go_on = threading.Event()
    keys = [SessionKey("acme", "ada", f"s{number}") for number in range(6)]
    try:
        await store.write(lambda db: db.set_trace_callback(statements.append))
        busy = asyncio.create_task(store.write(lambda _: go_on.wait(10)))
        await asyncio.sleep(0)
        tasks = [
            asyncio.create_task(
                store.journal(journal(1, key=each)) if number % 2 else store.commit(commit(each, 0))
            )
            for number, each in enumerate(keys)
        ]
        # Behind the commit of its session, with which it must not change places.
        next_turn = journal(1, turn="t2", key=keys[0], number=2)
        tasks.append(asyncio.create_task(store.journal(next_turn)))
        await asyncio.sleep(0)
        statements.clear()
        go_on.set()
        await asyncio.gather(busy, *tasks)
        await store.write(lambda db: db.set_trace_callback(None))
        assert statements.count("COMMIT") == 3  # of what was waited for, and of both kinds
        assert [len((await store.turns(each, limit=9)).turns) for each in keys] == [2, *[1] * 5]
    finally:
        go_on.set()
        await store.close()


async def test_a_journal_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", clock=Clock())
    await store.open()
    go_on = threading.Event()
    keys = [SessionKey("acme", "ada", f"s{number}") for number in range(5)]
    try:
        await store.write(
            lambda db: db.execute(
                "CREATE TEMP TRIGGER broken BEFORE INSERT ON main.turns "
                "WHEN NEW.session = 's2' BEGIN SELECT RAISE(ABORT, 'broken'); END"
            )
        )
        busy = asyncio.create_task(store.write(lambda _: go_on.wait(10)))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(store.journal(journal(1, key=each))) for each in keys]
        await asyncio.sleep(0)
        go_on.set()
        await busy
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in outcomes] == [
            StoreUnavailable if each.session == "s2" else type(None) for each in keys
        ]
        for each in keys:
            snapshot = await store.load(each, turns=9)
            assert len(snapshot.turns) == (0 if each.session == "s2" else 1)
    finally:
        go_on.set()
        await store.close()
