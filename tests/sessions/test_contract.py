"""What every session store must do; each adapter is run through all of it."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from seawall.errors import InvalidField, SessionConflict, SessionNotFound
from seawall.sessions.port import Commit, SessionStore, Snapshot
from seawall.sessions.sqlite import SqliteStore
from seawall.turn import AssistantMessage, Principal, SessionKey, TurnRecord, Usage, UserMessage

NOW = 1_700_000_000.0
KEY = SessionKey("acme", "ada", "s1")

Factory = Callable[[Path, Callable[[], float]], SessionStore]
STORES: dict[str, Factory] = {
    "sqlite": lambda folder, clock: SqliteStore(folder / "sessions.db", clock=clock),
}


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def commit(key: SessionKey, version: int, text: str = "hello", **changes: Any) -> Commit:
    turn = TurnRecord(
        id=f"t{version + 1}-{text}",
        number=version + 1,
        created_at=NOW,
        agent="a",
        intent=None,
        messages=(UserMessage(text), AssistantMessage(f"re: {text}")),
        usage=Usage(3, 4),
    )
    values: dict[str, Any] = {
        "key": key,
        "expected_version": version,
        "turn": turn,
        "agent": "a",
        "state": {"n": str(version)},
        "expires_at": NOW + 1_000,
    }
    return Commit(**(values | changes))


@asynccontextmanager
async def opened(
    name: str, folder: Path, clock: Callable[[], float]
) -> AsyncGenerator[SessionStore, None]:
    store = STORES[name](folder, clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


Scenario = Callable[[SessionStore, Clock], Any]


@pytest.fixture(params=sorted(STORES))
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    def run(scenario: Scenario) -> None:
        async def whole() -> None:
            clock = Clock()
            async with asyncio.timeout(60), opened(request.param, tmp_path, clock) as store:
                await scenario(store, clock)

        asyncio.run(whole())

    return run


Play = Callable[[Scenario], None]


def test_what_is_committed_is_loaded(play: Play) -> None:
    async def scenario(store: SessionStore, _: Clock) -> None:
        assert await store.load(KEY, turns=5) == Snapshot(None)
        for version in range(3):
            await store.commit(commit(KEY, version, f"text {version} \U0001f600 ü"))
        snapshot = await store.load(KEY, turns=2)
        assert snapshot.session is not None
        assert (snapshot.session.version, snapshot.session.state) == (3, {"n": "2"})
        assert [each.number for each in snapshot.turns] == [2, 3]
        assert snapshot.turns[1].messages[0] == UserMessage("text 2 \U0001f600 ü")
        assert snapshot.turns[1].usage == Usage(3, 4)

    play(scenario)


def test_the_second_of_two_is_refused_and_changes_nothing(play: Play) -> None:
    async def scenario(store: SessionStore, _: Clock) -> None:
        await store.commit(commit(KEY, 0))
        for stale in (commit(KEY, 0, "late"), commit(KEY, 5, "early")):
            with pytest.raises(SessionConflict):
                await store.commit(stale)
        results = await asyncio.gather(
            *(store.commit(commit(KEY, 1, f"r{number}")) for number in range(20)),
            return_exceptions=True,
        )
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, SessionConflict) for result in results) == 19
        snapshot = await store.load(KEY, turns=9)
        assert [each.number for each in snapshot.turns] == [1, 2]

    play(scenario)


def test_a_session_is_its_owners_only(play: Play) -> None:
    async def scenario(store: SessionStore, _: Clock) -> None:
        await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
        for other in (
            SessionKey("acme", "eve", "s1"),
            SessionKey("other", "ada", "s1"),
            SessionKey("acme", "ada", "s2"),
        ):
            found = await store.load(other, turns=5, idempotency_key="k")
            assert found.session is None
            assert (found.replay is None) == (other.subject != "ada" or other.tenant != "acme")
            with pytest.raises(SessionNotFound):
                await store.turns(other, limit=5)
            with pytest.raises(SessionNotFound):
                await store.delete(other)
        assert (await store.sessions(Principal("acme", "eve"), limit=5)).sessions == ()
        await store.commit(commit(SessionKey("acme", "eve", "s1"), 0, "hers"))
        assert (await store.load(KEY, turns=5)).turns[0].messages[0] == UserMessage("hello")

    play(scenario)


def test_an_idempotency_key_finds_its_turn_and_serves_once(play: Play) -> None:
    async def scenario(store: SessionStore, _: Clock) -> None:
        await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
        elsewhere = SessionKey("acme", "ada", "new")
        replay = (await store.load(elsewhere, turns=1, idempotency_key="k")).replay
        assert replay is not None
        assert (replay.session, replay.fingerprint, replay.turn.number) == ("s1", "f", 1)
        with pytest.raises(SessionConflict):
            await store.commit(commit(elsewhere, 0, idempotency_key="k", fingerprint="f"))
        assert (await store.load(elsewhere, turns=1)).session is None
        results = await asyncio.gather(
            *(
                store.commit(
                    commit(
                        SessionKey("acme", "ada", f"r{number}"),
                        0,
                        idempotency_key="one",
                        fingerprint="f",
                    )
                )
                for number in range(20)
            ),
            return_exceptions=True,
        )
        assert sum(result is None for result in results) == 1

    play(scenario)


def test_pages_cover_everything_once(play: Play) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        for number in range(7):
            clock.now = NOW + number // 2  # some are equally old
            await store.commit(commit(SessionKey("acme", "ada", f"s{number}"), 0))
        for version in range(1, 7):
            await store.commit(commit(SessionKey("acme", "ada", "s3"), version))
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await store.sessions(Principal("acme", "ada"), limit=3, cursor=cursor)
            seen += [each.key.session for each in page.sessions]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(seen) == [f"s{number}" for number in range(7)]
        numbers: list[int] = []
        while True:
            turns = await store.turns(SessionKey("acme", "ada", "s3"), limit=2, cursor=cursor)
            numbers += [each.number for each in turns.turns]
            cursor = turns.cursor
            if cursor is None:
                break
        assert numbers == [7, 6, 5, 4, 3, 2, 1]

    play(scenario)


@pytest.mark.parametrize("cursor", ["", "x", "ü", "bnVsbA==", "WzEsMl0=", "MQ==", "é" * 100])
def test_a_cursor_of_a_strangers_own(play: Play, cursor: str) -> None:
    async def scenario(store: SessionStore, _: Clock) -> None:
        await store.commit(commit(KEY, 0))
        with pytest.raises(InvalidField) as caught:
            await store.sessions(Principal("acme", "ada"), limit=3, cursor=cursor)
        assert caught.value.field == "cursor"

    play(scenario)


def test_expiry_and_deletion_leave_nothing(play: Play) -> None:
    async def scenario(store: SessionStore, clock: Clock) -> None:
        await store.commit(commit(KEY, 0, idempotency_key="k", fingerprint="f"))
        clock.now = NOW + 1_001
        gone = await store.load(KEY, turns=5, idempotency_key="k")
        assert (gone.session, gone.replay) == (None, None)
        assert (await store.sessions(Principal("acme", "ada"), limit=5)).sessions == ()
        renewed = commit(
            KEY, 0, "again", idempotency_key="k", fingerprint="g", expires_at=clock.now + 100
        )
        await store.commit(renewed)
        assert [each.id for each in (await store.load(KEY, turns=5)).turns] == ["t1-again"]
        await store.delete(KEY)
        assert await store.load(KEY, turns=5, idempotency_key="k") == Snapshot(None)
        await store.commit(commit(KEY, 0, expires_at=clock.now + 100))

    play(scenario)


def test_a_cancelled_commit_is_whole_or_absent(play: Play) -> None:
    async def scenario(store: SessionStore, _: Clock) -> None:
        async def try_one(number: int) -> None:
            task = asyncio.create_task(
                store.commit(
                    commit(
                        SessionKey("acme", "ada", f"c{number}"),
                        0,
                        idempotency_key=f"k{number}",
                        fingerprint="f",
                    )
                )
            )
            await asyncio.sleep(0.0002 * (number % 5))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(try_one(number) for number in range(50)))
        for number in range(50):
            found = await store.load(
                SessionKey("acme", "ada", f"c{number}"), turns=1, idempotency_key=f"k{number}"
            )
            assert (found.session is None) == (found.replay is None) == (not found.turns)

    play(scenario)


class _Model(RuleBasedStateMachine):
    """Any sequence of calls, checked against plain dictionaries."""

    name = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="seawall-contract-"))
        self.clock = Clock()
        self.sessions: dict[SessionKey, tuple[list[str], float]] = {}
        self.keys: dict[tuple[str, str], tuple[SessionKey, str]] = {}

    @initialize()
    def start(self) -> None:
        self.store = STORES[self.name](self.folder, self.clock)
        self.loop.run_until_complete(self.store.open())

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def _forget_expired(self) -> None:
        expired = [key for key, (_, expires) in self.sessions.items() if expires <= self.clock.now]
        for key in expired:
            self._forget(key)

    def _forget(self, key: SessionKey) -> None:
        del self.sessions[key]
        self.keys = {name: each for name, each in self.keys.items() if each[0] != key}

    keys_strategy = st.builds(
        SessionKey, st.just("acme"), st.sampled_from(["ada", "eve"]), st.sampled_from(["s", "t"])
    )

    @rule(
        key=keys_strategy,
        slip=st.sampled_from([0, 0, 0, 1, -1]),
        used=st.sampled_from([None, "k", "l"]),
        seconds=st.sampled_from([5.0, 50.0]),
    )
    def commits(self, key: SessionKey, slip: int, used: str | None, seconds: float) -> None:
        turns, _ = self.sessions.get(key, ([], 0.0))
        version = max(0, len(turns) + slip)
        taken = used is not None and (key.subject, used) in self.keys
        works = version == len(turns) and not taken
        text = f"{self.clock.now}"
        expires = self.clock.now + seconds
        call = self.store.commit(
            commit(
                key,
                version,
                text,
                idempotency_key=used,
                fingerprint="f" if used else None,
                expires_at=expires,
            )
        )
        if not works:
            with pytest.raises(SessionConflict):
                self.loop.run_until_complete(call)
            return
        self.loop.run_until_complete(call)
        turn = f"t{version + 1}-{text}"
        self.sessions[key] = ([*turns, turn], expires)
        if used is not None:
            self.keys[key.subject, used] = (key, turn)

    @rule(key=keys_strategy)
    def deletes(self, key: SessionKey) -> None:
        call = self.store.delete(key)
        if key in self.sessions:
            self.loop.run_until_complete(call)
            self._forget(key)
        else:
            with pytest.raises(SessionNotFound):
                self.loop.run_until_complete(call)

    @rule(seconds=st.sampled_from([1.0, 4.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self._forget_expired()

    @rule()
    def reopens(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.start()

    @invariant()
    def everything_is_there(self) -> None:
        if not hasattr(self, "store"):
            return
        for subject in ("ada", "eve"):
            for session in ("s", "t"):
                key = SessionKey("acme", subject, session)
                found = self.loop.run_until_complete(
                    self.store.load(key, turns=3, idempotency_key="k")
                )
                turns, _ = self.sessions.get(key, ([], 0.0))
                assert [each.id for each in found.turns] == turns[-3:]
                assert (found.session.version if found.session else 0) == len(turns)
                replay = self.keys.get((subject, "k"))
                stored = found.replay and (found.replay.session, found.replay.turn.id)
                assert stored == (replay and (replay[0].session, replay[1]))


@pytest.mark.parametrize("name", sorted(STORES))
def test_any_sequence_of_calls(name: str) -> None:
    machine: type[_Model] = type("Machine", (_Model,), {"name": name})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )
