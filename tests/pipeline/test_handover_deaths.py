"""A server dies around each write of a hand-over; every call is retried on another server."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import UNSET, structs

from seawall import Orchestrator
from seawall.errors import AlreadyDecided, StoreUnavailable, TurnNotFound
from seawall.events import TurnStarted
from seawall.pipeline.decisions import hand_back
from seawall.pipeline.handover import add_message
from seawall.settings import SessionSettings
from seawall.turn import ToolMessage
from tests.pipeline.conftest import PLACES
from tests.pipeline.shop import STAFF, Script, ask, stored, waits
from tests.pipeline.test_handover import ASK_PERSON, Receiver, desk, settled
from tests.properties import halved

WRITES = 8  # one that pauses, two messages, the hand-back, its claim, two that end; one never comes


class Death:
    """Cuts a server off from its store at one of its writes."""

    def __init__(self, app: Orchestrator, point: tuple[str, int]) -> None:
        self.happened = asyncio.Event()
        self.release = asyncio.Event()
        self._point = point
        self._count = 0
        store = app.engine.store
        for name in ("journal", "decide", "claim_job"):
            setattr(store, name, self._dying(getattr(store, name)))
        for name in ("begin", "renew", "release", "waits", "end_notification", "hand_over_job"):
            setattr(store, name, self._guarded(getattr(store, name)))

    def _guarded(self, method: Any) -> Any:
        async def call(*arguments: object, **named: object) -> object:
            if self.happened.is_set():
                raise StoreUnavailable("dead")
            return await method(*arguments, **named)

        return call

    def _dying(self, method: Any) -> Any:
        async def call(*arguments: object, **named: object) -> object:
            number = self._count
            self._count += 1
            await self._reach("before", number)
            result = await method(*arguments, **named)
            await self._reach("after", number)
            return result

        return call

    async def _reach(self, phase: str, number: int) -> None:
        """Die if this is the point; what is dead goes no further."""
        if (phase, number) == self._point:
            self.happened.set()
        if self.happened.is_set():
            await self.release.wait()
            raise StoreUnavailable("dead")


async def converse(app: Orchestrator) -> tuple[str, str]:
    """A whole hand-over, as its clients see it; all calls can be retried. Session and turn."""
    asked = await ask(app, "A person!", idempotency_key="k1")
    started = asked.events[0]
    assert isinstance(started, TurnStarted), asked.problem
    session, turn = started.session, started.turn
    ports = app.engine.pipeline.ports
    try:
        await add_message(ports, STAFF, session, turn, "Hello, I am Sam.", key="m1")
    except (AlreadyDecided, TurnNotFound):
        assert len(await stored(app, session)) == 3  # it was stored before
    silent = await ask(app, "It is broken.", session=session, idempotency_key="k2")
    assert silent.problem is None, silent.problem
    try:
        wait = await hand_back(ports, STAFF, session, turn, text="It is solved.")
    except TurnNotFound:
        assert (await stored(app, session))[0].status == "completed"  # it was taken before
        return session, turn
    live = await app.engine.pipeline.wake(wait)
    if live is not None:
        _ = [event async for _, event in live.follow()]
    return session, turn


@pytest.mark.parametrize(
    ("phase", "number", "place"),
    halved(("before", "after"), range(WRITES), PLACES),
    indirect=["place"],
)
async def test_a_hand_over_survives_the_death_of_its_server(
    place: SessionSettings, phase: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.pipeline.delivery._FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("seawall.pipeline.delivery._SENDING_SECONDS", 0.2)
    place = structs.replace(place, lease_seconds=0.4, orphan_scan_seconds=0.0)
    receiver, scripts = Receiver(), (Script((ASK_PERSON,)), Script((ASK_PERSON,)))
    async with (
        receiver.open() as url,
        desk(place, scripts[0], url, monkeypatch) as first,
        desk(place, scripts[1], url, monkeypatch) as second,
    ):
        pipeline = first.engine.pipeline  # which gives up soon when it cannot write
        limits = structs.replace(pipeline.ports.limits, commit=1.0)
        pipeline.ports = structs.replace(pipeline.ports, limits=limits)
        death = Death(first, (phase, number))
        running = asyncio.create_task(converse(first))
        dying = asyncio.create_task(death.happened.wait())
        await asyncio.wait((running, dying), return_when="FIRST_COMPLETED")
        assert death.happened.is_set() == (number < WRITES - 1)
        session, turn = await converse(second)
        assert second.engine.orphan_recovery is not None
        async with asyncio.timeout(30):
            while (await stored(second, session))[0].status != "completed":
                await asyncio.sleep(0.1)  # a server scans while its clients wait for the turn
                await second.engine.orphan_recovery.scan()
        await settled(second)
        await _check(second, session, turn, [*scripts[0].requests, *scripts[1].requests])
        await _check_notifications(second, receiver, turn)
        for task in (running, dying):
            task.cancel()
        death.release.set()
        await asyncio.wait((running, dying))


async def _check(app: Orchestrator, session: str, turn: str, requests: list[Any]) -> None:
    turns = await stored(app, session)
    assert [each.number for each in turns] == [1, 2, 3]
    assert [each.during for each in turns] == [UNSET, f"{turn}.1", f"{turn}.1"]
    assert [each.messages[0].text for each in turns] == [  # type: ignore[union-attr]
        "A person!",
        "Hello, I am Sam.",
        "It is broken.",
    ]
    assert turns[0].answer == "Done."
    results = [each for each in requests[-1].messages if isinstance(each, ToolMessage)]
    assert json.loads(results[0].content) == {
        "conversation": [
            {"from": "person", "text": "Hello, I am Sam."},
            {"from": "user", "text": "It is broken."},
        ],
        "result": "It is solved.",
    }
    audit = (await app.engine.store.audit(limit=20)).records
    assert [each.status for each in audit] == ["return", "done"]
    assert not await waits(app)


async def _check_notifications(app: Orchestrator, receiver: Receiver, turn: str) -> None:
    """Each arrives at least once, under one id; none is left."""
    recovery = app.engine.orphan_recovery
    assert recovery is not None
    await asyncio.sleep(0.3)  # those of the dead server are due
    await recovery.scan()
    await settled(app)
    await asyncio.sleep(0.3)
    assert await app.engine.store.due_notifications(limit=9) == ()
    message = (await stored(app, receiver.bodies[0]["session"]))[2].id
    arrived = {
        headers["webhook-id"]: json.loads(body)["type"] for headers, body in receiver.received
    }
    assert arrived == {
        f"{turn}.1": "handover.requested",
        message: "message.received",
        f"{turn}.1.ended": "handover.ended",
    }
