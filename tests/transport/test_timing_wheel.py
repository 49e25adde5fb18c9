"""Timers: in order and never early, and an event loop that is not woken for nothing."""

import asyncio
import gc
import math
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from seawall.admission.gate import AdmissionGate, sample_load
from seawall.settings import AdmissionSettings
from seawall.timers import Timer, TimingWheel

TICK = 0.05


class Loop(asyncio.SelectorEventLoop):
    """An event loop of its own clock, which goes from one timer to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.wakes = 0
        self.blocked = 0.0  # for how long the next wait is late
        select = self._selector.select  # type: ignore[attr-defined]

        def advance(timeout: float | None) -> list[Any]:
            if timeout:
                self.wakes += 1
                # As in uvloop: whole milliseconds, and up to half of one too early.
                self.now += (round(timeout, 3) or 0.001) + self.blocked
                self.blocked = 0.0
            found: list[Any] = select(0)
            return found

        self._selector.select = advance  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


def nothing() -> None:
    """What a timer calls of which only the time matters."""


def run(scenario: Callable[[Loop], Any]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        runner.run(scenario(loop))


@pytest.mark.parametrize("measures_lag", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_timer_fires_once_in_its_tick(seed: int, measures_lag: bool) -> None:
    chance = random.Random(seed)

    async def scenario(loop: Loop) -> None:
        wheel = TimingWheel(TICK, measures_lag=measures_lag)
        late: list[float] = []
        pending: list[Timer] = []
        calls = cancelled = 0

        def schedule(depth: int) -> None:
            nonlocal calls
            calls += 1
            when = loop.now + chance.choice([-1.0, 0.0, 0.001, TICK, 0.03, 1.0, 20.0, 300.0])

            def fire() -> None:
                late.append(loop.now - max(when, set_at))
                pending.remove(timer)
                if depth and chance.random() < 0.5:
                    schedule(depth - 1)

            set_at = loop.now
            timer = wheel.call_at(when, fire)
            pending.append(timer)

        for _ in range(150):
            for _ in range(chance.choice([1, 1, 1, 1, 1, 300])):
                schedule(3)
            while pending and chance.random() < 0.4:
                timer = pending.pop(chance.randrange(len(pending)))
                timer.cancel()
                timer.cancel()
                cancelled += 1
            await asyncio.sleep(chance.choice([0.001, 0.01, 0.5, 50.0]))
        await asyncio.sleep(1_300)
        assert not pending
        assert len(late) == calls - cancelled
        assert min(late) >= 0
        assert max(late) <= 2 * TICK + 0.002  # a tick, and the loop's rounding

    run(scenario)


def test_cancelled_timers_do_not_wake_the_loop() -> None:
    async def scenario(loop: Loop) -> None:
        wheel = TimingWheel(TICK, measures_lag=True)
        for _ in range(1_000):
            wheel.call_at(loop.now + random.uniform(1, 600), nothing).cancel()
            await asyncio.sleep(0.001)
        loop.wakes = 0
        await asyncio.sleep(600)
        assert loop.wakes < 10 + 1 / TICK  # within a second they are removed

    run(scenario)


def test_a_far_timer_wakes_the_loop_once_and_a_nearer_one_comes_first() -> None:
    async def scenario(loop: Loop) -> None:
        wheel = TimingWheel(TICK)
        made: list[str] = []
        wheel.call_at(loop.now + 600, lambda: made.append("far"))
        await asyncio.sleep(100)
        wheel.call_at(loop.now + 10, lambda: made.append("near"))
        await asyncio.sleep(11)
        assert made == ["near"]
        await asyncio.sleep(500)
        assert made == ["near", "far"]
        assert loop.wakes < 20

    run(scenario)


def test_lag_is_measured_while_any_timer_is_pending() -> None:
    async def scenario(loop: Loop) -> None:
        wheel = TimingWheel(TICK, measures_lag=True)
        timer = wheel.call_at(loop.now + 600, nothing)
        await asyncio.sleep(1)
        loop.blocked = 0.7
        await asyncio.sleep(TICK)
        assert math.isclose(wheel.lag, 0.7, abs_tol=0.02)
        await asyncio.sleep(1)
        assert wheel.lag < 0.01
        loop.blocked = 0.7
        await asyncio.sleep(TICK)
        timer.cancel()
        await asyncio.sleep(5)
        wheel.call_at(loop.now + 1, nothing)
        assert wheel.lag == 0.0  # not the one of then

    run(scenario)


def test_measurements_wake_the_loop_ten_times_a_second_together() -> None:
    async def scenario(loop: Loop) -> None:
        wheel = TimingWheel(TICK, measures_lag=True)
        wheel.call_at(loop.now + 600, nothing)
        sampling = asyncio.create_task(sample_load(Busy(AdmissionSettings())))
        await asyncio.sleep(60)
        sampling.cancel()
        assert 600 <= loop.wakes < 605

    run(scenario)


class Busy(AdmissionGate):
    """A gate with turns in flight."""

    idle = False


async def test_the_owner_of_a_cancelled_timer_is_no_garbage_for_the_collector() -> None:
    class Owner:
        def __init__(self, wheel: TimingWheel) -> None:
            self.timer = wheel.call_at(asyncio.get_running_loop().time() + 60.0, self.expire)

        def expire(self) -> None:
            pytest.fail("it was cancelled")

    gc.disable()
    try:
        owner = Owner(TimingWheel())
        gone = weakref.ref(owner)
        owner.timer.cancel()
        del owner
        assert gone() is None
    finally:
        gc.enable()
