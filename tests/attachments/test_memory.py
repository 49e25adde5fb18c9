"""The share of memory for files: never exceeded, first come first served, never lost."""

import asyncio
import random

import pytest

from seawall.attachments.memory import MemoryShare
from seawall.errors import Overloaded


async def test_it_is_never_exceeded_and_never_lost() -> None:
    """Many tasks take, hold, give up and are cancelled, in an order that chance decides."""
    chance = random.Random(11)
    memory = MemoryShare(100)
    most = 0

    async def use(amount: int, seconds: float) -> None:
        nonlocal most
        try:
            async with memory.held(amount, seconds=seconds):
                most = max(most, memory.used)
                await asyncio.sleep(chance.random() / 500)
        except Overloaded:
            pass

    tasks = []
    for _ in range(400):
        tasks.append(asyncio.create_task(use(chance.randint(1, 120), chance.choice([0.001, 1.0]))))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 0 < most <= 100
    assert memory.used == 0
    async with memory.held(100, seconds=0.1):
        assert memory.used == 100


async def test_small_ones_do_not_overtake() -> None:
    memory = MemoryShare(10)
    order: list[str] = []

    async def use(name: str, amount: int) -> None:
        async with memory.held(amount, seconds=1):
            order.append(name)

    async with memory.held(6, seconds=1):
        tasks = [asyncio.create_task(use("large", 9))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(use("small", 1)))
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["large", "small"]


async def test_who_waits_too_long_or_in_too_long_a_queue_is_refused() -> None:
    memory = MemoryShare(10)
    async with memory.held(10, seconds=1):
        with pytest.raises(Overloaded):
            async with memory.held(1, seconds=0.01):
                pass
        waiting = [asyncio.create_task(memory.acquire(1, seconds=5)) for _ in range(256)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await memory.acquire(1, seconds=5)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert memory.used == 0
