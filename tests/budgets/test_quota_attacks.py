"""What could make a quota unfair, or stop it: floods, wrong clocks, stores, reports, refusals."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.admission.queue import FairQueue, Ticket
from seawall.budgets import open_metering
from seawall.budgets.quota import CallSize, Quota, QuotaPermit
from seawall.budgets.reservation import Reservations
from seawall.config import parse_settings
from seawall.errors import (
    ConfigError,
    Problem,
    QuotaExhausted,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
)
from seawall.models import Finish, ModelEvent, ModelRequest, Prompt, Text, prompt_bytes
from seawall.models.resilient import ResilientModel
from seawall.models.scripted import ScriptedModel
from seawall.models.upstream import Upstream
from seawall.settings import QuotaSettings, ResilienceSettings
from seawall.storage.counters import Addition, Count, MemoryCounters
from seawall.timers import TimingWheel
from seawall.turn import Image, ToolMessage, Usage, UserMessage
from tests.budgets.test_quota import Clock, Shaky, soon, tokens, until

HOUR = 3_600.0
SMALL = CallSize(0, 10)
REQUEST = ModelRequest(Prompt("Help."), (UserMessage("hello"),), 100)


async def wait_once(quota: Quota) -> None:
    """A call waits for a moment, so that the shared counter is asked."""
    task = asyncio.create_task(quota.acquire(SMALL, soon(30)))
    await asyncio.wait([task], timeout=0.15)
    task.cancel()
    await asyncio.wait([task])


async def drained(quota: Quota, size: CallSize = SMALL) -> int:
    """How many calls are admitted that do not wait for more than the store."""
    made = 0
    try:
        while True:
            await quota.acquire(size, soon(0.6))
            made += 1
    except QuotaExhausted:
        return made


async def test_calls_that_the_provider_refused_come_back_in_their_order() -> None:
    clock = Clock()
    limits = QuotaSettings(requests_per_minute=1_000, tokens_per_minute=100_000)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    refused = [await quota.acquire(SMALL, soon()) for _ in range(5)]
    for permit in refused:
        quota.record_throttled(permit, 0.2)
    order: list[str] = []

    async def call(name: str, *, again: bool) -> None:
        await quota.acquire(SMALL, soon(), again=again)
        order.append(name)

    names = ["new", *(f"back{number}" for number in range(5))]
    await asyncio.gather(*(call(each, again=each != "new") for each in names))
    assert [each for each in order if each != "new"] == names[1:]
    assert order.index("new") >= 3
    await quota.close()


async def test_refusals_of_one_moment_are_one_refusal() -> None:
    """Else a second's pause is a minute's after six of them, which were in flight together."""
    quota = Quota("q", QuotaSettings(requests_per_minute=6_000), MemoryCounters())
    permits = [await quota.acquire(SMALL, soon()) for _ in range(50)]
    for permit in permits:
        quota.record_throttled(permit, None)
    with pytest.raises(QuotaExhausted) as caught:
        quota.check(SMALL, soon(0.6))
    assert 1.0 <= (caught.value.retry_after or 0.0) <= 1.4
    await quota.close()


async def test_a_provider_that_refuses_without_a_pause_is_not_called_at_once_for_ever() -> None:
    quota = Quota("q", QuotaSettings(requests_per_minute=6_000), MemoryCounters())
    for _ in range(2):
        quota.record_throttled(await quota.acquire(SMALL, soon()), 0.0)
    with pytest.raises(QuotaExhausted):
        quota.check(SMALL, soon(0.6))
    await quota.close()


async def test_one_tenant_cannot_fill_the_queue() -> None:
    """Others neither expect to wait for all of its calls, nor find the queue full."""
    clock = Clock()
    limits = QuotaSettings(requests_per_minute=60, queued=30)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    first = await quota.acquire(SMALL, soon(), tenant="greedy")
    assert await drained(quota) == 59
    flood = [
        asyncio.create_task(quota.acquire(SMALL, soon(100), tenant="greedy")) for _ in range(30)
    ]
    await until(lambda: quota.waiting == 30)
    with pytest.raises(QuotaExhausted):
        await quota.acquire(SMALL, soon(100), tenant="greedy")
    quota.check(SMALL, soon(10), tenant="small")
    other = asyncio.create_task(quota.acquire(SMALL, soon(10), tenant="small"))
    await until(flood[-1].done)
    assert isinstance(flood[-1].exception(), QuotaExhausted)
    assert quota.waiting == 30
    quota.cancel(first)
    await asyncio.wait([other, *flood], timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
    clock.now += 2.0
    quota.cancel(await other)
    for task in flood:
        task.cancel()
    await asyncio.wait(flood)
    assert quota.waiting == 0
    await quota.close()


async def test_the_head_of_the_queue_is_served_when_it_changes() -> None:
    """A tenant that comes later and goes first does not wait for what the head before needs."""
    clock = Clock()
    quota = Quota("q", QuotaSettings(tokens_per_minute=1_000), MemoryCounters(clock), clock=clock)
    await quota.acquire(CallSize(0, 599), soon(), tenant="large")
    large = asyncio.create_task(quota.acquire(CallSize(0, 899), soon(90), tenant="large"))
    await until(lambda: quota.waiting == 1)
    await asyncio.sleep(0.1)
    async with asyncio.timeout(1.0):
        await quota.acquire(CallSize(0, 99), soon(10), tenant="small")
    large.cancel()
    await asyncio.wait([large])
    await quota.close()


async def test_a_crowd_that_comes_at_once_is_not_sorted_for_each_who_comes() -> None:
    clock = Clock()
    quota = Quota("q", QuotaSettings(requests_per_minute=60), MemoryCounters(clock), clock=clock)
    await drained(quota)
    heard: list[int] = []
    sorts = 0
    order = FairQueue.order

    def counted(queue: FairQueue) -> dict[Ticket, int]:
        nonlocal sorts
        sorts += 1
        return order(queue)

    async def report(position: int, seconds: float) -> None:
        assert seconds > 0
        heard.append(position)

    with patch.object(FairQueue, "order", counted):
        began = time.monotonic()
        tasks = [
            asyncio.create_task(
                quota.acquire(SMALL, soon(900), tenant=f"t{number % 7}", report=report)
            )
            for number in range(600)
        ]
        await until(lambda: len(heard) >= 600)
        assert sorts <= 2 + (time.monotonic() - began) / 0.4
    assert 590 <= max(heard) <= 600
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await quota.close()


async def test_long_calls_do_not_make_a_quota_look_used_up() -> None:
    """What is missing here is only a reading of the counter away."""
    clock = Clock()
    quota = Quota("q", QuotaSettings(requests_per_minute=900), MemoryCounters(clock), clock=clock)
    permit = await quota.acquire(SMALL, soon())
    permit.at -= 30.0
    quota.settle(permit, Usage(1, 1, 1))
    while quota.try_acquire(SMALL) is not None:
        pass
    quota.check(SMALL, soon(5))
    await quota.acquire(SMALL, soon(5))
    await quota.close()


async def test_a_server_whose_clock_is_wrong_stops_no_other() -> None:
    ours, theirs = Clock(), Clock()
    theirs.now += HOUR
    counters = MemoryCounters(ours)
    limits = QuotaSettings(requests_per_minute=100, pods=2)
    right = Quota("q", limits, counters, clock=ours)
    wrong = Quota("q", limits, counters, clock=theirs)
    await right.acquire(SMALL, soon())
    await wrong.acquire(SMALL, soon())
    await drained(right)
    await wait_once(right)
    for each in (ours, theirs):
        each.now += 60.0
    assert await drained(right) == 50, "its static share"
    assert right.on_static_share
    for each in (ours, theirs):
        each.now += HOUR
    await wait_once(right)
    assert not right.on_static_share
    assert await drained(right) > 50
    await right.close()
    await wrong.close()


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("refill", ["continuous", "window"])
async def test_a_clock_that_is_set_back_stops_nothing(*, down: bool, refill: str) -> None:
    clock = Clock()
    counters = Shaky(clock)
    counters.down = down
    window = QuotaSettings(requests_per_minute=100, refill="window")
    limits = window if refill == "window" else QuotaSettings(requests_per_minute=100)
    quota = Quota("q", limits, counters, clock=clock)
    clock.now += 60.0
    assert await drained(quota) > 0
    clock.now -= HOUR
    counters.down = False
    assert await drained(quota) <= 100
    await wait_once(quota)
    clock.now += 60.0
    assert 50 <= await drained(quota) <= 100
    await quota.close()


async def test_after_an_outage_of_the_store_nothing_is_owed_for_all_of_it() -> None:
    clock = Clock()
    counters = Shaky(clock)
    quota = Quota("q", QuotaSettings(requests_per_minute=100), counters, clock=clock)
    await quota.acquire(SMALL, soon())
    counters.down = True
    for _ in range(10):
        clock.now += 60.0
        await drained(quota)
    assert quota.on_static_share
    counters.down = False
    clock.now += 60.0
    await asyncio.sleep(0.1)
    await quota.acquire(SMALL, soon())  # there is enough, and the counter is asked nevertheless
    await until(lambda: not quota.on_static_share)
    clock.now += 60.0
    assert await drained(quota) >= 90
    await quota.close()


async def test_a_defect_of_the_store_leaves_nobody_waiting() -> None:
    class Broken(MemoryCounters):
        async def add(self, addition: Addition) -> Count:
            raise OverflowError(addition.counter)

    quota = Quota("q", QuotaSettings(requests_per_minute=100), Broken())
    async with asyncio.timeout(2.0):
        await quota.acquire(SMALL, soon(5))
    assert quota.on_static_share
    await quota.close()


async def test_no_report_of_usage_stops_a_quota_for_longer_than_it_needs_to_fill() -> None:
    clock = Clock()
    quota = Quota("q", QuotaSettings(tokens_per_minute=10_000), MemoryCounters(clock), clock=clock)
    for _ in range(3):
        permit = await quota.acquire(CallSize(30, 90), soon())
        quota.settle(permit, Usage(10**9, 10**9, 1))
        clock.now += 121.0
    again = await quota.acquire(CallSize(30, 90), soon())
    assert tokens(again) <= 30 + 1 + 90, "nor is a prompt longer in tokens than in bytes"
    await quota.close()


async def test_what_all_servers_see_is_not_deducted_by_each() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    limits = QuotaSettings(tokens_per_minute=100_000, pods=8)
    quotas = [Quota("q", limits, counters, clock=clock) for _ in range(8)]
    for quota in quotas:
        await quota.acquire(CallSize(0, 9), soon())
        quota.view.observe({}, {"tokens": 50_000})  # others use the account
    made = await asyncio.gather(*(drained(quota, CallSize(0, 99)) for quota in quotas))
    assert 30_000 <= 100 * sum(made) <= 90_000
    for quota in quotas:
        await quota.close()


def test_limits_that_differ_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limits = QuotaSettings(requests_per_minute=10, tokens_per_minute=1_000)
    quota = Quota("q", limits, MemoryCounters(clock), clock=clock)
    for number in range(50):
        quota.view.observe({"tokens": 500 + number % 2, "requests": 5}, {})
    assert len(caplog.messages) == 2
    clock.now += HOUR
    quota.view.observe({"tokens": 300, "requests": 5}, {})
    assert len(caplog.messages) == 3


def test_images_count_and_do_not_spoil_the_estimate_of_text() -> None:
    prompt = Prompt("Help.")
    plain = ToolMessage("c", "look", "a picture", failed=False)
    seen = ToolMessage("c", "look", "a picture", failed=False, images=(Image("image/png", "eA=="),))
    text, picture = (
        prompt_bytes(ModelRequest(prompt, (UserMessage("hello"), each), 100))
        for each in (plain, seen)
    )
    assert picture - text >= 4_500, "1,500 tokens, at three bytes each"
    rule = Reservations(QuotaSettings(), "usage")
    for _ in range(20):
        rule.learn(300, Usage(100, 10, 1))
    rule.learn(10, Usage(100_000, 10, 1))
    assert rule.input_tokens(300) < 200


async def test_a_quota_without_a_limit_is_none() -> None:
    configured = parse_settings(
        '[models.default]\nbase_url = "http://localhost/v1"\nmodel = "m"\nquota = "account"\n'
        "[quotas.account]\ntokens_per_minute = 0\n"
        '[agents.shop]\ninstructions = "Help."\n'
    )

    async def counters() -> MemoryCounters:
        raise AssertionError("no counter is needed")

    assert (await open_metering(configured, counters)).quotas == {}


def test_an_agent_is_not_rejected_for_a_window_that_is_lengthened() -> None:
    """In ten seconds there would be less than one request, so that the window is a minute."""
    text = (
        '[models.default]\nbase_url = "http://localhost/v1"\nmodel = "m"\nquota = "account"\n'
        '[quotas.account]\nrefill = "window"\nwindow_seconds = 10\ntokens_per_minute = 6000\n'
        '{requests}\n[agents.shop]\ninstructions = "Help."\n'
    )
    parse_settings(text.format(requests="requests_per_minute = 3"))
    with pytest.raises(ConfigError, match="never has more than 1,000"):
        parse_settings(text.format(requests="requests_per_minute = 30"))


async def test_a_fallback_that_can_never_take_a_call_is_no_reason_to_give_up() -> None:
    clock = Clock()
    own, small = (
        Quota(
            f"of {tokens}",
            QuotaSettings(tokens_per_minute=tokens),
            MemoryCounters(clock),
            rule="larger",
            clock=clock,
        )
        for tokens in (1_000, 10)
    )
    held: QuotaPermit = await own.acquire(CallSize(0, 999), soon())
    wheel = TimingWheel()
    model = ResilientModel(
        tuple(
            Upstream(
                quota.name,
                ScriptedModel(lambda _: "hello"),
                ResilienceSettings(),
                max_concurrency=4,
                wheel=wheel,
                quota=quota,
            )
            for quota in (own, small)
        )
    )
    request = ModelRequest(Prompt("Help."), (UserMessage("hello"),), 500)
    with pytest.raises(QuotaExhausted):
        model.check_quota(request, soon(1), "acme")
    own.cancel(held)
    model.check_quota(request, soon(1), "acme")
    for quota in (own, small):
        await quota.close()


class Unreliable(ScriptedModel):
    """Answers, fails and hangs by chance."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(str)
        self._chance = chance

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        chance = self._chance
        for _ in range(3):
            await asyncio.sleep(chance.choice([0.0, 0.002, 0.03]))
            if (luck := chance.random()) < 0.1:
                raise UpstreamThrottled("Too many.", retry_after=chance.choice([None, 0.0, 0.01]))
            if luck < 0.2:
                raise chance.choice([UpstreamFailed, UpstreamRefused])("It failed.")
            yield Text("a")
        yield Finish("stop", Usage(3, 2, 1))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_no_call_keeps_its_permit(seed: int) -> None:
    """Whatever fails, is late, is hedged, falls back or is cancelled, and when."""
    chance = random.Random(seed)

    async def scenario() -> None:
        wheel = TimingWheel(0.002)
        limits = QuotaSettings(requests_per_minute=60_000, window_seconds=0.1, queued=20)
        quotas = [Quota(name, limits, MemoryCounters()) for name in "ab"]
        resilience = ResilienceSettings(
            first_token_seconds=0.02,
            between_tokens_seconds=0.02,
            permit_wait_seconds=0.02,
            backoff_seconds=0.001,
            backoff_cap_seconds=0.002,
            hedge_quantile=0.5,
            hedge_share=0.5,
        )
        model = ResilientModel(
            tuple(
                Upstream(
                    each.name,
                    Unreliable(chance),
                    resilience,
                    max_concurrency=6,
                    wheel=wheel,
                    quota=each,
                )
                for each in quotas
            )
        )

        async def call() -> None:
            deadline = soon(chance.choice([0.01, 0.05, 2.0]))
            with suppress(Problem):
                async with aclosing(model.stream(REQUEST, deadline=deadline)) as events:
                    async for _ in events:
                        if chance.random() < 0.05:
                            break

        tasks = []
        for _ in range(80):
            tasks.append(asyncio.create_task(call()))
            await asyncio.sleep(chance.choice([0.0, 0.0, 0.002]))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        await asyncio.wait(tasks, timeout=20)
        assert all(each.done() for each in tasks)
        assert [(each.in_flight, each.waiting) for each in quotas] == [(0, 0), (0, 0)]
        for each in quotas:
            await each.close()

    asyncio.run(scenario())
