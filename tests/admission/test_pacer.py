"""Start pacer, with an event loop in which the cost of a turn is known."""

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from seawall.admission.gate import AdmissionGate
from seawall.admission.queue import StartPacer
from seawall.settings import AdmissionSettings

TARGET = 0.01


def passes(pacing: StartPacer, count: int, *, each: float, other: float = 0.0) -> list[float]:
    """So many passes with more turns waiting than may begin; the time that each took.

    each: seconds that a turn's opening takes. other: that the rest of the pass does.
    """
    took: list[float] = []
    for _ in range(count):
        started = pacing.allowance
        took.append(other + started * each)
        pacing.record_pass(took[-1], started=started, limited=True, at=sum(took))
    return took


def test_a_pass_takes_about_its_target() -> None:
    pacing = StartPacer(TARGET)
    took = passes(pacing, 1_000, each=0.001)[100:]
    assert 0.5 * TARGET <= sum(took) / len(took) <= TARGET
    assert max(took) <= 1.2 * TARGET


def test_at_least_one_turn_starts_however_late_the_loop_is() -> None:
    pacing = StartPacer(TARGET)
    passes(pacing, 50, each=0.001, other=0.5)
    assert pacing.allowance == 1


def test_a_loop_that_becomes_free_is_used_soon() -> None:
    pacing = StartPacer(TARGET)
    passes(pacing, 50, each=0.001, other=0.5)
    passes(pacing, 40, each=0.0001)
    assert pacing.allowance > 30


def test_the_rate_is_measured_from_the_starts_of_turns() -> None:
    pacing = StartPacer(TARGET)
    at = sum(passes(pacing, 100, each=0.001))
    assert pacing.rate(at=at) == 0.0
    at = sum(passes(pacing, 1_000, each=0.001))
    assert 900 <= pacing.rate(at=at) <= 1_100


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 64), st.booleans())))
def test_some_turns_may_always_start_and_never_too_many(
    seen: list[tuple[float, int, bool]],
) -> None:
    pacing = StartPacer(TARGET)
    at = 0.0
    for took, started, limited in seen:
        at += took
        pacing.record_pass(took, started=started, limited=limited, at=at)
        assert 1 <= pacing.allowance <= 64
        assert pacing.rate(at=at) >= 0.0


async def test_a_burst_does_not_block_the_event_loop() -> None:
    """500 turns that each take 1 ms of the loop: other callbacks run between them."""

    async def scenario() -> tuple[int, int]:
        gate = AdmissionGate(AdmissionSettings(in_flight=1_000, queued=0))
        loop = asyncio.get_running_loop()
        done = rounds = 0

        async def turn() -> None:
            nonlocal done
            async with gate.slot("acme", background=False, deadline=loop.time() + 30.0):
                time.sleep(0.001)  # noqa: ASYNC251 - the work
                done += 1

        async def look() -> None:
            nonlocal rounds
            while done < 500:
                rounds += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            for _ in range(500):
                group.create_task(turn())
        assert (gate.in_flight, gate.queued, sum(gate.refused.values())) == (0, 0, 0)
        return done, rounds

    done, rounds = await scenario()
    assert done == 500
    assert rounds >= 500 / 64  # at the very least; without pacing it is three
