"""Moving every session from one store to another: in batches, resumable, verifiable.

What is there already is left alone, so a batch may be done twice. After each batch the place
reached is saved; whoever stops in between, or is killed, goes on from there.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError, SessionNotFound
from seawall.storage.port import Archive, SessionStore
from seawall.turn import SessionKey, TurnRecord

__all__ = [
    "Checkpoint",
    "Verification",
    "load_checkpoint",
    "migrate",
    "save_checkpoint",
    "verify",
]

_CALL_SECONDS = 120.0
_TURNS_A_PAGE = 200
_EXAMPLES = 20

T = TypeVar("T")


class Checkpoint(Struct, frozen=True):
    """How far a migration has come.

    source, target: the stores, as `name_store` has them. cursor: where `archives` goes on.
    moved: sessions. turns: of those. skipped: sessions that were there already.
    """

    source: str
    target: str
    cursor: str | None = None
    moved: int = 0
    turns: int = 0
    skipped: int = 0

    @property
    def sessions(self) -> int:
        """All that were looked at."""
        return self.moved + self.skipped


class Verification(Struct):
    """Every session of the source beside the target's.

    same: the turns are equal. ahead: also, and it went on in the target. missing: not there.
    differing: there, with other turns, or fewer. examples: some of the last two, by name.
    """

    same: int = 0
    ahead: int = 0
    missing: int = 0
    differing: int = 0
    examples: list[str] = msgspec.field(default_factory=list)

    @property
    def sessions(self) -> int:
        """All that were looked at."""
        return self.same + self.ahead + self.missing + self.differing

    @property
    def good(self) -> bool:
        """Whether nothing is wanting."""
        return not self.missing and not self.differing


async def migrate(
    source: SessionStore,
    target: SessionStore,
    checkpoint: Checkpoint,
    *,
    batch: int,
    concurrency: int,
    save: Callable[[Checkpoint], None],
    progress: Callable[[int], None],
) -> Checkpoint:
    """Move what lies behind the checkpoint; the last checkpoint.

    batch: sessions read at once, and held in memory. concurrency: written at once.
    save: keeps the place reached, after each batch. tell: told the number of sessions done.

    Raises:
        StoreUnavailable: a store cannot answer.
        TimeoutError: it did not within 120 s.
    """
    while True:
        async with asyncio.timeout(_CALL_SECONDS):
            page = await source.archives(limit=batch, cursor=checkpoint.cursor)
        done = checkpoint.sessions

        async def restore(archive: Archive) -> bool:
            nonlocal done
            async with asyncio.timeout(_CALL_SECONDS):
                new = await target.restore(archive)
            done += 1
            progress(done)
            return new

        fresh = await _for_each(restore, page.archives, concurrency)
        moved = [archive for archive, new in zip(page.archives, fresh, strict=True) if new]
        checkpoint = msgspec.structs.replace(
            checkpoint,
            cursor=page.cursor,
            moved=checkpoint.moved + len(moved),
            turns=checkpoint.turns + sum(len(archive.turns) for archive in moved),
            skipped=checkpoint.skipped + len(page.archives) - len(moved),
        )
        if page.cursor is None:
            return checkpoint
        save(checkpoint)


async def verify(
    source: SessionStore,
    target: SessionStore,
    *,
    batch: int,
    concurrency: int,
    progress: Callable[[int], None],
) -> Verification:
    """Read all of both stores and compare versions and turns. Raises as `migrate` does."""
    result = Verification()

    async def compare(archive: Archive) -> None:
        verdict = _verdict(archive, await _turns_of(target, archive.session.key))
        setattr(result, verdict, getattr(result, verdict) + 1)
        if verdict in ("missing", "differing") and len(result.examples) < _EXAMPLES:
            key = archive.session.key
            result.examples.append(f"{verdict}: {key.tenant} / {key.subject} / {key.session}")
        progress(result.sessions)

    cursor = None
    while True:
        async with asyncio.timeout(_CALL_SECONDS):
            page = await source.archives(limit=batch, cursor=cursor)
        await _for_each(compare, page.archives, concurrency)
        cursor = page.cursor
        if cursor is None:
            return result


def _verdict(archive: Archive, found: tuple[TurnRecord, ...]) -> str:
    """Which count of a `Verification` a session belongs to."""
    version = archive.session.version
    if not found:
        return "missing"
    if found[:version] != archive.turns:
        return "differing"
    return "ahead" if len(found) > version else "same"


async def _turns_of(store: SessionStore, key: SessionKey) -> tuple[TurnRecord, ...]:
    """All turns of a session, oldest first; none when it is not there."""
    newest_first: list[TurnRecord] = []
    cursor = None
    while True:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                page = await store.turns(key, limit=_TURNS_A_PAGE, cursor=cursor)
        except SessionNotFound:
            return ()
        newest_first += page.turns
        cursor = page.cursor
        if cursor is None:
            return tuple(reversed(newest_first))


async def _for_each(
    do: Callable[[Archive], Awaitable[T]], archives: Sequence[Archive], concurrency: int
) -> list[T]:
    """Do it with each, so many at once; the first failure ends the others."""
    slots = asyncio.Semaphore(concurrency)

    async def one(archive: Archive) -> T:
        async with slots:
            return await do(archive)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(archive)) for archive in archives]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def load_checkpoint(path: Path, source: str, target: str) -> Checkpoint:
    """Where a migration from one to the other stopped; its beginning when there is no file.

    Raises:
        ConfigError: the file is of another migration, or not a checkpoint.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint(source, target)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not a checkpoint of a migration: {error}") from error
    if (found.source, found.target) != (source, target):
        raise ConfigError(
            f"{path}: is of the migration from {found.source} to {found.target}; "
            "remove it, or name another file with --checkpoint"
        )
    return found


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it so that the file is whole at any moment, even of a power cut."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(checkpoint))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
