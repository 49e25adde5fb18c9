"""Quota shared by processes: never exceeded together, nearly all usable by one alone."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.budgets.quota import Quota, QuotaPermit
from seawall.budgets.shared_limit import Allotment
from seawall.errors import DeadlineExceeded, StoreUnavailable, UpstreamThrottled
from seawall.settings import QuotaSettings
from seawall.storage.counters import Addition, Count, MemoryCounters

NOW = 3_600_000.0
ONE_MINUTE = QuotaSettings(requests_per_minute=1_000, tokens_per_minute=100_000)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Shaky(MemoryCounters):
    """Counters that answer after a random number of rounds of the event loop, or fail."""

    def __init__(self, clock: Callable[[], float], seed: int = 0) -> None:
        super().__init__(clock)
        self._chance = random.Random(seed)
        self.calls = 0
        self.down = False
        self.lost = 0.0

    async def add(self, addition: Addition) -> Count:
        self.calls += 1
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("It is down.")
        counted = await super().add(addition)
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        if self._chance.random() < self.lost:
            raise StoreUnavailable("The answer is lost.")
        return counted


def soon() -> float:
    return asyncio.get_running_loop().time() + 5.0


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(500):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


@settings(max_examples=150, deadline=None)
@given(
    pods=st.integers(1, 6),
    requests=st.integers(1, 60),
    tokens=st.integers(50, 20_000),
    calls=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 400), st.integers(0, 700)), max_size=120
    ),
    lost=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**32),
)
def test_processes_never_exceed_the_quota_together(
    *,
    pods: int,
    requests: int,
    tokens: int,
    calls: list[tuple[int, int, int]],
    lost: float,
    seed: int,
) -> None:
    """For any order of calls, and of answers of the counter that arrive late or are lost."""
    limits = QuotaSettings(requests_per_minute=requests, tokens_per_minute=tokens, pods=pods)
    chance = random.Random(seed)

    async def scenario() -> None:
        clock = Clock()
        counters = Shaky(clock, seed)
        counters.lost = lost
        quotas = [Quota("q", limits, counters, clock=clock) for _ in range(pods)]
        made: Counter[str] = Counter()
        used: Counter[str] = Counter()

        async def call(quota: Quota, prompt: int, most: int) -> None:
            try:
                taken = await quota.acquire(prompt, most, soon())
            except UpstreamThrottled:
                return
            made[taken.window] += 1
            used[taken.window] += taken.tokens
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            if chance.random() < 0.9:  # else the usage stays unknown
                really = chance.randint(0, taken.tokens)
                used[taken.window] += really - taken.tokens
                quota.settle(taken, tokens=really)

        for batch in range(3):
            async with asyncio.TaskGroup() as group:
                for pod, prompt, most in calls[batch::3]:
                    group.create_task(call(quotas[pod % pods], prompt, most))
            clock.now += chance.choice([1.0, 31.0, 61.0])
        for quota in quotas:
            await quota.close()
        # Without the counter each process goes by its static share, whatever others took.
        bound = 2 if lost else 1
        assert max(made.values(), default=0) <= requests * bound
        assert max(used.values(), default=0) <= tokens * bound

    asyncio.run(scenario())


async def test_one_busy_process_can_use_the_quota_with_few_requests() -> None:
    clock = Clock()
    counters = Shaky(clock)
    idle = Quota("q", ONE_MINUTE, counters, clock=clock)
    await idle.acquire(50, 50, soon())
    busy = Quota("q", ONE_MINUTE, counters, clock=clock)
    for _ in range(2):
        counters.calls = made = 0
        with pytest.raises(UpstreamThrottled):
            for _ in range(2_000):
                await busy.acquire(50, 50, soon())
                made += 1
        assert made >= 900
        assert counters.calls / made < 0.05
        clock.now += 60


async def test_within_a_block_the_counter_is_not_asked() -> None:
    clock = Clock()
    counters = Shaky(clock)
    quota = Quota("q", ONE_MINUTE, counters, clock=clock)
    await quota.acquire(10, 10, soon())
    asked = counters.calls
    for _ in range(10):
        with pytest.raises(StopIteration):  # it is done without waiting even once
            quota.acquire(10, 10, soon()).send(None)
    assert counters.calls == asked


async def test_unused_tokens_go_to_waiting_calls() -> None:
    clock = Clock()
    limits = QuotaSettings(tokens_per_minute=1_000)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    first = await quota.acquire(900, 100, soon())
    assert first.tokens == 1_000
    late = asyncio.get_running_loop().time() + 300
    waiting = asyncio.create_task(quota.acquire(500, 10, late))
    last = asyncio.create_task(quota.acquire(500, 10, late))
    await until(lambda: quota.waiting == 2)
    quota.settle(first, tokens=300)
    assert (await waiting).tokens == 510
    assert not last.done()
    last.cancel()
    await asyncio.wait([last])
    assert quota.waiting == 0


async def test_a_call_waits_for_the_next_window_within_its_deadline() -> None:
    limits = QuotaSettings(requests_per_minute=600, window_seconds=0.5)  # 5 a window
    quota = Quota("q", limits, MemoryCounters())
    taken: list[QuotaPermit] = []
    deadline = asyncio.get_running_loop().time() + 10
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(quota.acquire(1, 1, deadline)) for _ in range(12)]
    taken = [task.result() for task in tasks]
    by_window = Counter(each.window for each in taken)
    assert max(by_window.values()) <= 5
    assert len(by_window) >= 3


async def test_a_call_that_would_be_late_gets_a_retry_after() -> None:
    clock = Clock()
    clock.now = NOW + 20
    limits = QuotaSettings(requests_per_minute=2)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    for _ in range(2):
        await quota.acquire(1, 1, soon())
    with pytest.raises(UpstreamThrottled) as caught:
        await quota.acquire(1, 1, soon())
    assert caught.value.retry_after == 40
    later = asyncio.get_running_loop().time() + 90
    waiting = [asyncio.create_task(quota.acquire(1, 1, later)) for _ in range(2)]
    await until(lambda: quota.waiting == 2)
    with pytest.raises(UpstreamThrottled) as caught:  # waiting calls fill the next window already
        await quota.acquire(1, 1, later)
    assert caught.value.retry_after == 100
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_without_the_counter_each_process_has_its_static_share() -> None:
    clock = Clock()
    counters = Shaky(clock)
    counters.down = True
    limits = QuotaSettings(requests_per_minute=100, pods=4)
    quotas = [Quota("q", limits, counters, clock=clock) for _ in range(4)]
    made = Counter[int]()
    for index, quota in enumerate(quotas):
        with pytest.raises(UpstreamThrottled):
            for _ in range(1_000):
                await quota.acquire(1, 1, soon())
                made[index] += 1
    assert made == dict.fromkeys(range(4), 25)
    clock.now += 60
    counters.down = False
    for quota in quotas:
        await quota.acquire(1, 1, soon())
        await asyncio.sleep(0.01)
        assert not quota.on_static_share
        await quota.close()


async def test_the_number_of_processes_is_learned_from_the_counter() -> None:
    clock = Clock()
    counters = Shaky(clock)
    limits = QuotaSettings(requests_per_minute=100)
    quotas = [Quota("q", limits, counters, clock=clock) for _ in range(5)]
    for _ in range(2):
        for quota in quotas:
            await quota.acquire(1, 1, soon())
        clock.now += 60
    counters.down = True
    made = 0
    with pytest.raises(UpstreamThrottled):
        for _ in range(1_000):
            await quotas[-1].acquire(1, 1, soon())
            made += 1
    assert made == 20


async def test_the_average_answer_is_learned() -> None:
    quota = Quota("q", ONE_MINUTE, MemoryCounters())
    for _ in range(200):
        permit = await quota.acquire(10, 4_000, soon())
        quota.settle(permit, tokens=50, completion_tokens=40)
    assert 40 <= quota.estimate(0, 4_000) <= 45
    assert quota.estimate(0, 16) == 16
    with pytest.raises(DeadlineExceeded):
        await quota.acquire(1, 1, asyncio.get_running_loop().time() - 1)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 3)), max_size=60))
def test_an_allotment_asks_for_what_is_missing_within_bounds(
    steps: list[tuple[int, int]],
) -> None:
    part = Allotment(10_000)
    used = 0
    for need, others in steps:
        used = min(10_000, used + others * 100)
        block = part.block(need)
        assert (block == 0) == (part.free >= need)
        assert block >= need - part.free
        granted = min(block, 10_000 - used)
        used += granted
        part.grant(granted, used)
        if part.free >= need:
            part.spend(need)
    assert 0 <= part.spent <= part.granted <= 10_000
