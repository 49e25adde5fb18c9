"""The OpenAI adapter against each fault of the simulated model."""

import asyncio
from typing import Any

import pytest

from seawall.errors import (
    DeadlineExceeded,
    Problem,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
)
from seawall.lab.sim_model.limits import SimLimits
from seawall.models import Finish, ModelRequest, Prompt, Text
from seawall.models.openai import OpenAIModel, OpenAISettings
from seawall.turn import UserMessage
from tests.lab.simulated import Simulated, play, until

PROMPT = Prompt("You answer.")
SECONDS = 0.4
AMPLE = 20.0


async def ask(sim: Simulated, seconds: float) -> tuple[str, Finish | None]:
    model = OpenAIModel("sim", OpenAISettings(base_url=sim.base_url, model="sim"), sim.client)
    request = ModelRequest(PROMPT, (UserMessage("hello"),))
    deadline = asyncio.get_running_loop().time() + seconds
    text, finish = "", None
    async for event in model.stream(request, deadline=deadline):
        if isinstance(event, Text):
            text += event.text
        elif isinstance(event, Finish):
            finish = event
    return text, finish


def failing(seconds: float, *rules: dict[str, object], **options: Any) -> Problem:
    """Return the problem of a call; nothing stays open on either side."""

    async def scene(sim: Simulated) -> Problem:
        with pytest.raises(Problem) as caught:
            await ask(sim, seconds)
        assert sim.client.open_streams == 0
        await until(lambda: sim.model.stats.open_streams == 0)
        await sim.client.close()
        await until(lambda: sim.model.stats.connections == 0)
        return caught.value

    return play(scene, *rules, **options)


POINTS = ("before-head", "after-head", "in-stream")


@pytest.mark.parametrize("at", POINTS)
def test_a_provider_that_hangs_meets_the_deadline(at: str) -> None:
    assert type(failing(SECONDS, {"kind": "hang", "at": at})) is DeadlineExceeded


def test_a_provider_that_is_too_slow_meets_the_deadline() -> None:
    assert type(failing(SECONDS, {"kind": "slow", "factor": 1_000})) is DeadlineExceeded


@pytest.mark.parametrize("kind", ["drop", "reset"])
@pytest.mark.parametrize("at", POINTS)
def test_a_connection_that_breaks(kind: str, at: str) -> None:
    assert type(failing(AMPLE, {"kind": kind, "at": at})) is UpstreamFailed


@pytest.mark.parametrize("kind", ["malformed", "stream-error", "truncate"])
@pytest.mark.parametrize("chunks", [0, 2, 99])
def test_a_malformed_stream(kind: str, chunks: int) -> None:
    assert type(failing(AMPLE, {"kind": kind, "chunks": chunks})) is UpstreamFailed


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (400, UpstreamRefused),
        (401, UpstreamRefused),
        (408, UpstreamFailed),
        (429, UpstreamThrottled),
        (500, UpstreamFailed),
        (503, UpstreamFailed),
        (529, UpstreamThrottled),
    ],
)
def test_error_statuses(status: int, problem: type[Problem]) -> None:
    found = failing(AMPLE, {"kind": "error", "status": status, "retry_after": 2})
    assert type(found) is problem
    assert found.retry_after == (None if problem is UpstreamRefused else 2.0)


def test_throttled() -> None:
    found = failing(AMPLE, {"kind": "throttle", "retry_after": 3})
    assert type(found) is UpstreamThrottled
    assert found.retry_after == 3.0


def test_out_of_quota() -> None:
    found = failing(AMPLE, limits=SimLimits(tokens_per_minute=1))
    assert type(found) is UpstreamThrottled
    assert found.retry_after


def test_an_outage() -> None:
    assert type(failing(AMPLE, {"kind": "refuse", "until": 1_000})) is UpstreamFailed


def test_a_cancelled_reader_closes_the_stream() -> None:
    async def scene(sim: Simulated) -> None:
        asking = asyncio.create_task(ask(sim, AMPLE))
        await until(lambda: sim.model.stats.open_streams == 1)
        asking.cancel()
        await asyncio.wait([asking])
        assert sim.client.open_streams == 0
        await until(lambda: sim.model.stats.open_streams == 0)
        assert (await sim.stats())["cancelled"] == 1

    play(scene, {"kind": "hang", "at": "in-stream"})


def test_it_recovers_after_faults() -> None:
    async def scene(sim: Simulated) -> None:
        with pytest.raises(UpstreamFailed):
            await ask(sim, AMPLE)
        text, finish = await ask(sim, AMPLE)
        assert text
        assert finish is not None
        assert finish.reason == "stop"

    play(scene, {"kind": "truncate", "attempts": 1})
