"""Writers that race, wait, repeat themselves and lose answers; afterwards everything must add up.

That the checker sees what is wrong is shown by stores that are broken on purpose.
"""

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context

import msgspec
import pytest

from seawall.errors import SessionConflict
from seawall.sessions.port import Begin, Commit, SessionStore
from seawall.sessions.sqlite import SqliteStore
from seawall.turn import AssistantMessage, SessionKey, TurnRecord, Usage, UserMessage
from tests.attack.history import Operation, violations
from tests.sessions.stores import NAMES, make_store, new_place

SESSIONS = ("s0", "s1", "s2")
WRITERS = 6
LEASE = 2.0
FAR = 4_000_000_000.0


@asynccontextmanager
async def opened(store: SessionStore) -> AsyncGenerator[SessionStore, None]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _key(session: str) -> SessionKey:
    return SessionKey("acme", "ada", session)


async def attack(
    store: SessionStore, writer: str, count: int, *, held: bool, seed: int
) -> list[Operation]:
    """Commit `count` turns on few sessions; some twice, some with the answer thrown away."""
    chance = random.Random(seed)
    done: list[Operation] = []
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _one(store, f"{writer}.{number}", chance.choice(SESSIONS), held, chance)
            )
            for number in range(count)
        ]
    for task in tasks:
        done += task.result()
    return done


async def _one(
    store: SessionStore, name: str, session: str, held: bool, chance: random.Random
) -> list[Operation]:
    """One turn, tried until it is in; under a key it is then tried once more."""
    key = f"key-{name}" if chance.random() < 0.3 else None
    attempts: list[Operation] = []
    for again in range(200):
        await asyncio.sleep(chance.random() * 0.01)
        began = time.monotonic()
        turn = f"{name}.{again}"
        until = time.time() + LEASE if held else None
        begin = Begin(
            key=_key(session),
            turn=turn,
            turns=1,
            until=until,
            idempotency_key=key,
            fingerprint="f" if key else None,
        )
        found = await store.begin(begin)
        if found.replay is not None:
            number = found.replay.turn.number
            attempts.append(Operation(session, turn, began, time.monotonic(), number, key))
            return attempts
        if held and (found.busy or found.running):
            await store.release(begin)
            continue
        version = found.session.version if found.session else 0
        commit = _commit(session, turn, version, key)
        try:
            if chance.random() < 0.1:  # the answer is lost: cancelled at some moment
                task = asyncio.create_task(store.commit(commit))
                await asyncio.sleep(chance.random() * 0.004)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                attempts.append(Operation(session, turn, began, None, None, key))
                if held:
                    await store.release(begin)
                if key is None:
                    return attempts
                continue
            await store.commit(commit)
            if chance.random() < 0.1:
                await store.commit(commit)  # delivered twice
        except SessionConflict:
            attempts.append(Operation(session, turn, began, None, None, key))
            continue
        attempts.append(Operation(session, turn, began, time.monotonic(), version + 1, key))
        if key is None or chance.random() < 0.7:
            return attempts
    return attempts


def _commit(session: str, turn: str, version: int, key: str | None) -> Commit:
    return Commit(
        key=_key(session),
        expected_version=version,
        turn=TurnRecord(
            id=turn,
            number=version + 1,
            created_at=1.0,
            agent="a",
            intent=None,
            messages=(UserMessage(turn), AssistantMessage("yes")),
            usage=Usage(),
        ),
        agent="a",
        state={},
        expires_at=FAR,
        idempotency_key=key,
        fingerprint="f" if key else None,
    )


async def stored(store: SessionStore) -> dict[str, tuple[TurnRecord, ...]]:
    """All turns of all sessions, oldest first."""
    found: dict[str, tuple[TurnRecord, ...]] = {}
    for session in SESSIONS:
        found[session] = (await store.load(_key(session), turns=100_000)).turns
    return found


def _attack_in_process(
    kind: str, place: str, endpoint: str, writer: int, *, count: int, held: bool
) -> bytes:
    async def run() -> list[Operation]:
        async with opened(make_store(kind, place, endpoint)) as store:
            return await attack(store, f"w{writer}", count, held=held, seed=writer)

    return msgspec.json.encode(asyncio.run(run()))


@pytest.mark.parametrize("held", [True, False], ids=["holding", "optimistic"])
@pytest.mark.parametrize("kind", NAMES)
def test_processes_attack_few_sessions(
    kind: str, held: bool, request: pytest.FixtureRequest
) -> None:
    endpoint = request.getfixturevalue("dynamodb") if kind == "dynamodb" else ""
    count = 25 if kind == "dynamodb" else 200
    place = new_place(kind)
    with ProcessPoolExecutor(WRITERS, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(_attack_in_process, kind, place, endpoint, writer, count=count, held=held)
            for writer in range(WRITERS)
        ]
        operations = [
            operation
            for future in futures
            for operation in msgspec.json.decode(future.result(), type=list[Operation])
        ]

    async def read() -> dict[str, tuple[TurnRecord, ...]]:
        async with opened(make_store(kind, place, endpoint)) as store:
            return await stored(store)

    found = asyncio.run(read())
    assert sum(each.number is not None for each in operations) >= count * WRITERS * 0.5
    assert violations(operations, found) == []
    shutil.rmtree(place, ignore_errors=True)


class _IgnoresVersions(SqliteStore):
    """Takes a commit for any version: the later one overwrites, or comes a second time."""

    async def commit(self, commit: Commit) -> None:
        try:
            await super().commit(commit)
        except SessionConflict:
            head = await self.load(commit.key, turns=0)
            version = head.session.version if head.session else 0
            turn = msgspec.structs.replace(commit.turn, number=version + 1)
            await super().commit(
                msgspec.structs.replace(commit, expected_version=version, turn=turn)
            )


class _Forgets(SqliteStore):
    """Says yes to one commit in fifty without doing it."""

    async def commit(self, commit: Commit) -> None:
        if os.urandom(1)[0] % 50:
            await super().commit(commit)


class _RepeatsKeys(SqliteStore):
    """Knows no idempotency keys."""

    async def begin(self, begin: Begin) -> "object":  # type: ignore[override]
        return await super().begin(
            msgspec.structs.replace(begin, idempotency_key=None, fingerprint=None)
        )

    async def commit(self, commit: Commit) -> None:
        await super().commit(
            msgspec.structs.replace(commit, idempotency_key=None, fingerprint=None)
        )


class _AppliesTwice(SqliteStore):
    """A commit that is delivered twice is two turns."""

    async def commit(self, commit: Commit) -> None:
        try:
            await super().commit(commit)
        finally:
            head = await self.load(commit.key, turns=1)
            if head.turns and head.turns[-1].id == commit.turn.id and os.urandom(1)[0] % 4 == 0:
                turn = msgspec.structs.replace(commit.turn, number=commit.turn.number + 1)
                again = msgspec.structs.replace(
                    commit,
                    expected_version=commit.turn.number,
                    turn=turn,
                    idempotency_key=None,
                    fingerprint=None,
                )
                await super().commit(again)


class _TellsNumbersLate(SqliteStore):
    """Reads are served from an old state: what was acknowledged is not seen by the next."""

    async def load(self, key: SessionKey, *, turns: int) -> "object":  # type: ignore[override]
        found = await super().load(key, turns=turns)
        return msgspec.structs.replace(found, turns=found.turns[:-1])


BROKEN: Sequence[Callable[[str], SqliteStore]] = (
    _IgnoresVersions,
    _Forgets,
    _RepeatsKeys,
    _AppliesTwice,
    _TellsNumbersLate,
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__.strip("_"))
def test_a_broken_store_is_caught(broken: Callable[[str], SqliteStore]) -> None:
    place = new_place("sqlite")

    async def run() -> list[str]:
        async with opened(broken(f"{place}/sessions.db")) as store:
            operations = await attack(store, "w", 250, held=False, seed=7)
            return violations(operations, await stored(store))

    assert asyncio.run(run())
    shutil.rmtree(place)


def test_a_sound_store_is_not_blamed() -> None:
    place = new_place("sqlite")

    async def run() -> list[str]:
        async with opened(SqliteStore(f"{place}/sessions.db")) as store:
            operations = await attack(store, "w", 250, held=False, seed=7)
            return violations(operations, await stored(store))

    assert asyncio.run(run()) == []
    shutil.rmtree(place)
