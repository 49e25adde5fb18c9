"""Whole turns at a provider that enforces its quota as Amazon Bedrock does, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from seawall import Orchestrator, Principal
from seawall.budgets.quota import CallSize
from seawall.config import parse_settings
from seawall.events import (
    Event,
    TextDelta,
    TurnCompleted,
    TurnFailed,
    TurnQueued,
    TurnStarted,
)
from seawall.lab.sim_model.limits import SimLimits
from seawall.lab.sim_model.reply import SimTimes
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.models.rate_limits import read_rate_limits
from seawall.models.scripted import ScriptedModel
from seawall.turn import Usage
from tests.lab.simulated import Simulated, simulating

CONFIG = """
[models.default]
base_url = "{url}"
model = "simulated"
quota = "account"

[quotas.account]
tokens_per_minute = {tokens}
reserve = "input+max_tokens"

[agents.shop]
instructions = "Help."

[agents.shop.limits]
call_tokens = 1000

[turn]
turn = {turn}

[sessions]
path = "{folder}/kept.db"
"""
QUICK = SimTimes(first_token=(0.05, 0.1), duration=(0.2, 0.4), chunks=10)


@asynccontextmanager
async def orchestrated(
    folder: Path, sim: Simulated, *, tokens: int = 10_000, turn: float = 60.0
) -> AsyncIterator[Orchestrator]:
    text = CONFIG.format(url=sim.base_url, tokens=tokens, turn=turn, folder=folder)
    async with asyncio.timeout(60), Orchestrator(parse_settings(text)) as app:
        yield app


async def ask(app: Orchestrator, text: str, tenant: str = "acme") -> list[Event]:
    return [event async for event in app.run(text, principal=Principal(tenant, "ada"))]


async def test_a_crowd_waits_and_nobody_fails(tmp_path: Path) -> None:
    limits = SimLimits(tokens_per_minute=10_000, reserve="input+max_tokens")
    async with simulating(times=QUICK, limits=limits) as sim:
        async with orchestrated(tmp_path, sim) as app:
            turns = await asyncio.gather(*(ask(app, f"hello {number}") for number in range(40)))
        assert all(isinstance(events[-1], TurnCompleted) for events in turns)
        assert sim.model.stats.refused == 0
        assert sim.model.stats.peak_streams <= 9, "nine bounds of 1,000 and their prompts fit"


async def test_a_refusal_of_the_provider_reaches_no_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The account has less than is configured, as if others used it as well."""
    limits = SimLimits(tokens_per_minute=5_000, reserve="input+max_tokens")
    async with simulating(times=QUICK, limits=limits) as sim:
        async with orchestrated(tmp_path, sim) as app:
            turns = await asyncio.gather(*(ask(app, f"hello {number}") for number in range(16)))
            quota = app.engine.metering.quotas["account"]
        assert all(isinstance(events[-1], TurnCompleted) for events in turns)
        assert 0 < sim.model.stats.refused == quota.throttled
    [warning] = [each for each in caplog.messages if "the provider says" in each]
    assert warning.startswith("quota account: tokens_per_minute is 10,000, the provider says 5,000")


async def test_what_waits_hears_its_position(tmp_path: Path) -> None:
    times = SimTimes(first_token=(0.1, 0.1), duration=(1.6, 1.6), chunks=10)
    limits = SimLimits(tokens_per_minute=2_100, reserve="input+max_tokens")
    async with (
        simulating(times=times, limits=limits) as sim,
        orchestrated(tmp_path, sim, tokens=2_100) as app,
    ):
        turns = await asyncio.gather(*(ask(app, f"hello {number}") for number in range(4)))
    queued = [[each for each in events if isinstance(each, TurnQueued)] for events in turns]
    assert [bool(each) for each in queued] == [False, False, True, True]
    for events in turns[2:]:
        kinds = [type(each) for each in events]
        assert kinds[0] is TurnStarted
        assert kinds.index(TurnQueued) < kinds.index(TextDelta)
        [started] = [each for each in events if isinstance(each, TurnStarted)]
        heard = [each for each in events if isinstance(each, TurnQueued)]
        assert {(each.turn, each.waits_for) for each in heard} == {(started.turn, "quota")}
        assert all(each.position in (1, 2) and each.seconds > 0 for each in heard)


async def test_a_turn_that_would_be_late_is_refused_before_it_starts(tmp_path: Path) -> None:
    limits = SimLimits(tokens_per_minute=1_100, reserve="input+max_tokens", burndown=50.0)
    async with (
        simulating(times=QUICK, limits=limits) as sim,
        orchestrated(tmp_path, sim, tokens=1_100, turn=5.0) as app,
    ):
        first = asyncio.create_task(ask(app, "one"))
        await asyncio.sleep(0.15)
        quota = app.engine.metering.quotas["account"]
        others = await asyncio.gather(*(ask(app, f"hello {number}") for number in range(30)))
        assert isinstance((await first)[-1], TurnCompleted)
        assert quota.waiting == 0
    refused = [events[-1] for events in others if isinstance(events[-1], TurnFailed)]
    assert refused
    for each in refused:
        assert each.problem["code"] == "quota-exhausted"
        assert each.problem["status"] == 429
        assert each.problem["retry_after"] >= 1
    at_once = [events for events in others if len(events) == 1]
    assert at_once, "some were refused before anything was done for them"


async def test_what_waits_for_a_slot_hears_its_position(tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Waiting(ScriptedModel):
        async def stream(
            self, request: ModelRequest, *, deadline: float
        ) -> AsyncGenerator[ModelEvent, None]:
            await gate.wait()
            async for event in super().stream(request, deadline=deadline):
                yield event

    settings = f"""
    [models.default]
    base_url = "http://127.0.0.1:9/v1"
    model = "none"
    [agents.shop]
    instructions = "Help."
    [admission]
    in_flight = 1
    min_in_flight = 1
    [sessions]
    path = "{tmp_path}/kept.db"
    """
    app = Orchestrator(parse_settings(settings))
    app.model("default", Waiting(lambda _: "hello"))
    heard: list[list[Event]] = [[] for _ in range(3)]

    async def follow(index: int) -> None:
        async for event in app.run("hi", principal=Principal("acme", "ada")):
            heard[index].append(event)
            if heard[1] and heard[2]:
                gate.set()

    async with asyncio.timeout(30), app, asyncio.TaskGroup() as group:
        for index in range(3):
            group.create_task(follow(index))
            await asyncio.sleep(0.01)
    assert not any(isinstance(each, TurnQueued) for each in heard[0])
    for index, events in enumerate(heard[1:], 1):
        waits, started = events[0], events[1]
        assert isinstance(waits, TurnQueued)
        assert (waits.waits_for, waits.position) == ("slot", index)
        while isinstance(started, TurnQueued):
            started = events[events.index(started) + 1]
        assert isinstance(started, TurnStarted)
        assert started.turn == waits.turn
        assert isinstance(events[-1], TurnCompleted)


async def test_a_turn_that_joins_an_answer_late_hears_nothing_of_its_wait(tmp_path: Path) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    class Waiting(ScriptedModel):
        async def stream(
            self, request: ModelRequest, *, deadline: float
        ) -> AsyncGenerator[ModelEvent, None]:
            del deadline
            assert request.caller is not None
            await request.caller.queued(2, 2.0)
            await request.caller.queued(1, 1.0)
            await asyncio.sleep(0.01)
            yield Text("one ")
            begun.set()
            await gate.wait()
            await request.caller.queued(1, 1.0)
            await asyncio.sleep(0.01)
            yield Text("two")
            yield Finish("stop", Usage(3, 2, 1))

    app = Orchestrator(
        parse_settings(f"""
        [models.default]
        base_url = "http://127.0.0.1:9/v1"
        model = "none"
        [agents.shop]
        instructions = "Help."
        [agents.shop.cache]
        seconds = 60
        scope = "tenant"
        [sessions]
        path = "{tmp_path}/kept.db"
        """)
    )
    app.model("default", Waiting(lambda _: "hello"))
    async with asyncio.timeout(20), app:
        first = asyncio.create_task(ask(app, "hello"))
        await begun.wait()
        late = asyncio.create_task(ask(app, "hello"))
        await asyncio.sleep(0.1)
        gate.set()
        heard = [await first, await late]
    for events, waits in zip(heard, (2, 1), strict=True):
        assert isinstance(events[-1], TurnCompleted)
        text = "".join(each.text for each in events if isinstance(each, TextDelta))
        assert text == "one two"
        queued = [each.turn for each in events if isinstance(each, TurnQueued)]
        assert queued == [events[-1].turn] * waits


@pytest.mark.parametrize("limited", ["slot", "quota"])
async def test_a_turn_that_waits_and_is_refused_leaves_a_line(
    limited: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its stream has begun, so the status says nothing of it."""
    gate = asyncio.Event()

    class Waiting(ScriptedModel):
        async def stream(
            self, request: ModelRequest, *, deadline: float
        ) -> AsyncGenerator[ModelEvent, None]:
            await gate.wait()
            async for event in super().stream(request, deadline=deadline):
                yield event

    text = f"""
    [models.default]
    base_url = "http://127.0.0.1:1/v1"
    model = "m"
    [agents.shop]
    instructions = "Help."
    [admission]
    in_flight = 1
    min_in_flight = 1
    wait_seconds = 1.3
    overload_wait_seconds = 1.3
    [sessions]
    path = "{tmp_path}/kept.db"
    """
    if limited == "quota":
        async with simulating(times=QUICK) as sim, orchestrated(tmp_path, sim, turn=3.5) as app:
            quota = app.engine.metering.quotas["account"]
            permit = await quota.acquire(CallSize(0, 9_990), asyncio.get_running_loop().time() + 5)
            asyncio.get_running_loop().call_later(1.2, quota.record_throttled, permit, 30.0)
            events = await ask(app, "hello")
    else:
        app = Orchestrator(parse_settings(text))
        app.model("default", Waiting(lambda _: "hello"))
        async with asyncio.timeout(30), app:
            first = asyncio.create_task(ask(app, "one"))
            await asyncio.sleep(0.05)
            events = await ask(app, "two")
            gate.set()
            await first
    assert [each.waits_for for each in events if isinstance(each, TurnQueued)][:1] == [limited]
    failed = events[-1]
    assert isinstance(failed, TurnFailed)
    code = {"slot": "overloaded", "quota": "quota-exhausted"}[limited]
    assert failed.problem["code"] == code
    lines = [each for each in caplog.messages if each.startswith(f"turn {failed.turn} failed: ")]
    assert len(lines) == 1
    assert code in lines[0]
    assert "tenant='acme'" in lines[0]


def test_rate_limits_are_read_from_headers_of_both_kinds() -> None:
    headers = {
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert read_rate_limits(headers) == ({"tokens": 150_000}, {"tokens": 149_984, "requests": 59})
    headers = {
        "anthropic-ratelimit-input-tokens-remaining": "40000",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-requests-remaining": "-1",
        "anthropic-ratelimit-tokens-remaining": "9" * 40,
    }
    assert read_rate_limits(headers) == ({"output_tokens": 8_000}, {"input_tokens": 40_000})
    assert read_rate_limits({}) == ({}, {})
