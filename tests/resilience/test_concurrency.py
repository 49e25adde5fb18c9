"""Concurrency limiter: never over the limit, first come first served, no permit lost."""

import asyncio
import random

import pytest

from seawall.resilience import ConcurrencyLimiter


async def test_a_waiting_caller_gets_the_released_permit() -> None:
    limiter = ConcurrencyLimiter(1)
    assert limiter.try_acquire()
    assert not limiter.try_acquire()
    soon = asyncio.get_running_loop().time() + 5.0
    waiting = asyncio.create_task(limiter.acquire(soon))
    await asyncio.sleep(0)
    assert not limiter.try_acquire()
    limiter.release()
    assert await waiting
    assert limiter.in_flight == 1


async def test_acquire_times_out() -> None:
    limiter = ConcurrencyLimiter(1)
    assert limiter.try_acquire()
    assert not await limiter.acquire(asyncio.get_running_loop().time() + 0.01)
    assert (limiter.in_flight, limiter.waiting) == (1, 0)


async def test_a_higher_limit_admits_waiting_callers() -> None:
    limiter = ConcurrencyLimiter(1)
    assert limiter.try_acquire()
    soon = asyncio.get_running_loop().time() + 5.0
    waiting = [asyncio.create_task(limiter.acquire(soon)) for _ in range(3)]
    await asyncio.sleep(0)
    limiter.limit = 3
    limiter.admit_waiting()
    done, left = await asyncio.wait(waiting, timeout=0.05)
    assert (len(done), len(left), limiter.in_flight) == (2, 1, 3)
    for each in left:
        each.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert limiter.waiting == 0


async def test_no_permit_is_lost_or_issued_twice() -> None:
    chance = random.Random(7)
    limiter, highest = ConcurrencyLimiter(5), 0

    async def visit() -> None:
        nonlocal highest
        until = asyncio.get_running_loop().time() + chance.uniform(0.0, 0.02)
        if not limiter.try_acquire() and not await limiter.acquire(until):
            return
        highest = max(highest, limiter.in_flight)
        try:
            await asyncio.sleep(chance.uniform(0.0, 0.003))
        finally:
            limiter.release()

    tasks = [asyncio.create_task(visit()) for _ in range(300)]
    for task in tasks:
        if chance.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert highest <= 5
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


async def test_cancellation_at_the_moment_of_release_returns_the_permit() -> None:
    limiter = ConcurrencyLimiter(1)
    assert limiter.try_acquire()
    soon = asyncio.get_running_loop().time() + 5.0
    waiting = asyncio.create_task(limiter.acquire(soon))
    await asyncio.sleep(0)
    waiting.cancel()
    limiter.release()  # before the one that waits has heard that it is cancelled
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
