"""The gate with real tasks."""

import asyncio

import pytest

from seawall.admission.gate import Gate
from seawall.admission.queue import AdmissionLimits
from seawall.errors import Overloaded


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_the_bound_holds_and_everybody_gets_in() -> None:
    async def scenario() -> tuple[int, int]:
        gate = Gate(AdmissionLimits(in_flight=5, queued=100, wait_seconds=5.0))
        running = peak = done = 0

        async def turn() -> None:
            nonlocal running, peak, done
            async with gate.place(_now() + 5.0):
                running += 1
                peak = max(peak, running)
                await asyncio.sleep(0.002)
                running -= 1
                done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(turn())
        assert (gate.in_flight, gate.queued) == (0, 0)
        return peak, done

    assert asyncio.run(scenario()) == (5, 60)


def test_beyond_the_queue_the_refusal_is_immediate_and_counted() -> None:
    async def scenario() -> None:
        gate = Gate(AdmissionLimits(in_flight=1, queued=0, wait_seconds=5.0))
        async with gate.place(_now() + 5.0):
            with pytest.raises(Overloaded) as refused:
                gate.check()
            assert refused.value.retry_after is not None
            with pytest.raises(Overloaded):
                async with gate.place(_now() + 5.0):
                    pytest.fail("there is no room")
        gate.check()
        assert gate.refused == 2

    asyncio.run(scenario())


def test_waiting_ends_at_the_deadline_with_a_refusal() -> None:
    async def scenario() -> None:
        gate = Gate(AdmissionLimits(in_flight=1, queued=5, wait_seconds=5.0))
        async with gate.place(_now() + 5.0):
            with pytest.raises(Overloaded):
                async with gate.place(_now() + 0.02):
                    pytest.fail("there is no room")
            assert gate.queued == 0
        assert gate.in_flight == 0

    asyncio.run(scenario())


def test_who_is_cancelled_while_waiting_or_running_leaves_no_place_taken() -> None:
    async def scenario() -> None:
        gate = Gate(AdmissionLimits(in_flight=2, queued=50, wait_seconds=5.0))

        async def turn() -> None:
            async with gate.place(_now() + 5.0):
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(turn()) for _ in range(40)]
        for step in range(40):
            await asyncio.sleep(0.001)
            if step % 3:
                tasks[step].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.in_flight, gate.queued) == (0, 0)
        async with gate.place(_now() + 1.0):
            assert gate.in_flight == 1

    asyncio.run(scenario())
