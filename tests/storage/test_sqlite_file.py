"""The database's files: permissions, and damage while they are open."""

import asyncio
import logging
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from seawall.errors import CommitUnknown, ConfigError, Problem, StoreUnavailable
from seawall.storage.open import open_store
from seawall.storage.settings import SessionSettings
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal, SessionKey
from tests.storage.calls import KEY, NOW, begin, commit

Harm = Callable[[Path], None]


def play(path: Path, scenario: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = SqliteStore(path, clock=lambda: NOW)
        await store.open()
        try:
            async with asyncio.timeout(30):
                await scenario(store)
        finally:
            await store.close()

    asyncio.run(whole())


def _delete(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def _delete_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def _empty_log(path: Path) -> None:
    os.truncate(path.with_name(path.name + "-wal"), 0)


def _halve_log(path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    os.truncate(log, log.stat().st_size // 2)


HARMS: list[Harm] = [
    _delete,
    _replace,
    _empty,
    _halve,
    _delete_log,
    _empty_log,
    _halve_log,
]
LOG_HARMS: list[Harm] = [_empty_log, _halve_log]


@pytest.mark.parametrize("harm", HARMS)
def test_nothing_is_acknowledged_into_a_file_that_is_gone(
    tmp_path: Path, harm: Harm, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.db"

    async def scenario(store: SqliteStore) -> None:
        for number in range(30):  # so that there is something to lose
            await store.commit(commit(SessionKey("acme", "bob", f"s{number}"), 0, "x" * 2_000))
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(FULL)")
        await store.commit(commit(KEY, 0))
        harm(path)
        for version in range(1, 5):
            with pytest.raises(Problem) as refused:
                await store.commit(commit(KEY, version))
            assert isinstance(refused.value, CommitUnknown | StoreUnavailable)
            assert refused.value.status == 503
        with pytest.raises(StoreUnavailable):
            await store.begin(begin(KEY, "t"))
        with pytest.raises(StoreUnavailable):  # what it would show is not what is kept
            await store.load(KEY, turns=1)

    with caplog.at_level(logging.WARNING, "seawall.storage"):
        play(path, scenario)
    said = [each.getMessage() for each in caplog.records if "nothing is acknowledged" in each.msg]
    assert len(said) == 1
    assert str(path) in said[0]


def test_a_file_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    path, away = tmp_path / "s.db", tmp_path / "away.db"

    async def scenario(store: SqliteStore) -> None:
        await store.commit(commit(KEY, 0))
        path.rename(away)
        for version in (1, 2):
            with pytest.raises(StoreUnavailable):
                await store.commit(commit(KEY, version))
        with pytest.raises(StoreUnavailable):
            await store.load(KEY, turns=9)
        away.rename(path)
        assert len((await store.load(KEY, turns=9)).turns) == 1
        await store.commit(commit(KEY, 1))
        await store.commit(commit(KEY, 2))
        found = await store.load(KEY, turns=9)
        assert [each.number for each in found.turns] == [1, 2, 3]

    play(path, scenario)


@pytest.mark.parametrize("harm", LOG_HARMS)
def test_nothing_is_acknowledged_into_a_truncated_log(tmp_path: Path, harm: Harm) -> None:
    """What is written after the hole makes the file as large as before, but is not found again."""
    path = tmp_path / "s.db"

    async def scenario(store: SqliteStore) -> None:
        for number in range(3):
            await store.commit(commit(SessionKey("acme", "bob", f"s{number}"), 0, "x" * 2_000))
        harm(path)
        for _ in range(3):
            with pytest.raises((CommitUnknown, StoreUnavailable)):
                await store.commit(commit(KEY, 0))

    play(path, scenario)


def test_checkpoints_by_another_process_are_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def scenario(store: SqliteStore) -> None:
        for version in range(12):
            await store.commit(commit(KEY, version, "x" * 3_000))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                mode = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")[version % 4]
                other.execute(f"PRAGMA wal_checkpoint({mode})")
                if not version % 5:
                    other.execute("CREATE TABLE IF NOT EXISTS beside (at INTEGER)")
        assert len((await store.load(KEY, turns=99)).turns) == 12

    play(path, scenario)


def test_a_vacuum_and_a_checkpoint_are_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def scenario(store: SqliteStore) -> None:
        keys = [SessionKey("acme", "ada", f"s{number}") for number in range(60)]
        for key in keys:
            await store.commit(commit(key, 0, "x" * 4_000))
        for key in keys[1:]:
            await store.delete(key)
        before = path.stat().st_size
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert path.stat().st_size < before or before == 4_096
        for version in range(1, 4):
            await store.commit(commit(keys[0], version))

    play(path, scenario)


def test_the_database_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    tmp_path.chmod(0o755)
    before = os.umask(0)

    def modes() -> list[int]:
        return [stat.S_IMODE(each.stat().st_mode) for each in tmp_path.glob("s.db*")]

    async def scenario(store: SqliteStore) -> None:
        await store.commit(commit(KEY, 0))
        assert modes() == [0o600] * 3

    try:
        play(path, scenario)
        path.chmod(0o644)  # as an earlier version made it
        play(path, scenario)
    finally:
        os.umask(before)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that other users may list."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def _unprivileged() -> Iterator[None]:
    """For the block, permissions count for this process, even if it runs as root."""
    before = os.geteuid()
    if not before:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if not before:
            os.seteuid(before)


@pytest.mark.parametrize("what", ["file", "log", "folder", "new"])
def test_a_read_only_database_is_refused_at_start(readable: Path, what: str) -> None:
    path = readable / "s.db"

    async def store_one(store: SqliteStore) -> None:
        await store.commit(commit(KEY, 0))

    if what != "new":
        play(path, store_one)
        path.chmod(0o444 if what == "file" else 0o666)
    if what == "log":
        path.with_name("s.db-wal").touch()
        path.with_name("s.db-wal").chmod(0o444)
    readable.chmod(0o555 if what in ("folder", "new") else 0o777)
    settings = SessionSettings(path=str(path))
    with _unprivileged(), pytest.raises(ConfigError, match=r"sessions\.path: .*cannot be written"):
        asyncio.run(open_store(settings, read_only=False))
    readable.chmod(0o755)


def test_a_read_only_database_can_be_read(readable: Path) -> None:
    """As by `seawall sessions list`, on a backup."""
    path = readable / "s.db"

    async def store_one(store: SqliteStore) -> None:
        await store.commit(commit(KEY, 0))

    play(path, store_one)
    path.chmod(0o444)
    readable.chmod(0o777)

    async def read() -> None:
        store = await open_store(SessionSettings(path=str(path)))
        try:
            found = await store.find_job(Principal("acme", "ada"), "t")
            page = await store.archives(limit=1)
            assert (found, len(page.archives)) == (None, 1)
            with pytest.raises(StoreUnavailable):
                await store.commit(commit(KEY, 1))
        finally:
            await store.close()

    with _unprivileged():
        asyncio.run(read())


def test_a_database_that_becomes_read_only_gives_503_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def scenario(store: SqliteStore) -> None:
        await store.commit(commit(KEY, 0))

        def switch(on: int) -> Callable[[sqlite3.Connection], None]:
            return lambda db: db.execute(f"PRAGMA query_only = {on}").close()

        await store._writer.submit(switch(1))
        with pytest.raises(StoreUnavailable):
            await store.commit(commit(KEY, 1))
        with pytest.raises(StoreUnavailable):
            await store.begin(begin(KEY, "t"))
        assert (await store.load(KEY, turns=1)).session is not None
        await store._writer.submit(switch(0))
        await store.commit(commit(KEY, 1))

    play(path, scenario)
