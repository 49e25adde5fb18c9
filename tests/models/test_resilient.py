"""Retries, timeouts, hedges, fallbacks and limits over models that fail, hang or are slow."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest

from seawall.budgets.quota import Quota
from seawall.errors import (
    DeadlineExceeded,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from seawall.models import Finish, ModelEvent, ModelRequest, Prompt, Text
from seawall.models.resilient import ResilientModel
from seawall.models.upstream import Upstream
from seawall.settings import QuotaSettings, ResilienceSettings
from seawall.storage.counters import Addition, Count, MemoryCounters
from seawall.timers import TimingWheel
from seawall.turn import Usage, UserMessage

REQUEST = ModelRequest(Prompt("Be brief."), (UserMessage("hello"),))
FINISH = Finish("stop", Usage(3, 2, 1))

Step = str | float | Exception
"""A piece of text, seconds of pause, or the failure of the call."""


class Acting:
    """A model that follows one play per call; the last one for all further calls."""

    def __init__(self, *plays: list[Step]) -> None:
        self.plays = plays
        self.calls = 0
        self.closed = 0  # before their end

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        play = self.plays[min(self.calls, len(self.plays) - 1)]
        self.calls += 1
        ended = False
        try:
            for step in play:
                if isinstance(step, str):
                    yield Text(step)
                elif isinstance(step, Exception):
                    ended = True
                    raise step
                else:
                    await asyncio.sleep(step)
            ended = True
            yield FINISH
        finally:
            self.closed += not ended

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


def settings(**changed: object) -> ResilienceSettings:
    usual: dict[str, object] = {"backoff_seconds": 0.01, "backoff_cap_seconds": 0.01}
    return ResilienceSettings(**(usual | changed))  # type: ignore[arg-type]


def upstream(model: Acting, *, max_concurrency: int = 100, **changed: object) -> Upstream:
    return Upstream(
        "default",
        model,
        settings(**changed),
        max_concurrency=max_concurrency,
        wheel=TimingWheel(0.005, measures_lag=True),
    )


def resilient(*models: Acting, **changed: object) -> ResilientModel:
    return ResilientModel(
        tuple(
            Upstream(
                f"model-{n}",
                each,
                settings(**changed),
                max_concurrency=100,
                wheel=TimingWheel(0.005, measures_lag=True),
            )
            for n, each in enumerate(models)
        )
    )


async def read(
    model: ResilientModel, *, seconds: float = 5.0, seen: Callable[[str], None] | None = None
) -> str:
    text = ""
    deadline = asyncio.get_running_loop().time() + seconds
    async with aclosing(model.stream(REQUEST, deadline=deadline)) as stream:
        async for event in stream:
            if isinstance(event, Text):
                text += event.text
                if seen:
                    seen(event.text)
    return text


def times(number: int, *steps: Step) -> list[list[Step]]:
    return [list(steps)] * number


def failed() -> UpstreamFailed:
    return UpstreamFailed("broken")


async def test_a_failure_before_the_first_text_is_retried() -> None:
    model = Acting([failed()], ["all ", "well"])
    assert await read(resilient(model)) == "all well"
    assert model.calls == 2


async def test_no_retry_after_text_was_shown() -> None:
    model = Acting(["half", failed()], ["all ", "well"])
    shown: list[str] = []
    with pytest.raises(UpstreamFailed):
        await read(resilient(model), seen=shown.append)
    assert (model.calls, shown) == (1, ["half"])


async def test_a_broken_answer_resumes_where_its_repetition_is_identical() -> None:
    model = Acting(["one ", "two ", failed()], ["on", "e two thr", failed()], ["one two three"])
    shown: list[str] = []
    assert await read(resilient(model, resume=True), seen=shown.append) == "one two three"
    assert shown == ["one ", "two ", "thr", "ee"]


@pytest.mark.parametrize("again", [["one two! three"], ["one "]])
async def test_a_repetition_that_differs_fails(again: list[Step]) -> None:
    model = Acting(["one two three", failed()], again)
    shown: list[str] = []
    with pytest.raises(UpstreamFailed, match="its repetition differs"):
        await read(resilient(model, resume=True, attempts=2), seen=shown.append)
    assert shown == ["one two three"]


async def test_attempts_are_bounded() -> None:
    model = Acting([failed()])
    with pytest.raises(UpstreamFailed, match="broken"):
        await read(resilient(model, attempts=3))
    assert model.calls == 3


async def test_retry_after_is_respected() -> None:
    model = Acting([UpstreamThrottled("later", retry_after=0.3)], ["now"])
    clock = asyncio.get_running_loop().time
    began = clock()
    assert await read(resilient(model)) == "now"
    assert clock() - began >= 0.3


async def test_a_retry_after_beyond_the_deadline_fails_at_once() -> None:
    model = Acting([UpstreamThrottled("later", retry_after=60.0)])
    with pytest.raises(UpstreamThrottled) as caught:
        await read(resilient(model))
    assert (model.calls, caught.value.retry_after) == (1, 60.0)


async def test_a_refused_request_is_not_retried_but_goes_to_the_fallback() -> None:
    model, other = Acting([UpstreamRefused("no")]), Acting(["yes"])
    with pytest.raises(UpstreamRefused):
        await read(resilient(model))
    assert await read(resilient(model, other)) == "yes"
    assert (model.calls, other.calls) == (2, 1)


async def test_first_token_timeout_switches_to_the_fallback() -> None:
    model, other = Acting([60.0, "late"]), Acting(["in time"])
    assert await read(resilient(model, other, first_token_seconds=0.05)) == "in time"
    assert model.closed == 1


async def test_timeout_between_tokens() -> None:
    model = Acting(["so", 60.0])
    tried = resilient(model, between_tokens_seconds=0.05)
    with pytest.raises(UpstreamFailed, match="did not go on"):
        await read(tried)
    assert model.closed == 1


async def test_a_slow_reader_does_not_time_out_the_endpoint() -> None:
    model = resilient(Acting(["a", "b", "c"]), between_tokens_seconds=0.05)
    deadline = asyncio.get_running_loop().time() + 5.0
    text = ""
    async with aclosing(model.stream(REQUEST, deadline=deadline)) as stream:
        async for event in stream:
            await asyncio.sleep(0.08)
            text += event.text if isinstance(event, Text) else ""
    assert text == "abc"


async def test_the_retry_budget_bounds_retries_when_everything_fails() -> None:
    model = Acting([failed()])
    tried = resilient(model, failure_rate=1.0, min_calls=1_000_000, backoff_seconds=0.0001)
    for _ in range(10):
        await asyncio.gather(*(read(tried) for _ in range(100)), return_exceptions=True)
    assert 1_000 < model.calls <= 1_100 + 10


async def test_the_circuit_breaker_opens_and_probes_later() -> None:
    model = Acting(*times(10, failed()), ["back"])
    tried = resilient(model, attempts=1, min_calls=10, open_seconds=0.2, probes=1)
    for _ in range(10):
        with pytest.raises(UpstreamFailed, match="broken"):
            await read(tried)
    with pytest.raises(UpstreamUnavailable) as caught:
        await read(tried)
    assert (model.calls, caught.value.status) == (10, 503)
    assert caught.value.retry_after is not None
    await asyncio.sleep(0.2)
    assert await read(tried) == "back"


async def test_the_fallback_answers_while_the_breaker_is_open() -> None:
    model, other = Acting([failed()]), Acting(["instead"])
    tried = resilient(model, other, attempts=1, min_calls=5, open_seconds=60.0)
    assert [await read(tried) for _ in range(20)] == ["instead"] * 20
    assert (model.calls, other.calls) == (5, 20)


async def test_the_concurrency_limit_ramps_up_after_an_outage() -> None:
    model = Acting(*times(40, 0.05, "well"), *times(40, failed()), [0.05, "back", 0.05])
    endpoint = upstream(
        model, attempts=1, min_calls=60, open_seconds=0.1, probes=1, permit_wait_seconds=0.001,
        min_concurrency=4,
    )  # fmt: skip
    tried = ResilientModel((endpoint,))
    for _ in range(2):
        await asyncio.gather(*(read(tried) for _ in range(40)), return_exceptions=True)
    assert endpoint.state() == "open"
    await asyncio.sleep(0.1)
    await read(tried)
    began_with = endpoint.limit
    assert (endpoint.state(), began_with in (9, 10)) == ("closed", True)  # a quarter of 40
    answers = await asyncio.gather(*(read(tried) for _ in range(40)), return_exceptions=True)
    assert sum(each == "back" for each in answers) == began_with
    assert endpoint.limit > 15


async def test_a_hedge_overtakes_a_slow_call() -> None:
    model = Acting(*times(30, 0.001, "quick"), [30.0, "slow"], [0.001, "second"])
    tried = resilient(model, hedge_share=0.1)
    for _ in range(30):
        assert await read(tried) == "quick"
    assert await read(tried) == "second"
    assert (model.calls, model.closed) == (32, 1)


async def test_a_failed_hedge_does_not_affect_the_first_call() -> None:
    model = Acting(*times(30, 0.001, "quick"), [0.2, "slow"], [failed()])
    tried = resilient(model, hedge_share=0.1)
    for _ in range(30):
        await read(tried)
    assert await read(tried) == "slow"
    assert model.calls == 32


async def test_hedges_stay_within_their_budget() -> None:
    model = Acting(*times(30, 0.0, "quick"), [0.05, "slow"])
    tried = resilient(model, hedge_share=0.02)
    for _ in range(30):
        await read(tried)
    for _ in range(4):
        await asyncio.gather(*(read(tried) for _ in range(50)))
    assert 230 < model.calls <= 230 + 10 + 230 * 0.02


async def test_a_cancelled_caller_cancels_the_call_and_frees_its_permit() -> None:
    model = Acting(["one", 60.0])
    endpoint = upstream(model, hedge_share=0.1)
    tried = ResilientModel((endpoint,))
    reading = [asyncio.create_task(read(tried, seconds=60.0)) for _ in range(5)]
    await asyncio.sleep(0.02)
    assert endpoint.in_flight == 5
    for each in reading:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert (endpoint.in_flight, model.closed, endpoint.attempts["left"]) == (0, 5, 5)


async def test_the_concurrency_limit_bounds_calls_in_flight() -> None:
    model = Acting([0.02, "in turn"])
    endpoint = upstream(model, max_concurrency=2)
    tried = ResilientModel((endpoint,))
    reading = [asyncio.create_task(read(tried)) for _ in range(8)]
    await asyncio.sleep(0.01)
    assert endpoint.in_flight == 2
    assert await asyncio.gather(*reading) == ["in turn"] * 8


async def test_deadline_exceeded_is_not_retried() -> None:
    model, other = Acting([DeadlineExceeded("too late")]), Acting(["unasked"])
    with pytest.raises(DeadlineExceeded):
        await read(resilient(model, other))
    assert other.calls == 0


async def test_one_hung_call_does_not_lower_the_concurrency_limit() -> None:
    model = Acting([60.0], [0.05, "well"])
    endpoint = upstream(
        model, max_concurrency=500, first_token_seconds=0.5, permit_wait_seconds=0.1
    )
    tried = ResilientModel((endpoint,))
    assert await read(tried) == "well"
    assert endpoint.attempts["late"] == 1
    answers = await asyncio.gather(*(read(tried) for _ in range(300)), return_exceptions=True)
    assert answers == ["well"] * 300


class Parting(Acting):
    """Two answers begin at the same time, and close slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = asyncio.Event()
        self.open = 0

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """The first thirty are quick."""
        del request, deadline
        self.calls += 1
        if self.calls <= 30:
            yield Text("quick")
            yield FINISH
            return
        self.open += 1
        try:
            await self.begin.wait()
            yield Text("both")
            await asyncio.sleep(60.0)
        finally:
            self.open -= 1
            await asyncio.sleep(0.2)


async def test_cancellation_while_the_slower_call_closes_leaves_neither_open() -> None:
    model = Parting()
    endpoint = upstream(model, hedge_share=0.1)
    tried = ResilientModel((endpoint,))
    for _ in range(30):
        await read(tried)
    reading = asyncio.create_task(read(tried, seconds=60.0))
    while model.calls < 32:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    model.begin.set()
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert (endpoint.in_flight, model.open) == (0, 0)


@pytest.mark.parametrize("play", [[0.05, "all", " well"], ["all", 0.05, " well"]])
async def test_a_blocked_event_loop_does_not_time_out_the_endpoint(play: list[Step]) -> None:
    model = Acting(play)
    endpoint = upstream(model, first_token_seconds=0.3, between_tokens_seconds=0.3)
    reading = asyncio.create_task(read(ResilientModel((endpoint,))))
    await asyncio.sleep(0.02)
    time.sleep(0.5)  # noqa: ASYNC251 - the pause
    assert await reading == "all well"
    assert (model.calls, endpoint.attempts["answered"]) == (1, 1)


class Hanging(MemoryCounters):
    """Counters that do not answer."""

    async def add(self, addition: Addition) -> Count:
        """Not before the test is over."""
        await asyncio.sleep(60.0)
        return await super().add(addition)


async def test_an_unreachable_quota_counter_switches_to_the_fallback() -> None:
    model, other = Acting(["unasked"]), Acting(["in its stead"])
    limits = QuotaSettings(requests_per_minute=1_000)
    quota = Quota("shared", limits, Hanging(), seconds=0.5)
    first, second = (upstream(each, permit_wait_seconds=0.05) for each in (model, other))
    first.quota = quota
    assert await read(ResilientModel((first, second))) == "in its stead"
    await quota.close()
