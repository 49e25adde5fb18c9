"""Any sequence of calls: each store behaves like a model of plain dictionaries."""

import asyncio
import shutil
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

from seawall.errors import SessionConflict, SessionNotFound
from seawall.storage.port import Lease
from seawall.turn import SessionKey
from tests.properties import number_of_examples
from tests.storage.calls import Clock, begin, commit, look
from tests.storage.stores import NAMES, make_store, new_location
from tests.storage.test_journals import journal


class _Model(RuleBasedStateMachine):
    """Any sequence of calls, checked against plain dictionaries."""

    name = ""
    endpoint = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.location = new_location(self.name)
        self.clock = Clock()
        self.sessions: dict[SessionKey, tuple[list[str], float]] = {}
        self.keys: dict[tuple[str, str], tuple[SessionKey, str]] = {}
        self.leases: dict[SessionKey, tuple[str, float]] = {}
        self.claims: dict[tuple[str, str], tuple[str, str, float]] = {}
        self.turns = {"x": 0, "y": 0}  # turns committed by each runner
        self.journaled: dict[str, tuple[SessionKey, int, int]] = {}  # number and revision by turn

    @initialize()
    def start(self) -> None:
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.store = make_store(self.name, self.location, self.endpoint, self.clock)
        await self.store.open()

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        shutil.rmtree(self.location, ignore_errors=True)

    def _forget_expired(self) -> None:
        now = self.clock.now
        for key in [key for key, (_, expires) in self.sessions.items() if expires <= now]:
            self._forget(key)
        for key in [key for key, (_, until) in self.leases.items() if until <= now]:
            if key not in self.sessions:  # a name that was leased for a first turn
                del self.leases[key]

    def _forget(self, key: SessionKey) -> None:
        del self.sessions[key]
        self.leases.pop(key, None)
        self.keys = {name: each for name, each in self.keys.items() if each[0] != key}

    def _session_leased(self, key: SessionKey, turn: str) -> tuple[str, float] | None:
        """By another turn that is believed to be alive."""
        lease_owner = self.leases.get(key)
        return (
            lease_owner
            if lease_owner and lease_owner[0] != turn and lease_owner[1] > self.clock.now
            else None
        )

    def _key_held(self, name: tuple[str, str], turn: str) -> tuple[str, str, float] | None:
        claim = self.claims.get(name)
        return claim if claim and claim[0] != turn and claim[2] > self.clock.now else None

    keys_strategy = st.builds(
        SessionKey, st.just("acme"), st.sampled_from(["ada", "eve"]), st.sampled_from(["s", "t"])
    )
    runners = st.sampled_from(["x", "y"])

    @rule(
        key=keys_strategy,
        runner=runners,
        slip=st.sampled_from([0, 0, 0, 1, -1]),
        used=st.sampled_from([None, "k", "l"]),
        seconds=st.sampled_from([5.0, 50.0]),
    )
    def commits(
        self, key: SessionKey, runner: str, slip: int, used: str | None, seconds: float
    ) -> None:
        if f"{runner}{self.turns[runner]}" in self.journaled:
            self._give_up(runner)
        turns, _ = self.sessions.get(key, ([], 0.0))
        version = max(0, len(turns) + slip)
        turn = f"{runner}{self.turns[runner]}"
        name = (key.subject, used or "")
        works = (
            version == len(turns)
            and not self._session_leased(key, turn)
            and not (used and (name in self.keys or self._key_held(name, turn)))
        )
        expires = self.clock.now + seconds
        call = self.store.commit(
            commit(
                key,
                version,
                by=turn,
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
        self.turns[runner] += 1
        self.sessions[key] = ([*turns, turn], expires)
        self.leases.pop(key, None)
        if used is not None:
            self.keys[name] = (key, turn)
            self.claims.pop(name, None)

    @rule(
        key=keys_strategy,
        runner=runners,
        used=st.sampled_from([None, None, "k"]),
        lease=st.sampled_from([None, 2.0, 20.0]),
        seconds=st.sampled_from([5.0, 50.0]),
    )
    def journals(
        self, key: SessionKey, runner: str, used: str | None, lease: float | None, seconds: float
    ) -> None:
        turn = f"{runner}{self.turns[runner]}"
        name = (key.subject, used or "")
        fresh = turn not in self.journaled
        if fresh:
            turns, _ = self.sessions.get(key, ([], 0.0))
            number, revision = len(turns) + 1, 1
            taken = used and (name in self.keys or self._key_held(name, turn))
            works = not self._session_leased(key, turn) and not taken
        else:
            key, number, revision = self.journaled[turn]
            revision += 1
            turns, _ = self.sessions.get(key, ([], 0.0))
            owned = self.leases.get(key, ("", 0.0))[0] == turn
            works = owned and turns[number - 1 : number] == [turn]
        expires = self.clock.now + seconds
        until = self.clock.now + lease if lease is not None else None
        call = self.store.journal(
            journal(
                revision,
                turn,
                key=key,
                number=number,
                until=until,
                expires_at=expires,
                idempotency_key=used,
                fingerprint="f" if used else None,
            )
        )
        if not works:
            with pytest.raises(SessionConflict):
                self.loop.run_until_complete(call)
            if not fresh:
                self._give_up(runner)
            return
        self.loop.run_until_complete(call)
        self.sessions[key] = ([*turns, turn] if fresh else turns, expires)
        self.journaled[turn] = (key, number, revision)
        if fresh and used is not None:
            self.keys[name] = (key, turn)
            self.claims.pop(name, None)
        if until is not None:
            self.leases[key] = (turn, until)
        else:
            self.leases.pop(key, None)
            self._give_up(runner)

    def _give_up(self, runner: str) -> None:
        """The next turn of this runner is another one."""
        self.journaled.pop(f"{runner}{self.turns[runner]}", None)
        self.turns[runner] += 1

    @rule(
        key=keys_strategy,
        runner=runners,
        used=st.sampled_from([None, None, "k"]),
        opens=st.sampled_from([False, False, True]),
        seconds=st.sampled_from([2.0, 20.0]),
    )
    def begins(
        self, key: SessionKey, runner: str, used: str | None, opens: bool, seconds: float
    ) -> None:
        turn, until = f"{runner}{self.turns[runner]}", self.clock.now + seconds
        changes: dict[str, Any] = {"opens": opens, "until": until}
        if used is not None:
            changes["idempotency_key"] = used
        found = self.loop.run_until_complete(self.store.begin(begin(key, turn, **changes)))
        name = (key.subject, used or "")
        replay = self.keys.get(name) if used else None
        running = self._key_held(name, turn) if used and not replay else None
        assert (found.replay and found.replay.turn.id) == (replay and replay[1])
        assert (found.key_lease and found.key_lease.owner) == (running and running[0])
        busy = self._session_leased(key, turn)
        assert (found.session_lease and found.session_lease.owner) == (busy and busy[0])
        if replay or running:  # too late for its key, it also releases its session
            if self.leases.get(key, ("", 0.0))[0] == turn:
                del self.leases[key]
            return
        if used:
            self.claims[name] = (turn, key.session, until)
        if not busy and (opens or key in self.sessions or key in self.leases):
            self.leases[key] = (turn, until)

    @rule(key=keys_strategy, runner=runners, used=st.sampled_from([None, "k"]))
    def releases(self, key: SessionKey, runner: str, used: str | None) -> None:
        turn = f"{runner}{self.turns[runner]}"
        changes: dict[str, Any] = {"idempotency_key": used} if used else {}
        self.loop.run_until_complete(self.store.release(begin(key, turn, **changes)))
        if self.leases.get(key, ("", 0.0))[0] == turn:
            del self.leases[key]
        name = (key.subject, used or "")
        if self.claims.get(name, ("", "", 0.0))[0] == turn:
            del self.claims[name]

    @rule(key=keys_strategy, runner=runners, seconds=st.sampled_from([2.0, 20.0]))
    def renews(self, key: SessionKey, runner: str, seconds: float) -> None:
        turn, until = f"{runner}{self.turns[runner]}", self.clock.now + seconds
        exists = key in self.sessions or key in self.leases
        kept = not exists or self.leases.get(key, ("", 0.0))[0] == turn
        call = self.store.renew(begin(key, turn, until=until))
        assert self.loop.run_until_complete(call) == kept
        if exists and kept:
            self.leases[key] = (turn, until)

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
                found = self.loop.run_until_complete(look(self.store, key, 3, "k"))
                turns, _ = self.sessions.get(key, ([], 0.0))
                assert [each.id for each in found.turns] == turns[-3:]
                assert (found.session.version if found.session else 0) == len(turns)
                replay = self.keys.get((subject, "k"))
                stored = found.replay and (found.replay.session, found.replay.turn.id)
                assert stored == (replay and (replay[0].session, replay[1]))
                running = None if replay else self._key_held((subject, "k"), "reader")
                assert found.key_lease == (
                    running and Lease(running[0], running[1], running[2], "f")
                )
                busy = self._session_leased(key, "reader")
                assert found.session_lease == (busy and Lease(busy[0], session, busy[1]))


@pytest.mark.hypothesis
@pytest.mark.parametrize("name", NAMES)
def test_any_sequence_of_calls(name: str, request: pytest.FixtureRequest) -> None:
    endpoint = request.getfixturevalue("dynamodb") if name == "dynamodb" else ""
    machine: type[_Model] = type("Machine", (_Model,), {"name": name, "endpoint": endpoint})
    examples = number_of_examples(*((4, 200) if name == "dynamodb" else (15, 1_000)))
    # The same examples each time, so that results are reproducible.
    chosen = settings(
        max_examples=examples, stateful_step_count=20, deadline=None, derandomize=True
    )
    run_state_machine_as_test(machine, settings=chosen)
