"""Migration of all sessions and facts from one store to another: in batches, resumable, verifiable.

Sessions that exist already are left alone, so a batch may be repeated. After each batch the
position is saved; a migration that is stopped, or killed, continues from there.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError, SessionNotFound
from seawall.storage.facts import Facts, OwnedMemory
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
    """The position of a migration.

    Attributes:
        source: As `store_name` names it.
        target: As `store_name` names it.
        cursor: Where `archives` continues.
        moved: Number of sessions copied.
        turns: Number of their turns.
        skipped: Number of sessions that existed already.
        memories: Number of subjects whose facts were copied; known when all is done.
    """

    source: str
    target: str
    cursor: str | None = None
    moved: int = 0
    turns: int = 0
    skipped: int = 0
    memories: int = 0

    @property
    def sessions(self) -> int:
        """All that were processed."""
        return self.moved + self.skipped


class Verification(Struct):
    """The source's sessions, compared with the target's.

    Attributes:
        same: Number with equal turns.
        ahead: Number with equal turns, and newer ones in the target.
        missing: Number not in the target.
        differing: Number with other turns, or fewer.
        memories: Number of subjects whose facts are in the target, or newer ones.
        lost: Number of subjects whose facts are not.
        examples: Some of the missing and differing, by name.
    """

    same: int = 0
    ahead: int = 0
    missing: int = 0
    differing: int = 0
    memories: int = 0
    lost: int = 0
    examples: list[str] = msgspec.field(default_factory=list)

    @property
    def sessions(self) -> int:
        """All that were compared."""
        return self.same + self.ahead + self.missing + self.differing

    @property
    def good(self) -> bool:
        """Whether no session is missing or differs, and no subject's facts are missing."""
        return not (self.missing or self.differing or self.lost)


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
    """Copy the sessions after the checkpoint, then all facts; the last checkpoint.

    Args:
        source: Open.
        target: Open.
        checkpoint: Where to start.
        batch: Sessions read at once, and kept in memory.
        concurrency: Sessions written at once.
        save: Called with the position after each batch.
        progress: Called with the number of sessions done.

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
            memories = await _copy_memories(source.facts(), target.facts(), batch)
            return msgspec.structs.replace(checkpoint, memories=memories)
        save(checkpoint)


async def _copy_memories(source: Facts, target: Facts, batch: int) -> int:
    """Copy the facts of all subjects that have none in the target; their number."""
    copied = 0
    async for each in _memories(source, batch):
        async with asyncio.timeout(_CALL_SECONDS):
            if (await target.read(each.owner)).revision == 0:
                copied += await target.write(each.owner, each.memory, expected=0)
    return copied


async def _memories(source: Facts, batch: int) -> AsyncGenerator[OwnedMemory, None]:
    """The facts of all subjects, without those that each store may delete at any time."""
    cursor, now = None, time.time()
    while True:
        async with asyncio.timeout(_CALL_SECONDS):
            page = await source.page(limit=batch, cursor=cursor)
        for each in page.memories:
            if each.memory.ends_at > now:
                yield each
        cursor = page.cursor
        if cursor is None:
            return


async def verify(
    source: SessionStore,
    target: SessionStore,
    *,
    batch: int,
    concurrency: int,
    progress: Callable[[int], None],
) -> Verification:
    """Read both stores and compare versions and turns; arguments and errors as of `migrate`."""
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
            break
    there = target.facts()
    async for each in _memories(source.facts(), batch):
        async with asyncio.timeout(_CALL_SECONDS):
            found = await there.read(each.owner)
        if found.revision > each.memory.revision or found == each.memory:
            result.memories += 1
        else:
            result.lost += 1
            if len(result.examples) < _EXAMPLES:
                result.examples.append(f"facts: {each.owner.tenant} / {each.owner.subject}")
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
    """All turns of a session, oldest first; none if it does not exist."""
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
    """Call `do` with each, `concurrency` at once; the first failure cancels the others."""
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
    """Where a migration from `source` to `target` stopped; its start if there is no file.

    Raises:
        ConfigError: the file belongs to another migration, or is not a checkpoint.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint(source, target)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not a checkpoint of a migration: {error}") from error
    if (found.source, found.target) != (source, target):
        raise ConfigError(
            f"{path}: belongs to the migration from {found.source} to {found.target}; "
            "remove it, or name another file with --checkpoint"
        )
    return found


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it atomically, so that the file is complete even after a power failure."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(checkpoint))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
