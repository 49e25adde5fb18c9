"""Bursts at a real gate on a real event loop, whose clock is advanced instead of working."""

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.admission.gate import AdmissionGate
from seawall.errors import Overloaded
from seawall.settings import AdmissionSettings
from tests.properties import examples

Work = Callable[[float], None]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Call it to keep the event loop, or to let time pass, for so many seconds."""
    passed = 0.0
    real = time.monotonic

    def pass_time(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(time, "monotonic", lambda: real() + passed)
    return pass_time


async def crowd(gate: AdmissionGate, opening: list[float], work: Work) -> int:
    """As many turns at once; how many of them were refused. opening: seconds of the loop's time."""
    refused = 0

    async def turn(seconds: float) -> None:
        nonlocal refused
        deadline = asyncio.get_running_loop().time() + 1_000.0
        try:
            async with gate.slot("acme", background=False, deadline=deadline):
                work(seconds)
                await asyncio.sleep(0)
        except Overloaded:
            refused += 1

    async with asyncio.TaskGroup() as group:
        for seconds in opening:
            group.create_task(turn(seconds))
    assert (gate.in_flight, gate.queued) == (0, 0)
    return refused


async def test_a_burst_is_not_refused_for_the_rate_of_one_long_ago(work: Work) -> None:
    async def scenario() -> tuple[int, int]:
        gate = AdmissionGate(AdmissionSettings(in_flight=2_000))
        first = await crowd(gate, [0.02] * 400, work)
        work(60.0)
        return first, await crowd(gate, [0.0001] * 1_000, work)

    assert await scenario() == (0, 0)


async def test_a_pause_of_the_process_does_not_change_its_rate(work: Work) -> None:
    async def scenario() -> tuple[int, int]:
        gate = AdmissionGate(AdmissionSettings(in_flight=2_000))
        first = await crowd(gate, [0.0001] * 7 + [30.0], work)
        return first, await crowd(gate, [0.0001] * 1_000, work)

    assert await scenario() == (0, 0)


@pytest.mark.parametrize("wait_seconds", [0.0, 0.001])
async def test_a_turn_with_a_free_slot_may_wait_for_the_loop(
    work: Work, wait_seconds: float
) -> None:
    async def scenario() -> tuple[int, int]:
        gate = AdmissionGate(AdmissionSettings(in_flight=200, queued=0, wait_seconds=wait_seconds))
        return await crowd(gate, [0.0001] * 200, work), await crowd(gate, [0.001] * 201, work)

    assert await scenario() == (0, 1)


@examples(20, 1_000)
@given(
    st.lists(
        st.tuples(st.sampled_from(["come", "cancel", "end", "round", "limit"]), st.integers(0, 30)),
        max_size=60,
    )
)
def test_no_turn_is_stuck_and_no_slot_is_lost(  # noqa: C901 - a machine
    steps: list[tuple[str, int]],
) -> None:
    """Turns come, go, are cancelled, often in the same round; then all that are left get in."""

    async def scenario() -> None:  # noqa: C901
        gate = AdmissionGate(
            AdmissionSettings(in_flight=20, min_in_flight=1, queued=1_000, wait_seconds=600.0)
        )
        loop = asyncio.get_running_loop()
        active: list[asyncio.Event] = []
        tasks: list[asyncio.Task[None]] = []
        over = asyncio.Event()

        async def turn(number: int) -> None:
            end = asyncio.Event()
            tenant, background = f"t{number % 3}", number % 5 == 0
            async with gate.slot(tenant, background=background, deadline=loop.time() + 900.0):
                active.append(end)
                if not over.is_set():
                    await end.wait()

        for step, number in steps:
            if step == "come":
                tasks += [asyncio.create_task(turn(each)) for each in range(number)]
            elif step == "cancel" and tasks:
                for each in range(0, len(tasks), number + 1):
                    tasks[each].cancel()
            elif step == "end":
                for end in active[:number]:
                    end.set()
                del active[:number]
            elif step == "round":
                await asyncio.sleep(0)
            elif step == "limit":
                gate.sample(at=loop.time(), lag=0.0, memory=0)
            assert gate.in_flight <= 20
        over.set()
        for _ in range(3_000):
            if all(task.done() for task in tasks):
                break
            for end in active:
                end.set()
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the last round is over as well
        assert all(task.done() for task in tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        assert (gate.in_flight, gate.queued, gate.busy) == (0, 0, False)

    asyncio.run(scenario())
