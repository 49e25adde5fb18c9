"""Agent loop: empty answers, cut-off calls, the last step."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from seawall.agents import AgentLimits, build_agent
from seawall.agents.calls import AgentTurn, Answer
from seawall.agents.loop import run_agent
from seawall.errors import Problem, TurnLimitReached, UpstreamFailed
from seawall.events import Event, ReasoningDelta, ToolReturned
from seawall.models import Finish, ModelEvent, ModelRequest, Progress, Text, ToolCalls
from seawall.tools.toolset import tool
from seawall.turn import Principal, ToolCall, Usage, UserMessage

HALF = ToolCall("b", "refund", '{"ord')
WHOLE = ToolCall("a", "refund", '{"order": "#1"}')
USED = Usage(1, 1, 1)


class Playing:
    """A model that plays one list of events for each call, the last one for all further calls."""

    def __init__(self, *plays: list[ModelEvent]) -> None:
        self.plays = plays
        self.asked: list[ModelRequest] = []

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del deadline
        self.asked.append(request)
        for event in self.plays[min(len(self.asked), len(self.plays)) - 1]:
            yield event

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


refunded: list[str] = []


@tool(mutating=True)
async def refund(order: str) -> str:
    """Refund an order."""
    refunded.append(order)
    return "done"


async def run(
    model: Playing, *, steps: int = 6, reasoning: bool = False
) -> tuple[Answer, list[Event]]:
    refunded.clear()
    events: list[Event] = []

    async def emit(*happened: Event) -> None:
        events.extend(happened)

    agent = build_agent(
        "helper",
        instructions="Help.",
        model=model,
        tools=(refund,),
        limits=AgentLimits(steps=steps),
        reasoning=reasoning,
    )
    turn = AgentTurn(
        turn="trn",
        session="ses",
        principal=Principal("shop", "ada"),
        history=(UserMessage("hello"),),
        effect_key="key",
        deadline=asyncio.get_running_loop().time() + 10,
        state={},
    )
    return await run_agent({"helper": agent}, "helper", turn, emit), events


def ended(*events: ModelEvent, reason: str = "stop") -> list[ModelEvent]:
    return [*events, Finish(reason, USED)]  # type: ignore[arg-type]


FINE = ended(Text("All is well."))


async def test_a_step_that_was_cut_off() -> None:
    model = Playing(ended(ToolCalls((WHOLE,), (HALF,)), reason="length"), FINE)
    answer, events = await run(model)
    assert refunded == ["#1"]
    returned = [event for event in events if isinstance(event, ToolReturned)]
    assert [(each.id, each.failed) for each in returned] == [("a", False), ("b", True)]
    assert "not executed" in returned[1].content
    assert answer.finish_reason == "stop"


async def test_a_step_that_is_cut_off_twice() -> None:
    model = Playing(ended(ToolCalls((), (HALF,)), reason="length"))
    with pytest.raises(TurnLimitReached, match="again"):
        await run(model)
    assert refunded == []
    assert len(model.asked) == 2


async def test_a_filtered_step_is_not_executed() -> None:
    model = Playing(ended(Text("I can"), ToolCalls((WHOLE,)), reason="content_filter"))
    answer, _ = await run(model)
    assert refunded == []
    assert answer.finish_reason == "content_filter"


@pytest.mark.parametrize(
    ("play", "kind", "asked"),
    [
        (ended(), UpstreamFailed, 2),
        (ended(Text(" \n")), UpstreamFailed, 2),
        (ended(Progress("hm"), reason="length"), TurnLimitReached, 1),
        (ended(reason="content_filter"), UpstreamFailed, 1),
    ],
)
async def test_an_empty_answer(play: list[ModelEvent], kind: type[Problem], asked: int) -> None:
    model = Playing(play)
    with pytest.raises(kind):
        await run(model)
    assert len(model.asked) == asked


async def test_the_last_step_has_no_tools() -> None:
    model = Playing(ended(ToolCalls((WHOLE,))), ended(ToolCalls((WHOLE,))), FINE)
    answer, _ = await run(model, steps=3)
    assert answer.messages[-1].text == "All is well."  # type: ignore[union-attr]
    assert [bool(each.prompt.tools) for each in model.asked] == [True, True, False]
    with pytest.raises(TurnLimitReached):
        await run(Playing(ended(ToolCalls((WHOLE,)))), steps=2)
    assert refunded == ["#1"]  # not on the last step


@pytest.mark.parametrize("shown", [True, False])
async def test_reasoning_is_an_event_of_its_own(shown: bool) -> None:
    model = Playing(ended(Progress("hm"), Progress(), Text("Hi")))
    answer, events = await run(model, reasoning=shown)
    assert [event for event in events if isinstance(event, ReasoningDelta)] == (
        [ReasoningDelta("hm")] if shown else []
    )
    assert answer.messages[-1].text == "Hi"  # type: ignore[union-attr]
