import asyncio

import pytest

from seawall.timers import Deadline, TimingWheel


def _in(seconds: float) -> Deadline:
    return Deadline(TimingWheel(0.005), asyncio.get_running_loop().time() + seconds)


async def test_a_block_is_cancelled_at_its_deadline() -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with _in(0.05):
            await asyncio.sleep(5)
    assert 0.05 <= asyncio.get_running_loop().time() - began < 4
    assert await asyncio.sleep(0.05, "the task lives on") == "the task lives on"


async def test_a_block_that_ends_in_time_is_not_affected() -> None:
    async with _in(0.03):
        await asyncio.sleep(0)
    await asyncio.sleep(0.06)
    with pytest.raises(KeyError):
        async with _in(0.03):
            raise KeyError


async def test_an_external_cancellation_is_not_a_timeout() -> None:
    async def wait() -> None:
        async with _in(5):
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nested_deadlines() -> None:
    with pytest.raises(TimeoutError):
        async with _in(0.03):
            try:
                async with _in(1):
                    await asyncio.sleep(5)
            except TimeoutError:
                pytest.fail("the inner one was not late")
    async with _in(1):
        with pytest.raises(TimeoutError):
            async with _in(0.03):
                await asyncio.sleep(5)


async def test_a_failing_callback_is_reported_and_the_others_are_called() -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    wheel = TimingWheel(0.005)
    made: list[int] = []

    def fail() -> None:
        raise ValueError("of the callback")

    wheel.call_at(loop.time(), lambda: made.append(1))
    wheel.call_at(loop.time(), fail)
    wheel.call_at(loop.time() + 0.03, lambda: made.append(2))
    await asyncio.sleep(0.1)
    wheel.call_at(loop.time(), lambda: made.append(3))
    await asyncio.sleep(0.1)
    assert made == [1, 2, 3]
    assert [type(each) for each in reported] == [ValueError]
