"""A shop with a refund service, an agent that uses it, and a model that follows a script."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct

from seawall import Orchestrator, ScriptedModel, ToolContext
from seawall.agents import AgentLimits
from seawall.config import AgentSettings, Settings
from seawall.errors import Problem, UpstreamFailed
from seawall.events import Event
from seawall.identity import Trusted
from seawall.models import ModelRequest
from seawall.requests import new_request
from seawall.settings import SessionSettings
from seawall.storage.port import Wait
from seawall.turn import Principal, SessionKey, ToolCall, ToolMessage, TurnRecord, TurnRequest

__all__ = [
    "ANN",
    "STAFF",
    "Outcome",
    "RefundService",
    "Script",
    "ask",
    "refund",
    "shop",
    "statuses",
    "stored",
    "waits",
]

ANN = Principal("shop", "ann")
STAFF = Principal("shop", "sam", ("staff",))


class RefundService:
    """A service outside; it records what it was asked to do.

    Attributes:
        calls: Order, amount and idempotency key of each call.
        done: The refunds that were made.
        fault: Raised after the refund, once for each in the list.
        entered: Set when a call begins.
        gate: Waited for in each call.
        checks: Number of look-ups.
        says: What it adds to its answers.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, str]] = []
        self.done: list[str] = []
        self.faults: list[Exception] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.checks = 0
        self.says = ""

    async def refund(
        self,
        order: str,
        amount: float,
        context: ToolContext,
        reason: str = "",  # noqa: ARG002 - what models word differently
    ) -> str:
        """Refund an order."""
        self.calls.append((order, amount, context.idempotency_key))
        self.entered.set()
        await self.gate.wait()
        self.done.append(order)
        if self.faults:
            raise self.faults.pop()
        return f"refunded {order} {amount:g} {self.says}".strip()

    async def find_refund(self, order: str, **_: object) -> str | None:
        """Whether an order was refunded."""
        self.checks += 1
        return f"found {order}" if order in self.done else None

    async def look_up(self, order: str) -> str:
        """Look an order up."""
        return f"{order} is delivered"


def refund(order: str, amount: float = 5, call: str = "c1", **more: object) -> ToolCall:
    """A call of the refund tool."""
    arguments = msgspec.json.encode({"order": order, "amount": amount, **more}).decode()
    return ToolCall(call, "refund", arguments)


class Script:
    """A script of a model: for each request, what to answer by the number of tool results.

    Attributes:
        steps: Calls of each step; after them it answers "Done."
        failures: How many of the answers after the first step fail.
        requests: Every request so far.
    """

    def __init__(self, *steps: tuple[ToolCall, ...], failures: int = 0) -> None:
        self.steps = steps
        self.failures = failures
        self.requests: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> str | tuple[ToolCall, ...]:
        """The answer to a request."""
        self.requests.append(request)
        last_user = max(
            index
            for index, each in enumerate(request.messages)
            if type(each).__name__ == "UserMessage"
        )
        done = sum(isinstance(each, ToolMessage) for each in request.messages[last_user:])
        count = 0
        for step in self.steps:
            if done <= count:
                return step
            count += len(step)
        if self.failures:
            self.failures -= 1
            raise UpstreamFailed("The model is down.")
        return "Done."


class Outcome(Struct):
    """What a caller saw of a turn."""

    request: TurnRequest
    events: list[Event]
    problem: Problem | None

    @property
    def kinds(self) -> list[str]:
        """The types of its events."""
        return [type(each).__name__ for each in self.events]


@asynccontextmanager
async def shop(
    place: SessionSettings,
    script: Callable[[ModelRequest], Any],
    service: RefundService,
    *,
    sessions: dict[str, Any] | None = None,
    limits: AgentLimits | None = None,
    **policy: Any,
) -> AsyncGenerator[Orchestrator, None]:
    """The shop, open.

    Args:
        place: Where its sessions are.
        script: Of the model.
        service: The refund service.
        sessions: Other settings of sessions.
        limits: Of the agent.
        policy: Options of the refund tool.
    """
    app = Orchestrator(Settings(sessions=msgspec.structs.replace(place, **(sessions or {}))))
    app.model("m", ScriptedModel(script))
    app.tool(service.refund, mutating=True, **policy)
    app.tool(service.look_up)
    agent = AgentSettings(
        instructions="x",
        model="m",
        tools=("refund", "look_up"),
        limits=limits or AgentLimits(),
    )
    app.agent("a", agent)
    async with app:
        yield app


async def ask(app: Orchestrator, text: str = "Refund it", **rest: Any) -> Outcome:
    """Run one turn of ann."""
    outcome = Outcome(new_request(text, **rest), [], None)

    async def emit(*happened: Event) -> None:
        outcome.events.extend(happened)

    try:
        await app.engine.execute(outcome.request, Trusted(ANN), emit)
    except Problem as problem:
        outcome.problem = problem
    return outcome


async def stored(app: Orchestrator, session: str) -> list[TurnRecord]:
    """The turns of one of ann's sessions, oldest first."""
    page = await app.engine.store.turns(SessionKey("shop", "ann", session), limit=50)
    return list(reversed(page.turns))


def statuses(turn: TurnRecord) -> list[str]:
    """The statuses of a turn's effects."""
    assert turn.journal is not msgspec.UNSET
    return [each.status for each in turn.journal.effects]


async def waits(app: Orchestrator) -> tuple[Wait, ...]:
    """Everything that waits in the shop."""
    return (await app.engine.store.waits("shop", limit=100)).waits
