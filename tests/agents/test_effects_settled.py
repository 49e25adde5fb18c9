"""Effects whose call does not end well: what is certain is reported, and nothing else."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from seawall import Orchestrator, ScriptedModel
from seawall.agents import AgentLimits
from seawall.config import AgentSettings, Settings
from seawall.settings import SessionSettings
from seawall.tools.toolset import FunctionTool
from seawall.turn import ToolCall
from tests.pipeline.shop import Script, ask, statuses, stored


@pytest.fixture
def place(tmp_path: Any) -> SessionSettings:
    return SessionSettings(path=str(tmp_path / "sessions.db"))


class Blocked:
    """A plain function that returns when it may, and a check of what it has done."""

    def __init__(self) -> None:
        self.may_return = threading.Event()
        self.calls = 0
        self.done: list[str] = []

    def pay(self, order: str) -> str:
        """Pay."""
        self.calls += 1
        self.may_return.wait(30)
        self.done.append(order)
        return "paid"

    async def find(self, order: str) -> str | None:
        await asyncio.sleep(0.01)  # as over a network
        return "found" if order in self.done else None


async def _paid(
    place: SessionSettings, function: Callable[..., Any], *, hung: int = 0, **policy: Any
) -> tuple[str, list[str]]:
    """The code of the turn's problem, and the statuses of its effects.

    hung: Earlier calls that have not returned.
    """
    app = Orchestrator(Settings(sessions=place))
    call = ToolCall("c", "pay", '{"order": "o1"}')
    app.model("m", ScriptedModel(Script((call,))))
    made = app.tool(function, name="pay", mutating=True, **policy)
    assert isinstance(made, FunctionTool)
    limits = AgentLimits(tool_seconds=0.3)
    app.agent("a", AgentSettings(instructions="x", model="m", tools=("pay",), limits=limits))
    async with app:
        soon = asyncio.get_running_loop().time() + 0.2
        earlier = [
            made.execution.in_thread("pay", lambda: function("o0"), soon) for _ in range(hung)
        ]
        await asyncio.gather(*earlier, return_exceptions=True)
        outcome = await ask(app)
        (turn,) = await stored(app, outcome.request.session)
        return outcome.problem.code if outcome.problem is not None else "", statuses(turn)


async def test_a_check_is_asked_after_a_call_that_took_too_long(place: SessionSettings) -> None:
    service = Blocked()

    async def pay(order: str) -> str:
        """Pay."""
        service.done.append(order)
        await asyncio.sleep(30)
        return "paid"

    assert await _paid(place, pay, check=service.find) == ("", ["done"])


@pytest.mark.parametrize("found", [object(), {"note": "\ud800"}])
async def test_a_check_whose_result_cannot_be_read_says_nothing(
    place: SessionSettings, found: object
) -> None:
    """Regression: the turn failed with an internal error, and so did each later attempt at it."""

    async def pay(order: str) -> str:
        """Pay."""
        raise ConnectionError(order)

    async def check(order: str) -> object:  # noqa: ARG001 - as the tool has it
        return found

    assert await _paid(place, pay, check=check) == ("effect-unknown", ["unknown"])


async def test_a_call_that_still_runs_has_not_failed_whatever_the_check_says(
    place: SessionSettings,
) -> None:
    service = Blocked()
    try:
        assert await _paid(place, service.pay, check=service.find) == (
            "effect-unknown",
            ["unknown"],
        )
    finally:
        service.may_return.set()


async def test_a_repetition_that_was_not_started_says_nothing_of_the_first_call(
    place: SessionSettings,
) -> None:
    service = Blocked()
    try:
        assert await _paid(place, service.pay, hung=15, retry="key") == (
            "effect-unknown",
            ["unknown"],
        )
        assert service.calls == 16
    finally:
        service.may_return.set()


async def test_a_call_that_was_never_started_has_failed(
    place: SessionSettings,
) -> None:
    service = Blocked()
    try:
        assert await _paid(place, service.pay, hung=16, retry="key") == ("", ["failed"])
        assert service.calls == 16
    finally:
        service.may_return.set()
