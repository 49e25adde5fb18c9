"""The database's files: permissions, and damage while they are open."""

import asyncio
import logging
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from seawall.errors import CommitUnknown, ConfigError, Problem, StoreUnavailable
from seawall.settings import SessionSettings
from seawall.storage.open import open_store
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import Principal, SessionKey
from tests.storage.calls import KEY, NOW, begin, commit

Harm = Callable[[Path], None]


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore, None]:
    store = SqliteStore(path, clock=lambda: NOW)
    await store.open()
    try:
        async with asyncio.timeout(30):
            yield store
    finally:
        await store.close()


def _chmod(path: Path, mode: int) -> None:
    path.chmod(mode)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
async def test_nothing_is_acknowledged_into_a_file_that_is_gone(
    tmp_path: Path, harm: Harm, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.db"

    caplog.set_level(logging.WARNING, "seawall.sessions")
    async with opened(path) as store:
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
        with pytest.raises(StoreUnavailable):  # what is read is not what is stored
            await store.load(KEY, turns=1)

    said = [each.getMessage() for each in caplog.records if "nothing is acknowledged" in each.msg]
    assert len(said) == 1
    assert str(path) in said[0]


async def test_a_file_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    path, away = tmp_path / "s.db", tmp_path / "away.db"

    async with opened(path) as store:
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


@pytest.mark.parametrize("harm", LOG_HARMS)
async def test_nothing_is_acknowledged_into_a_truncated_log(tmp_path: Path, harm: Harm) -> None:
    """What is written after the hole makes the file as large as before, but is not found again."""
    path = tmp_path / "s.db"

    async with opened(path) as store:
        for number in range(3):
            await store.commit(commit(SessionKey("acme", "bob", f"s{number}"), 0, "x" * 2_000))
        harm(path)
        for _ in range(3):
            with pytest.raises((CommitUnknown, StoreUnavailable)):
                await store.commit(commit(KEY, 0))


async def test_a_closed_store_has_no_file_open(tmp_path: Path) -> None:
    """The write-ahead log is kept open to inspect it, beside what SQLite has open itself."""

    def files() -> list[str]:
        return [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()]

    path = tmp_path / "s.db"
    async with opened(path) as store:
        await store.commit(commit(KEY, 0))
        assert any(each.startswith(str(path)) for each in files())
    assert not any(each.startswith(str(path)) for each in files())


async def test_checkpoints_by_another_process_are_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async with opened(path) as store:
        for version in range(12):
            await store.commit(commit(KEY, version, "x" * 3_000))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                mode = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")[version % 4]
                other.execute(f"PRAGMA wal_checkpoint({mode})")
                if not version % 5:
                    other.execute("CREATE TABLE IF NOT EXISTS beside (at INTEGER)")
        assert len((await store.load(KEY, turns=99)).turns) == 12


async def test_a_vacuum_and_a_checkpoint_are_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async with opened(path) as store:
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


async def test_the_database_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    _chmod(tmp_path, 0o755)
    before = os.umask(0)

    def modes() -> list[int]:
        return [_mode(each) for each in tmp_path.glob("s.db*")]

    try:
        async with opened(path) as store:
            await store.commit(commit(KEY, 0))
            assert modes() == [0o600] * 3
        path.chmod(0o644)  # as an earlier version created it
        async with opened(path):
            assert modes() == [0o600] * 3
    finally:
        os.umask(before)
    assert _mode(tmp_path) == 0o755


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
async def test_a_read_only_database_is_refused_at_start(readable: Path, what: str) -> None:
    path = readable / "s.db"

    if what != "new":
        async with opened(path) as store:
            await store.commit(commit(KEY, 0))
        path.chmod(0o444 if what == "file" else 0o666)
    if what == "log":
        path.with_name("s.db-wal").touch()
        path.with_name("s.db-wal").chmod(0o444)
    _chmod(readable, 0o555 if what in ("folder", "new") else 0o777)
    settings = SessionSettings(path=str(path))
    with _unprivileged(), pytest.raises(ConfigError, match=r"sessions\.path: .*cannot be written"):
        await open_store(settings, read_only=False)
    _chmod(readable, 0o755)


async def test_a_read_only_database_can_be_read(readable: Path) -> None:
    """As by `seawall sessions list`, on a backup."""
    path = readable / "s.db"

    async with opened(path) as store:
        await store.commit(commit(KEY, 0))
    path.chmod(0o444)
    _chmod(readable, 0o777)

    with _unprivileged():
        reader = await open_store(SessionSettings(path=str(path)))
        try:
            found = await reader.find_job(Principal("acme", "ada"), "t")
            page = await reader.archives(limit=1)
            assert (found, len(page.archives)) == (None, 1)
            with pytest.raises(StoreUnavailable):
                await reader.commit(commit(KEY, 1))
        finally:
            await reader.close()


async def test_a_database_that_becomes_read_only_gives_503_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async with opened(path) as store:
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
