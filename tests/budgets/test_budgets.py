"""Budgets without servers: prices, calendar, overdraft of several processes, restarts."""

import asyncio
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.budgets import Spending
from seawall.budgets.budgets import Budgets, day_window, month_window, read_budgets
from seawall.errors import BudgetExhausted, StoreUnavailable
from seawall.settings import BudgetLimits, BudgetSettings, PriceSettings, cost_of
from seawall.storage.counters import MemoryCounters
from seawall.turn import Usage
from tests.budgets.test_quota import Shaky
from tests.properties import examples

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
HOUR = 3_600.0


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def daily(tokens: int, **tenants: BudgetLimits) -> BudgetSettings:
    return BudgetSettings(default=BudgetLimits(tokens_per_day=tokens), tenants=tenants)


async def spend(budgets: Budgets, tokens: int, *, cost: int = 0, tenant: str = "acme") -> None:
    """One whole turn with two model calls."""
    spending = Spending(budgets, metered=True)
    await spending.reserve(tenant)
    try:
        for part in (tokens // 3, tokens - tokens // 3):
            await asyncio.sleep(0)
            spending.charge("m", Usage(part, 0, 1), cost // 2, estimated=False)
    finally:
        spending.close()


async def used(counters: MemoryCounters, limits: BudgetSettings, tenant: str = "acme") -> float:
    states = await read_budgets(limits, counters, tenant, NOW)
    return states[0].used


def test_prices() -> None:
    price = PriceSettings(prompt=0.15, completion=0.6, cached_prompt=0.075)
    assert cost_of(Usage(1_000_000, 1_000_000), price) == 750_000_000
    assert cost_of(Usage(1_000, 0, 1, 400, 100), price) == 600 * 150 + 400 * 75
    assert cost_of(Usage(1, 0), PriceSettings(prompt=0.0004, completion=0)) == 0
    written = PriceSettings(prompt=3, completion=15, cached_prompt=0.3, cache_write=3.75)
    assert cost_of(Usage(1_000, 10, 1, 500, 200), written) == 300 * 3_000 + 500 * 300 + (
        200 * 3_750 + 10 * 15_000
    )


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 - made UTC below
def test_windows_are_calendar_days_and_months(naive: datetime) -> None:
    now = naive.replace(tzinfo=UTC).timestamp()
    for window, name in ((day_window(now), "%Y-%m-%d"), (month_window(now), "%Y-%m")):
        assert window.starts <= now < window.ends
        inside = [window.starts, now, window.ends - 1]
        assert {datetime.fromtimestamp(each, UTC).strftime(name) for each in inside} == {
            window.name
        }
        assert datetime.fromtimestamp(window.ends, UTC).strftime(name) != window.name


async def test_turns_are_refused_when_the_budget_is_used_up() -> None:
    clock = Clock()
    counters = Shaky(clock)
    limits = daily(100_000, other=BudgetLimits(tokens_per_day=1_000))
    budgets = Budgets(limits, counters, clock=clock)
    turns = 0
    with pytest.raises(BudgetExhausted) as caught:
        for _ in range(1_000):
            await spend(budgets, 400)
            turns += 1
    assert turns == 250
    assert caught.value.field == "budget.tokens_per_day"
    assert caught.value.retry_after == 12 * HOUR
    assert "2026-11-26T00:00:00Z" in str(caught.value)
    assert counters.calls / turns < 0.1
    asked = counters.calls
    for _ in range(50):  # refused turns cost nothing either
        with pytest.raises(BudgetExhausted):
            await spend(budgets, 400)
    assert counters.calls - asked <= 1
    await spend(budgets, 400, tenant="other")
    clock.now += 12 * HOUR
    await spend(budgets, 400)
    await budgets.close()


async def test_spending_survives_and_the_unspent_rest_is_returned() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    limits = daily(10_000)
    for _ in range(3):  # three lives of a server
        budgets = Budgets(limits, counters, clock=clock)
        await spend(budgets, 1_234)
        assert await used(counters, limits) > 1_234
        await budgets.close()
    assert await used(counters, limits) == 3 * 1_234


async def test_money_and_the_budget_that_renews_last() -> None:
    clock = Clock()
    limits = BudgetSettings(default=BudgetLimits(money_per_day=0.5, money_per_month=1.2))
    counters = MemoryCounters(clock)
    budgets = Budgets(limits, counters, highest_token_price=15_000, clock=clock)
    for day, (turns, field, hours) in enumerate([(5, "day", 12), (5, "day", 12), (2, "month", 84)]):
        clock.now = NOW + day * 24 * HOUR
        done = 0
        with pytest.raises(BudgetExhausted) as caught:
            for _ in range(20):
                await spend(budgets, 100, cost=100_000_000)
                done += 1
        assert (done, caught.value.field) == (turns, f"budget.money_per_{field}")
        assert caught.value.retry_after == hours * HOUR
    await budgets.close()
    states = await read_budgets(limits, counters, "acme", clock.now)
    assert [(each.budget, round(each.used, 9)) for each in states] == [
        ("money_per_day", 0.2),
        ("money_per_month", 1.2),
    ]


async def test_a_cancelled_turn_is_charged() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    budgets = Budgets(daily(10_000), counters, clock=clock)

    async def cut_off() -> None:
        spending = Spending(budgets, metered=True)
        await spending.reserve("acme")
        try:
            spending.charge("m", Usage(700, 77, 1), 0, estimated=True)
            await asyncio.Event().wait()
        finally:
            spending.close()

    task = asyncio.create_task(cut_off())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await budgets.close()
    assert await used(counters, daily(10_000)) == 777


async def test_a_tenant_without_a_limit_does_not_use_the_counter() -> None:
    counters = Shaky(Clock())
    limits = daily(0, free=BudgetLimits())
    budgets = Budgets(limits, counters)
    await spend(budgets, 10**9, tenant="free")
    assert counters.calls == 0
    with pytest.raises(BudgetExhausted):
        await spend(budgets, 1)
    await budgets.close()


async def test_without_the_counter_turns_spend_only_what_was_granted() -> None:
    clock = Clock()
    counters = Shaky(clock)
    budgets = Budgets(daily(10_000), counters, clock=clock)
    await spend(budgets, 1_000)
    counters.down = True
    with pytest.raises(StoreUnavailable):
        for _ in range(100):
            await spend(budgets, 1_000)
    counters.down = False
    clock.now += 2
    await spend(budgets, 1_000)
    await budgets.close()


async def test_idle_tenants_return_their_share() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    limits = daily(10_000)
    budgets = Budgets(limits, counters, clock=clock)
    await spend(budgets, 100)
    clock.now += 1_000
    await spend(budgets, 100, tenant="other")
    for _ in range(5):
        await asyncio.sleep(0)
    assert await used(counters, limits) == 100
    await budgets.close()


@examples(50, 1_000)
@given(
    pods=st.integers(1, 4),
    limit=st.integers(0, 30_000),
    turns=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3_000)), max_size=100),
    seed=st.integers(0, 2**32),
)
def test_the_overdraft_of_all_processes_is_bounded_and_counted(
    *, pods: int, limit: int, turns: list[tuple[int, int]], seed: int
) -> None:
    """For any interleaving: by at most the cost of the turns in flight per process."""
    chance = random.Random(seed)

    async def scenario() -> None:
        clock = Clock()
        counters = Shaky(clock, seed)
        limits = daily(limit)
        shared = [Budgets(limits, counters, clock=clock) for _ in range(pods)]
        spent = 0
        running = [0] * pods  # what the turns that run cost, by pod; and the most of it
        most = [0] * pods

        async def turn(pod: int, tokens: int) -> None:
            nonlocal spent
            spending = Spending(shared[pod], metered=True)
            try:
                await spending.reserve("acme")
            except BudgetExhausted:
                return
            running[pod] += tokens
            most[pod] = max(most[pod], running[pod])
            try:
                for _ in range(chance.randrange(8)):
                    await asyncio.sleep(0)
                spending.charge("m", Usage(tokens, 0, 1), 0, estimated=False)
                spent += tokens
            finally:
                running[pod] -= tokens
                spending.close()

        for half in (0, 1):
            async with asyncio.TaskGroup() as group:
                for pod, tokens in turns[half::2]:
                    group.create_task(turn(pod % pods, tokens))
        for budgets in shared:
            await budgets.close()
        assert spent <= limit + sum(most)
        assert await used(counters, limits) == spent

    asyncio.run(scenario())


async def test_a_reserved_rest_is_reported_as_such() -> None:
    clock = Clock()
    budgets = Budgets(daily(1_500), MemoryCounters(clock), clock=clock)
    running = [Spending(budgets) for _ in range(2)]
    for each in running:
        await each.reserve("acme")
    with pytest.raises(BudgetExhausted) as caught:
        await spend(budgets, 10)
    assert caught.value.retry_after == 5
    assert "reserved for" in str(caught.value)
    for each in running:
        each.close()
    await spend(budgets, 10)
    await budgets.close()
