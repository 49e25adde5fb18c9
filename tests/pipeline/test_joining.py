"""Two turns under one key, of which the first ends while the second is being opened."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from seawall import Orchestrator, Principal
from seawall.config import parse_settings
from seawall.errors import UpstreamFailed
from seawall.events import TurnCompleted
from seawall.identity import Trusted
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.pipeline.live import LiveTurn
from seawall.requests import new_request
from seawall.turn import Usage

ADA = Principal("acme", "ada")
CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[models.judge]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[sessions]
path = "{path}"
[routing]
intent_model = "judge"
[intents.greeting]
description = "says hello"
[agents.only]
instructions = "Help."
"""


class Answering:
    """Answers when it may; fails the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.may = asyncio.Event()
        self.asked = 0
        self.asks: asyncio.Queue[int] = asyncio.Queue()
        self._failures = failures

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        self.asked += 1
        self.asks.put_nowait(self.asked)
        number = self.asked
        await self.may.wait()
        if number <= self._failures:
            raise UpstreamFailed("The model failed.")
        yield Text(f"answer {number}")
        yield Finish("stop", Usage(1, 1, 1))

    async def warm(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


class Judging(Answering):
    """Detects the first request's intent at once, and that of others when it may."""

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        self.asked += 1
        self.asks.put_nowait(self.asked)
        if self.asked > 1:
            await self.may.wait()
        yield Text("greeting")
        yield Finish("stop", Usage(1, 1, 1))


async def _end(live: LiveTurn) -> TurnCompleted:
    async with aclosing(live.follow()) as events:
        async for _, event in events:
            if isinstance(event, TurnCompleted):
                return event
    raise AssertionError


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_turn_that_ends_while_it_is_joined_is_reloaded(
    tmp_path: Path, failures: int
) -> None:
    """Regression: a 409. The first turn's answer is replayed; or it failed, and the second runs."""
    app = Orchestrator(parse_settings(CONFIGURATION.format(path=tmp_path / "s.db")))
    model, judge = Answering(failures), Judging()
    app.model("default", model)
    app.model("judge", judge)
    requests = [new_request("hello", idempotency_key="k", background=True) for _ in range(2)]
    async with asyncio.timeout(20), app:
        first = app.engine.start(requests[0], Trusted(ADA))
        await model.asks.get()
        await judge.asks.get()
        second = app.engine.start(requests[1], Trusted(ADA))
        await judge.asks.get()
        await asyncio.sleep(0.1)  # by now the second has loaded the lease of the first
        model.may.set()
        await first.wait(cancel=False)
        judge.may.set()
        ended = await _end(second)
    assert ended.turn == requests[1 if failures else 0].id
    assert ended.replayed == (not failures)
    assert model.asked == 1 + failures
