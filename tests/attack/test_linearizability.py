"""Writers that race, stall, die, repeat and lose answers; the history must be linearizable.

Stores that are broken on purpose show that the checker finds violations.
"""

import asyncio
import itertools
import os
import random
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from seawall.errors import CommitUnknown, SessionConflict, StoreUnavailable
from seawall.storage.port import Begin, Commit, Session, SessionStore, Snapshot
from seawall.storage.sqlite.store import SqliteStore
from seawall.turn import AssistantMessage, SessionKey, TurnRecord, Usage, UserMessage
from tests.attack.history import Observation, Operation, violations
from tests.fork_server import forking
from tests.properties import number_of_examples
from tests.storage.stores import NAMES, make_store, new_location

SESSIONS = ("s0", "s1", "s2")
WRITERS = 6
LEASE = 0.5
STALL = 0.7
FAR = 4_000_000_000.0


class Line(Struct, frozen=True):
    """A line of a history on disk; the last one of an attempt counts."""

    attempt: str
    operation: Operation | None = None
    observation: Observation | None = None


class Recorder:
    """Writes down what happens as it happens, so that a process may be killed at any moment."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def attempt(self, attempt: str, operation: Operation) -> None:
        os.write(self._file, msgspec.json.encode(Line(attempt, operation)) + b"\n")

    def observation(self, attempt: str, observation: Observation) -> None:
        os.write(
            self._file,
            msgspec.json.encode(Line(f"{attempt} observation", observation=observation)) + b"\n",
        )

    def close(self) -> None:
        os.close(self._file)


def read_history(path: Path) -> tuple[list[Operation], list[Observation]]:
    """The recorded operations; an incomplete last line does not count."""
    lines: dict[str, Line] = {}
    for text in path.read_bytes().split(b"\n")[:-1]:
        line = msgspec.json.decode(text, type=Line)
        lines[line.attempt] = line
    return (
        [line.operation for line in lines.values() if line.operation is not None],
        [line.observation for line in lines.values() if line.observation is not None],
    )


@asynccontextmanager
async def opened(store: SessionStore) -> AsyncGenerator[SessionStore, None]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _key(session: str) -> SessionKey:
    return SessionKey("acme", "ada", session)


class Writer(Struct, frozen=True):
    """Commits `count` turns on few sessions; some twice, some with the answer discarded.

    leased: it leases a session before it writes to it; otherwise only the version protects.
    """

    name: str
    count: int
    leased: bool
    seed: int

    async def attack(self, store: SessionStore, record: Recorder) -> None:
        """All turns at once."""
        chance = random.Random(self.seed)
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                attempt = _Attempt(store, record, chance, self.leased)
                key = f"key-{self.name}.{number}" if chance.random() < 0.4 else None
                name, session = f"{self.name}.{number}", chance.choice(SESSIONS)
                group.create_task(attempt.until_done(name, session, key))


class _Attempt(Struct, frozen=True):
    store: SessionStore
    record: Recorder
    chance: random.Random
    leased: bool

    async def until_done(self, name: str, session: str, key: str | None) -> None:
        """One turn, tried until it is stored; under a key it is then perhaps tried once more."""
        for again in range(400):
            await asyncio.sleep(self.chance.random() * 0.01)
            tried = Operation(session, name, time.monotonic())
            begin = Begin(
                key=_key(session),
                turn=f"{name}.{again}",
                turns=1,
                until=time.time() + LEASE if self.leased else None,
                idempotency_key=key,
                fingerprint="f" if key else None,
            )
            try:
                if await self._once(tried, begin):
                    return
            except StoreUnavailable:  # in time, on a machine that is busy: nothing was stored
                await asyncio.sleep(LEASE)
        raise AssertionError(f"{name} was never done")

    async def _once(self, tried: Operation, begin: Begin) -> bool:
        """One attempt; whether there is to be no other."""
        store, record, turn, keyed = self.store, self.record, begin.turn, begin.idempotency_key
        found = await store.begin(begin)
        if found.replay is not None:
            replay = found.replay
            record.attempt(turn, _done(tried, replay.turn.number, replay.turn.id, replay.session))
            return True
        if self.leased and (found.session_lease or found.key_lease):
            await store.release(begin)
            return False
        version = found.session.version if found.session else 0
        newest = found.turns[-1].id if found.turns else None
        record.observation(
            turn, Observation(tried.session, version, newest, tried.began, time.monotonic())
        )
        record.attempt(turn, tried)
        if self.chance.random() < 0.01:
            await asyncio.sleep(STALL)  # longer than it may keep the session
        commit = _commit(tried, version, begin)
        if self.chance.random() < 0.1:
            await self._lose_the_answer(commit, begin)
            return keyed is None
        try:
            await self._deliver(commit)
        except SessionConflict:
            record.attempt(turn, msgspec.structs.replace(tried, refused=True))
            return False
        except (CommitUnknown, StoreUnavailable):  # one of the deliveries may have been stored
            return keyed is None
        record.attempt(turn, _done(tried, version + 1, turn))
        return keyed is None or self.chance.random() < 0.7

    async def _deliver(self, commit: Commit) -> None:
        if self.chance.random() < 0.1:  # twice at the same time
            await asyncio.gather(self.store.commit(commit), self.store.commit(commit))
        else:
            await self.store.commit(commit)
        if self.chance.random() < 0.1:  # and again later
            await self.store.commit(commit)

    async def _lose_the_answer(self, commit: Commit, begin: Begin) -> None:
        """Cancelled at some moment."""
        task = asyncio.create_task(self.store.commit(commit))
        await asyncio.sleep(self.chance.random() * 0.004)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if self.leased:
            await self.store.release(begin)


def _done(tried: Operation, number: int, turn: str, session: str = "") -> Operation:
    return msgspec.structs.replace(
        tried,
        session=session or tried.session,
        number=number,
        turn=turn,
        ended=time.monotonic(),
    )


def _commit(tried: Operation, version: int, begin: Begin) -> Commit:
    return Commit(
        key=begin.key,
        expected_version=version,
        turn=TurnRecord(
            id=begin.turn,
            number=version + 1,
            created_at=1.0,
            agent="a",
            intent=None,
            messages=(UserMessage(tried.name), AssistantMessage("yes")),
            usage=Usage(),
        ),
        agent="a",
        state={},
        expires_at=FAR,
        idempotency_key=begin.idempotency_key,
        fingerprint=begin.fingerprint,
    )


async def stored(store: SessionStore) -> dict[str, tuple[TurnRecord, ...]]:
    """All turns of all sessions, oldest first."""
    found: dict[str, tuple[TurnRecord, ...]] = {}
    for session in SESSIONS:
        found[session] = (await store.load(_key(session), turns=100_000)).turns
    return found


class Store(Struct, frozen=True):
    """Where the processes write to."""

    kind: str
    location: str
    endpoint: str

    def make(self) -> SessionStore:
        return make_store(self.kind, self.location, self.endpoint)


def _write(store: Store, history: Path, writer: Writer) -> None:
    """What a process does."""

    async def run() -> None:
        async with opened(store.make()) as made:
            await writer.attack(made, Recorder(history))

    asyncio.run(run())


@pytest.mark.hypothesis
@pytest.mark.parametrize("leased", [True, False], ids=["leased", "optimistic"])
@pytest.mark.parametrize("kind", NAMES)
def test_processes_attack_few_sessions(
    kind: str, leased: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One process is killed in the middle and replaced by another."""
    endpoint = request.getfixturevalue("dynamodb") if kind == "dynamodb" else ""
    short, long = (8, 15) if kind == "dynamodb" else (40, 100) if leased else (80, 200)
    count = number_of_examples(short, long)
    store, history = Store(kind, new_location(kind), endpoint), tmp_path / "history"
    context = forking()

    def start(number: int) -> BaseProcess:
        writer = Writer(f"w{number}", count, leased, seed=number)
        process = context.Process(target=_write, args=(store, history, writer))
        process.start()
        return process

    processes = [start(number) for number in range(WRITERS)]
    victim = processes.pop()
    while not history.exists() or b'"w5.' not in history.read_bytes():
        assert victim.is_alive()
        time.sleep(0.01)
    time.sleep(random.random() * 0.2)
    victim.kill()
    processes.append(start(WRITERS))
    for process in (*processes, victim):
        process.join()
    assert [process.exitcode for process in processes] == [0] * WRITERS

    async def read() -> dict[str, tuple[TurnRecord, ...]]:
        async with opened(store.make()) as made:
            return await stored(made)

    operations, observations = read_history(history)
    assert violations(operations, asyncio.run(read()), observations) == []
    assert sum(each.number is not None for each in operations) >= count * WRITERS * 0.5
    shutil.rmtree(store.location, ignore_errors=True)


class _IgnoresVersions(SqliteStore):
    """Accepts a commit for any version: at another position than it reports."""

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


class _Overwrites(SqliteStore):
    """The later of two writers wins, as where a history is read, changed and written back."""

    async def commit(self, commit: Commit) -> None:
        try:
            await super().commit(commit)
        except SessionConflict:
            key = commit.key
            payload = msgspec.json.encode(commit.turn).decode()
            await self._writer.submit(
                lambda db: (
                    db.execute(
                        "UPDATE turns SET payload = ? WHERE (tenant, subject, session, number) "
                        "= (?, ?, ?, ?)",
                        (payload, key.tenant, key.subject, key.session, commit.turn.number),
                    ).rowcount
                )
            )


class _SaysYesToAll(SqliteStore):
    """Acknowledges what it refused."""

    async def commit(self, commit: Commit) -> None:
        try:
            await super().commit(commit)
        except SessionConflict:
            return


class _SaysNoToSome(SqliteStore):
    """Refuses one commit in ten that it has done; without a key it cannot be found again."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._commits = itertools.count(1)

    async def commit(self, commit: Commit) -> None:
        await super().commit(commit)
        if next(self._commits) % 10 == 0:
            raise SessionConflict("Another turn of this session was committed first.")


class _Forgets(SqliteStore):
    """Says yes to one commit in ten without doing it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._commits = itertools.count(1)

    async def commit(self, commit: Commit) -> None:
        if next(self._commits) % 10:
            await super().commit(commit)


class _RepeatsKeys(SqliteStore):
    """Knows no idempotency keys: a retried turn is a second one."""

    async def begin(self, begin: Begin) -> Snapshot:
        return await super().begin(
            msgspec.structs.replace(begin, idempotency_key=None, fingerprint=None)
        )

    async def commit(self, commit: Commit) -> None:
        await super().commit(
            msgspec.structs.replace(commit, idempotency_key=None, fingerprint=None)
        )


class _ReplaysAnother(SqliteStore):
    """Answers a retry with a number that is not its turn's."""

    async def begin(self, begin: Begin) -> Snapshot:
        found = await super().begin(begin)
        if found.replay is None:
            return found
        turn = msgspec.structs.replace(found.replay.turn, number=found.replay.turn.number + 1)
        return msgspec.structs.replace(
            found, replay=msgspec.structs.replace(found.replay, turn=turn)
        )


class _AppliesTwice(SqliteStore):
    """A commit that is delivered twice is two turns."""

    async def commit(self, commit: Commit) -> None:
        before = await self.load(commit.key, turns=1)
        if not before.turns or before.turns[-1].id != commit.turn.id:
            await super().commit(commit)
            return
        version = commit.expected_version + 1
        turn = msgspec.structs.replace(commit.turn, number=version + 1)
        again = msgspec.structs.replace(
            commit, expected_version=version, turn=turn, idempotency_key=None, fingerprint=None
        )
        await super().commit(again)


class _ReadsStale(SqliteStore):
    """Returns a session as it was at an earlier read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._seen: dict[str, tuple[Session | None, tuple[TurnRecord, ...]]] = {}
        self._begins = itertools.count(1)

    async def begin(self, begin: Begin) -> Snapshot:
        found = await super().begin(begin)
        old = self._seen.get(begin.key.session)
        if next(self._begins) % 5 or old is None:
            self._seen[begin.key.session] = (found.session, found.turns)
            return found
        return msgspec.structs.replace(found, session=old[0], turns=old[1])


BROKEN: tuple[tuple[Callable[[str], SqliteStore], str], ...] = (
    (_IgnoresVersions, "elsewhere"),
    (_Overwrites, "missing"),
    (_SaysYesToAll, "missing"),
    (_SaysNoToSome, "twice"),
    (_Forgets, "missing"),
    (_RepeatsKeys, "twice"),
    (_ReplaysAnother, "elsewhere"),
    (_AppliesTwice, "twice"),
    (_ReadsStale, "stale"),
)


def _attack_alone(store: SqliteStore, history: Path) -> list[str]:
    """What the checker has to say of a store that one process attacks."""

    async def run() -> list[str]:
        async with opened(store):
            record = Recorder(history)
            await Writer("w", 120, leased=False, seed=7).attack(store, record)
            record.close()
            operations, observations = read_history(history)
            return violations(operations, await stored(store), observations)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("broken", "kind"), BROKEN, ids=[each.__name__.strip("_") for each, _ in BROKEN]
)
def test_a_broken_store_is_caught(
    broken: Callable[[str], SqliteStore], kind: str, tmp_path: Path
) -> None:
    for attempt in range(5):  # chance decides whether the fault meets a call that shows it
        folder = tmp_path / str(attempt)
        folder.mkdir()
        found = _attack_alone(broken(str(folder / "sessions.db")), folder / "history")
        if any(each.startswith(kind) for each in found):
            return
    pytest.fail(f"{kind}: not found in five attacks; the last one found {found}")


def test_a_correct_store_has_no_violations(tmp_path: Path) -> None:
    assert _attack_alone(SqliteStore(tmp_path / "sessions.db"), tmp_path / "history") == []
