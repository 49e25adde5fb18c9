"""A server dies around every write and every effect; the retry ends the turn, each effect once."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from seawall import Orchestrator, ToolContext
from seawall.errors import StoreUnavailable
from seawall.events import Event, TurnResumed
from seawall.pipeline.replay import advance
from seawall.settings import SessionSettings
from seawall.turn import ToolCall
from tests.pipeline.conftest import PLACES
from tests.pipeline.shop import RefundService, Script, ask, refund, shop, stored, waits
from tests.properties import halved

QUICK = {"lease_seconds": 0.3}
STEPS = (
    (refund("o1", call="a"), ToolCall("b", "look_up", '{"order":"o1"}'), refund("o2", call="c")),
    (refund("o3", call="d"),),
)
WRITES = 7  # two steps before their effects, three outcomes, the answer, and one that never comes


class Death:
    """Cuts a server off from its store and its service at one point of its work."""

    def __init__(
        self, app: Orchestrator, service: RefundService, point: tuple[str, str, int]
    ) -> None:
        self.happened = asyncio.Event()
        self._point = point
        self._counts = {"journal": 0, "refund": 0}
        self._store = app.engine.store
        self._journal = self._store.journal
        for name in ("commit", "renew", "release", "begin"):
            setattr(self._store, name, self._guarded(getattr(self._store, name)))
        self._store.journal = self._write  # type: ignore[method-assign]
        self._refund = service.refund

    def _guarded(self, method: Any) -> Any:
        async def call(*arguments: object, **named: object) -> object:
            if self.happened.is_set():
                raise StoreUnavailable("dead")
            return await method(*arguments, **named)

        return call

    async def _write(self, write: Any) -> None:
        number = self._counts["journal"]
        self._counts["journal"] += 1
        await self.reach("before", "journal", number)
        await self._journal(write)
        await self.reach("after", "journal", number)

    async def reach(self, phase: str, what: str, number: int) -> None:
        """Die if this is the point; what is dead goes no further."""
        if (phase, what, number) == self._point:
            self.happened.set()
        if self.happened.is_set():
            await asyncio.Event().wait()

    async def refund(self, phase: str) -> None:
        """A refund is about to be made, or was made."""
        number = self._counts["refund"]
        self._counts["refund"] += phase == "after"
        await self.reach(phase, "refund", number)


WORK = [*(f"journal-{number}" for number in range(WRITES)), "refund-0", "refund-1", "refund-2"]


@pytest.mark.parametrize(
    ("phase", "work", "policy", "place"),
    halved(("before", "after"), WORK, ("keyed", "unkeyed"), PLACES),
    indirect=["place"],
)
async def test_a_turn_survives_the_death_of_its_server(
    place: SessionSettings, phase: str, work: str, policy: str
) -> None:
    what, _, number = work.partition("-")
    keyed = policy == "keyed"
    service = _Dying()
    retry: dict[str, Any] = {"retry": "key"} if keyed else {}
    async with (
        shop(place, Script(*STEPS), service, sessions=QUICK, **retry) as first,
        shop(place, Script(*_reworded()), service, sessions=QUICK, **retry) as second,
    ):
        pipeline = first.engine.pipeline  # which gives up soon when it cannot write
        limits = msgspec.structs.replace(pipeline.ports.limits, commit=1.0)
        pipeline.ports = msgspec.structs.replace(pipeline.ports, limits=limits)
        service.death = death = Death(first, service, (phase, what, int(number)))
        running = asyncio.create_task(ask(first, idempotency_key="k"))
        dying = asyncio.create_task(death.happened.wait())
        await asyncio.wait((running, dying), return_when="FIRST_COMPLETED")
        service.death = None
        retried = await ask(second, idempotency_key="k")
        _check(service, retried.problem, keyed=keyed)
        if retried.problem is None:
            await _check_events(second, retried.events)
        else:
            assert {each.kind for each in await waits(second)} == {"unknown"}
        for task in (running, dying):
            task.cancel()
        service.release.set()
        await asyncio.wait((running, dying))


class _Dying(RefundService):
    """A service whose caller may die; it keeps idempotency keys."""

    def __init__(self) -> None:
        super().__init__()
        self.death: Death | None = None
        self.release = asyncio.Event()
        self.keys: set[str] = set()

    async def refund(
        self,
        order: str,
        amount: float,
        context: ToolContext,
        reason: str = "",  # noqa: ARG002 - what models word differently
    ) -> str:
        """Refund an order."""
        death = self.death
        self.calls.append((order, amount, context.idempotency_key))
        if death is not None:
            await self._or_release(death.refund("before"))
        if context.idempotency_key not in self.keys:
            self.done.append(order)
        self.keys.add(context.idempotency_key)
        if death is not None:
            await self._or_release(death.refund("after"))
        return f"refunded {order} {amount:g}"

    async def _or_release(self, reached: Any) -> None:
        """Wait for the point, unless the test is over."""
        tasks = [asyncio.ensure_future(reached), asyncio.ensure_future(self.release.wait())]
        await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        for each in tasks:
            each.cancel()


def _reworded() -> tuple[tuple[ToolCall, ...], ...]:
    """The same calls as the model words them the second time."""

    def other(call: ToolCall) -> ToolCall:
        arguments = json.loads(call.arguments)
        if call.name == "refund":
            arguments = {"reason": "again", "amount": 5.0, "order": arguments["order"]}
        return ToolCall(f"{call.id}2", call.name, json.dumps(arguments))

    return tuple(tuple(reversed([other(each) for each in step])) for step in STEPS)


def _check(service: RefundService, problem: Any, *, keyed: bool) -> None:
    assert len(service.done) == len(set(service.done))
    if problem is None:
        assert sorted(service.done) == ["o1", "o2", "o3"]
    else:
        assert not keyed, problem.as_dict()
        assert problem.code == "effect-unknown"
        assert len(service.calls) == len(service.done) + (len(service.calls) > len(service.done))


async def _check_events(app: Orchestrator, events: list[Event]) -> None:
    """A replay has the same events, and positions only grow."""
    again = await ask(app, idempotency_key="k")
    assert again.events[:-1] == events[:-1]
    position = 0
    for event in events:
        following = advance(position, event)
        assert following > position
        if isinstance(event, TurnResumed):
            assert event.after == position
        position = following
    session = events[0].session  # type: ignore[union-attr]
    (turn,) = await stored(app, session)
    assert turn.status == "completed"
