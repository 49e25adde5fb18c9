"""Quotas of provider accounts: reservations that never exceed them, and the calls that wait."""

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.budgets.quota import CallSize, Quota, QuotaPermit
from seawall.budgets.refill import Refill
from seawall.budgets.reservation import Average, Reservations, rule_of
from seawall.budgets.shared_limit import Allotment
from seawall.errors import QuotaExhausted, StoreUnavailable, UpstreamRefused
from seawall.settings import QuotaSettings
from seawall.storage.counters import Addition, Count, MemoryCounters
from seawall.turn import Usage
from tests.properties import examples

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


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(500):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


def tokens(permit: QuotaPermit) -> int:
    return permit.reserved["tokens"]


def settle_in_part(quota: Quota, permit: QuotaPermit, most: int, chance: random.Random) -> int:
    """Settle with a usage within the reservation, or none; what is returned."""
    if chance.random() < 0.2:
        quota.settle(permit, None)
        return 0
    usage = Usage(chance.randint(1, tokens(permit) - most), chance.randint(0, most), 1)
    quota.settle(permit, usage)
    return tokens(permit) - usage.prompt_tokens - usage.completion_tokens


@examples(20, 1_000)
@given(
    pods=st.integers(1, 4),
    requests=st.integers(5, 60),
    limit=st.integers(800, 20_000),
    calls=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 900), st.integers(1, 500)), max_size=80
    ),
    windows=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_reservations_never_exceed_the_limit_in_any_window(
    *,
    pods: int,
    requests: int,
    limit: int,
    calls: list[tuple[int, int, int]],
    windows: bool,
    seed: int,
) -> None:
    """Whatever the order of calls, of returns, and of the answers of the counter."""
    chance = random.Random(seed)
    limits = QuotaSettings(
        requests_per_minute=requests,
        tokens_per_minute=limit,
        refill="window" if windows else "continuous",
    )

    async def scenario() -> None:
        clock = Clock()
        counters = Shaky(clock, seed)
        quotas = [Quota("q", limits, counters, clock=clock) for _ in range(pods)]
        spent: list[tuple[float, int, int]] = []  # when, requests, tokens; negative: returned

        async def call(quota: Quota, size: int, most: int) -> None:
            with suppress(QuotaExhausted, UpstreamRefused):
                permit = await quota.acquire(CallSize(size, most), soon(0.52))
                spent.append((clock.now, 1, tokens(permit)))
                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)
                returned = settle_in_part(quota, permit, most, chance)
                if not windows or permit.window == int(clock.now / 60):
                    spent.append((clock.now, 0, -returned))

        for batch in range(3):
            async with asyncio.TaskGroup() as group:
                for pod, size, most in calls[batch::3]:
                    group.create_task(call(quotas[pod % pods], size, most))
            clock.now += chance.choice([1.0, 31.0, 61.0])
        for quota in quotas:
            await quota.close()
        # What one of several processes holds is not in the bucket when that overflows.
        held = 0.0 if pods == 1 else pods / 4
        check_windows([(at, number) for at, number, _ in spent], requests, held, windows=windows)
        check_windows([(at, amount) for at, _, amount in spent], limit, held, windows=windows)

    asyncio.run(scenario())


def check_windows(
    spent: list[tuple[float, int]], limit: int, held: float, *, windows: bool
) -> None:
    """In any interval not more than the limit a minute, and what was there at its beginning."""
    times = sorted({at for at, _ in spent})
    for start, end in ((a, b) for a in times for b in times if a <= b):
        within = sum(amount for at, amount in spent if start <= at <= end)
        minutes = int(end / 60) - int(start / 60) if windows else (end - start) / 60
        assert within <= limit * (1 + minutes + held) + 1


@given(
    per_minute=st.integers(1, 10**11),
    seconds=st.floats(0.1, 60.0),
    windows=st.booleans(),
    now=st.floats(1.7e9, 1.9e9),
    more=st.integers(0, 10**9),
)
def test_a_refill_says_from_when_on_an_amount_is_allowed(
    *, per_minute: int, seconds: float, windows: bool, now: float, more: int
) -> None:
    capacity = max(1, int(per_minute * seconds / 60))
    if windows and per_minute * seconds < 60:
        seconds, capacity = 60.0, per_minute
    refill = Refill(per_minute, capacity, seconds if windows else 0.0)
    assert refill.floor(now) + capacity == refill.allowed(now) < 2**63
    total = refill.allowed(now) + more
    at = refill.allowed_at(total)
    assert refill.allowed(at + 0.002) >= total
    if more:
        assert refill.allowed(at - 0.002 - seconds * windows) < total + per_minute / 10_000
    later = refill.allowed(now + 60)
    assert later - refill.allowed(now) <= per_minute * (1 + seconds / 60) + 1


async def test_one_busy_process_can_use_the_quota_with_few_requests() -> None:
    clock = Clock()
    counters = Shaky(clock)
    idle = Quota("q", ONE_MINUTE, counters, clock=clock)
    await idle.acquire(CallSize(90, 50), soon())
    busy = Quota("q", ONE_MINUTE, counters, clock=clock)
    counters.calls = made = 0
    with pytest.raises(QuotaExhausted):
        for _ in range(2_000):
            await busy.acquire(CallSize(90, 50), soon(1.0))
            made += 1
    assert made >= 850  # an eighth is in the block of the other
    assert counters.calls / made < 0.15
    await busy.close()
    await idle.close()


async def test_many_processes_hold_back_nothing_that_they_do_not_need() -> None:
    """Each makes one call, as environments of Lambda do, and returns its unused part at once."""
    clock = Clock()
    counters = Shaky(clock)
    limits = QuotaSettings(tokens_per_minute=20_000)
    quotas = [Quota("q", limits, counters, clock=clock) for _ in range(60)]
    for quota in quotas:
        permit = await quota.acquire(CallSize(30, 900), soon(3.0))
        quota.settle(permit, Usage(10, 40, 1))
        await asyncio.sleep(0.01)
    for quota in quotas:
        await quota.close()


async def test_within_a_block_the_counter_is_not_asked() -> None:
    clock = Clock()
    counters = Shaky(clock)
    quota = Quota("q", ONE_MINUTE, counters, clock=clock)
    await quota.acquire(CallSize(10, 10), soon())
    asked = counters.calls
    for _ in range(10):
        with pytest.raises(StopIteration):  # it is done without waiting even once
            quota.acquire(CallSize(10, 10), soon()).send(None)
    assert counters.calls == asked
    await quota.close()


async def test_a_call_reserves_its_bound_and_the_unused_part_goes_to_who_waits() -> None:
    clock = Clock()
    limits = QuotaSettings(tokens_per_minute=1_000)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    first = await quota.acquire(CallSize(291, 900), soon())
    assert tokens(first) == 1_000  # a third of the bytes, and the bound
    waiting = asyncio.create_task(quota.acquire(CallSize(30, 300), soon(300)))
    last = asyncio.create_task(quota.acquire(CallSize(30, 300), soon(300)))
    await until(lambda: quota.waiting == 2)
    quota.settle(first, Usage(90, 400, 1))  # 490 of 1,000
    assert 310 <= tokens(await waiting) <= 320
    await asyncio.sleep(0.1)
    assert not last.done()
    last.cancel()
    await asyncio.wait([last])
    assert quota.waiting == 0
    await quota.close()


async def test_a_waiting_call_is_admitted_as_the_quota_refills() -> None:
    limits = QuotaSettings(requests_per_minute=1_200, window_seconds=0.25)  # 5, then 20 a second
    quota = Quota("q", limits, MemoryCounters())
    clock = asyncio.get_running_loop().time
    began = clock()
    admitted: list[float] = []

    async def call() -> None:
        await quota.acquire(CallSize(1, 1), soon(10))
        admitted.append(clock() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call())
    assert admitted == sorted(admitted)
    assert 0.55 <= admitted[-1] <= 2.5  # 15 calls at 20 a second
    for index, at in enumerate(admitted):
        assert index + 1 <= 5 + at * 20 + 1
    await quota.close()


async def test_calls_are_admitted_in_order_of_arrival_and_tenants_in_turn() -> None:
    clock = Clock()
    limits = QuotaSettings(tokens_per_minute=1_000)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    first = await quota.acquire(CallSize(0, 990), soon(), tenant="greedy")
    order: list[str] = []

    async def call(name: str) -> None:
        permit = await quota.acquire(CallSize(0, 98), soon(600), tenant=name[0])
        order.append(name)
        quota.cancel(permit)

    async with asyncio.TaskGroup() as group:
        for name in ("g1", "g2", "g3", "g4", "a1", "a2", "b1"):
            group.create_task(call(name))
            await asyncio.sleep(0)
        await until(lambda: quota.waiting == 7)
        quota.cancel(first)
    by_tenant = {each: [name for name in order if name[0] == each] for each in "gab"}
    assert by_tenant == {"g": ["g1", "g2", "g3", "g4"], "a": ["a1", "a2"], "b": ["b1"]}
    assert order.index("b1") < 4, "a tenant with many calls does not starve the others"
    await quota.close()


async def test_a_large_call_is_not_overtaken_for_ever() -> None:
    limits = QuotaSettings(tokens_per_minute=60_000, window_seconds=1.0)  # 1,000 a second
    quota = Quota("q", limits, MemoryCounters())
    await quota.acquire(CallSize(0, 990), soon())
    done = asyncio.Event()

    async def large() -> None:
        await quota.acquire(CallSize(0, 990), soon(20), tenant="large")
        done.set()

    async def small() -> None:
        while not done.is_set():
            quota.cancel(await quota.acquire(CallSize(0, 10), soon(20), tenant="small"))

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(large())
        await asyncio.sleep(0.01)
        for _ in range(3):
            group.create_task(small())
    await quota.close()


async def test_a_call_that_cannot_be_admitted_in_time_is_refused_at_once() -> None:
    clock = Clock()
    limits = QuotaSettings(requests_per_minute=2)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    for _ in range(2):
        await quota.acquire(CallSize(1, 1), soon())
    began = asyncio.get_running_loop().time()
    with pytest.raises(QuotaExhausted) as caught:
        await quota.acquire(CallSize(1, 1), soon(20))
    assert asyncio.get_running_loop().time() - began < 1.0
    assert caught.value.status == 429
    assert 30 <= (caught.value.retry_after or 0) <= 36  # one flows in every thirty seconds
    waiting = [asyncio.create_task(quota.acquire(CallSize(1, 1), soon(90))) for _ in range(2)]
    await until(lambda: quota.waiting == 2)
    with pytest.raises(QuotaExhausted) as caught:
        quota.check(CallSize(1, 1), soon(80))
    assert 90 <= (caught.value.retry_after or 0) <= 108
    quota.check(CallSize(1, 1), soon(100))
    assert quota.refused == 2
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    await quota.close()


async def test_a_call_whose_time_runs_out_in_the_queue_is_refused() -> None:
    limits = QuotaSettings(requests_per_minute=60, window_seconds=1.0, queued=1)
    clock = Clock()
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    await quota.acquire(CallSize(1, 1), soon())
    waiting = asyncio.create_task(quota.acquire(CallSize(1, 1), soon(1.6)))  # time stands still
    await until(lambda: quota.waiting == 1)
    with pytest.raises(QuotaExhausted):  # the queue is bounded
        await quota.acquire(CallSize(1, 1), soon(60))
    with pytest.raises(QuotaExhausted):
        await waiting
    assert quota.waiting == 0
    await quota.close()


async def test_what_cannot_ever_be_admitted_is_refused_for_good() -> None:
    quota = Quota("q", ONE_MINUTE, MemoryCounters())
    with pytest.raises(UpstreamRefused, match="lower limit of completion tokens"):
        await quota.acquire(CallSize(1, 200_000), soon())
    permit = await quota.acquire(CallSize(1_000_000, 1_000), soon())  # by an estimate only
    assert tokens(permit) == 100_000
    await quota.close()


@examples(20, 1_000)
@given(
    calls=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=25),
    seed=st.integers(0, 2**32),
)
def test_everything_is_returned_whoever_is_cancelled_when(
    calls: list[tuple[int, bool]], seed: int
) -> None:
    chance = random.Random(seed)

    async def scenario() -> None:
        clock = Clock()
        quota = Quota("q", QuotaSettings(tokens_per_minute=1_000), Shaky(clock, seed), clock=clock)

        async def call(tenant: int) -> None:
            permit = await quota.acquire(CallSize(0, 299), soon(500), tenant=str(tenant))
            try:
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
            finally:
                quota.cancel(permit)

        tasks = []
        for tenant, cancelled in calls:
            task = asyncio.create_task(call(tenant))
            tasks.append(task)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if cancelled:
                chance.choice(tasks).cancel()
        await asyncio.wait(tasks, timeout=20)
        assert all(task.done() for task in tasks)
        assert quota.waiting == 0
        whole = await quota.acquire(CallSize(0, 999), soon())  # nothing is missing
        assert tokens(whole) == 1_000
        await quota.close()

    asyncio.run(scenario())


async def test_a_refusal_of_the_provider_pauses_all_and_costs_its_reservation() -> None:
    quota = Quota("q", ONE_MINUTE, MemoryCounters())
    permit = await quota.acquire(CallSize(0, 20_000), soon())
    quota.record_throttled(permit, 0.3)
    assert quota.throttled == 1
    assert quota.try_acquire(CallSize(0, 10)) is None
    began = asyncio.get_running_loop().time()
    again, other = await asyncio.gather(
        quota.acquire(CallSize(0, 20_000), soon(), again=True),
        quota.acquire(CallSize(0, 10_000), soon()),
    )
    assert asyncio.get_running_loop().time() - began >= 0.3
    assert again.at <= other.at
    with pytest.raises(QuotaExhausted):  # 50,010 are used, and 20,000 were never there
        await quota.acquire(CallSize(0, 55_000), soon(2))
    await quota.close()


async def test_the_rest_that_a_provider_reports_corrects_the_picture() -> None:
    quota = Quota("q", ONE_MINUTE, MemoryCounters())
    await quota.acquire(CallSize(0, 10), soon())
    quota.view.observe({}, {"tokens": 99_000, "requests": 990})  # as expected, nearly
    assert quota.try_acquire(CallSize(0, 10)) is not None
    quota.view.observe({"tokens": 100_000}, {"tokens": 20_000})  # others use the account
    with pytest.raises(QuotaExhausted):
        await quota.acquire(CallSize(0, 60_000), soon(1.0))
    await quota.close()


async def test_position_and_wait_are_reported_as_they_change() -> None:
    limits = QuotaSettings(requests_per_minute=120, window_seconds=0.5)  # two a second
    quota = Quota("q", limits, MemoryCounters())
    heard: list[list[tuple[int, float]]] = [[] for _ in range(6)]

    async def call(index: int) -> None:
        async def report(position: int, seconds: float) -> None:
            heard[index].append((position, seconds))

        await quota.acquire(CallSize(1, 1), soon(20), report=report)

    async with asyncio.TaskGroup() as group:
        for index in range(6):
            group.create_task(call(index))
    assert not heard[0]
    assert len(heard[5]) >= 2
    positions = [position for position, _ in heard[5]]
    assert positions == sorted(positions, reverse=True)
    assert all(seconds > 0 for _, seconds in heard[5])
    assert max(map(len, heard)) <= 5, "at most one a second"
    await quota.close()


async def test_without_the_counter_each_process_has_its_static_share() -> None:
    clock = Clock()
    counters = Shaky(clock)
    counters.down = True
    limits = QuotaSettings(requests_per_minute=100, pods=4)
    quotas = [Quota("q", limits, counters, clock=clock) for _ in range(4)]
    made = [0, 0, 0, 0]
    for index, quota in enumerate(quotas):
        with pytest.raises(QuotaExhausted):
            for _ in range(1_000):
                await quota.acquire(CallSize(1, 1), soon(0.6))
                made[index] += 1
        assert quota.on_static_share
    assert made == [25] * 4
    counters.down = False
    clock.now += 60
    for quota in quotas:
        await quota.acquire(CallSize(1, 1), soon())
    waiting = [asyncio.create_task(each.acquire(CallSize(1, 30), soon(90))) for each in quotas]
    await asyncio.wait(waiting, timeout=1)
    for quota, task in zip(quotas, waiting, strict=True):
        task.cancel()
        await quota.close()


@pytest.mark.parametrize(
    ("kinds", "rule"),
    [
        (["bedrock"], "input+max_tokens"),
        (["openai", "responses"], "larger"),
        (["anthropic"], "usage"),
        (["openai", "bedrock"], "input+max_tokens"),
    ],
)
def test_the_rule_is_that_of_the_models_kind(kinds: list[str], rule: str) -> None:
    assert rule_of(QuotaSettings(), kinds) == rule
    assert rule_of(QuotaSettings(reserve="usage"), kinds) == "usage"


def test_bedrocks_worked_example() -> None:
    """https://github.com/aws/agent-toolkit-for-aws, quota-health.md: 2 M a minute, 500 of input."""
    rule = Reservations(QuotaSettings(), "input+max_tokens")
    for bound, calls in ((1_000, 1_333), (64_000, 31)):
        assert 2_000_000 // rule.reserve(1_455, bound)["tokens"] == calls


def test_output_counts_several_fold_and_cached_input_not_at_all() -> None:
    rule = Reservations(QuotaSettings(burndown=5), "input+max_tokens")
    used = rule.used(Usage(1_000, 100, 1, cached_prompt_tokens=800))
    assert used == {"requests": 1, "tokens": 700, "input_tokens": 200, "output_tokens": 100}
    kept = Reservations(QuotaSettings(), "larger")
    assert kept.reserve(3_000, 2_000)["tokens"] == 2_000
    assert kept.used(Usage(900, 100, 1)) is None
    azure = Reservations(QuotaSettings(returned="nothing"), "input+max_tokens")
    assert azure.reserve(2_911, 2_000)["tokens"] == 3_000
    assert azure.used(Usage(900, 100, 1)) is None


@given(
    ratio=st.floats(0.1, 0.9),
    sizes=st.lists(st.integers(200, 20_000), min_size=60, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_the_estimate_of_a_prompt_learns_to_be_slightly_too_large(
    ratio: float, sizes: list[int], seed: int
) -> None:
    chance = random.Random(seed)
    rule = Reservations(QuotaSettings(), "usage")
    short, excess = 0, []
    for index, size in enumerate(sizes):
        really = max(1, round(size * ratio * chance.uniform(0.9, 1.1)))
        guess = rule.input_tokens(size)
        if index >= 20:
            short += guess < really
            excess.append(guess / really)
        rule.learn(size, Usage(really, 50, 1))
    assert short <= 2
    assert math.fsum(excess) / len(excess) < 1.45


def test_an_average_follows_and_knows_its_spread() -> None:
    average = Average(256.0)
    for _ in range(100):
        average.add(40.0)
    assert (average.mean, average.deviation) == (40.0, 0.0)
    for index in range(200):
        average.add(40.0 + 10 * (-1) ** index)
    assert 8 <= average.deviation <= 11
    assert 38 <= average.mean <= 42


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
