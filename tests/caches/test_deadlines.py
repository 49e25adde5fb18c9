"""Turns with different deadlines that wait for one answer."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from seawall import Principal
from seawall.agents import build_agent
from seawall.agents.calls import AgentTurn, Answer
from seawall.caches.answers import AnswerCache
from seawall.errors import DeadlineExceeded
from seawall.events import Event, TextDelta
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.settings import AnswerCacheSettings, CacheLimits
from seawall.turn import Usage, UserMessage


class Slow:
    """Takes its time, and counts."""

    asked = 0

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request
        self.asked += 1
        async with asyncio.timeout_at(deadline):
            await asyncio.sleep(0.5)
        yield Text("Yes.")
        yield Finish("stop", Usage(3, 2, 1))

    async def warm(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


async def test_the_deadline_of_each_is_its_own() -> None:
    """Also the deadline of the first caller: the others continue to wait."""

    model = Slow()
    agents = {"a": build_agent("a", instructions="Help.", model=model)}
    declared = {"a": AnswerCacheSettings(60)}
    cache = AnswerCache(declared, agents, CacheLimits(), seconds=30)

    async def ask(seconds: float, heard: list[Event]) -> Answer:
        async def emit(*events: Event) -> None:
            heard.extend(events)

        turn = AgentTurn(
            turn="t",
            session="s",
            principal=Principal("acme", "ada"),
            history=(UserMessage("Do you sell tents?"),),
            effect_key="k",
            deadline=asyncio.get_running_loop().time() + seconds,
            state={},
        )
        return await cache.answer("a", turn, emit)

    first: list[Event] = []
    second: list[Event] = []
    ends = await asyncio.gather(ask(0.2, first), ask(20, second), return_exceptions=True)
    assert isinstance(ends[0], DeadlineExceeded)
    assert isinstance(ends[1], Answer)
    assert (first, second, model.asked) == ([], [TextDelta("Yes.")], 1)
    assert (ends[1].usage, ends[1].cached) == (Usage(3, 2, 1), False)  # charged once
    third = await ask(20, [])
    assert (third.usage, third.cached, model.asked) == (Usage(), True, 1)
    with pytest.raises(DeadlineExceeded):
        await cache.answer("a", _other(), _nowhere)


def _other() -> AgentTurn:
    return AgentTurn(
        turn="t",
        session="s",
        principal=Principal("other", "ada"),
        history=(UserMessage("Do you sell tents?"),),
        effect_key="k",
        deadline=asyncio.get_running_loop().time() + 0.1,
        state={},
    )


async def _nowhere(*_: Event) -> None:
    return
