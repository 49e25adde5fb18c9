"""Turns with effects in a SQLite file: upgrades of earlier files, and what is purged."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seawall.errors import ConfigError
from seawall.storage.sqlite import file as schema
from seawall.storage.sqlite.store import SqliteStore
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
