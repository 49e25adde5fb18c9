"""Turns with effects through the public API."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from seawall import Orchestrator, ScriptedModel, ToolContext, tool
from seawall.config import AgentSettings, Settings
from seawall.errors import Problem
from seawall.identity.port import Trusted
from seawall.pipeline.identifiers import new_request
from seawall.storage.settings import SessionSettings
from seawall.turn import Principal, ToolCall, ToolMessage

ANN = Principal("shop", "ann")


class Shop:
    def __init__(self) -> None:
        self.refunds: list[tuple[str, float, str]] = []
        self.failing = 0

    async def refund(self, order: str, amount: float, context: ToolContext) -> str:
        """Refund an order."""
        self.refunds.append((order, amount, context.idempotency_key))
        if self.failing:
            self.failing -= 1
            raise RuntimeError("connection reset")
        return f"refunded {order}"


@asynccontextmanager
async def shop(path: Path, model, service: Shop, **options):
    app = Orchestrator(Settings(sessions=SessionSettings(path=str(path))))
    app.model("m", model)
    app.tool(service.refund, mutating=True, **options)
    app.agent("a", AgentSettings(instructions="x", model="m", tools=("refund",)))
    async with app:
        yield app


def refunds_once(request):
    if any(isinstance(each, ToolMessage) for each in request.messages[-1:]):
        return "Done."
    return (ToolCall("c1", "refund", '{"order": "o1", "amount": 5}'),)


async def ask(app, text="refund", **rest):
    events = []

    async def emit(*happened):
        events.extend(happened)

    request = new_request(text, **rest)
    try:
        await app.engine.execute(request, Trusted(ANN), emit)
    except Problem as problem:
        return events, problem, request
    return events, None, request


async def test_one_effect(tmp_path):
    service = Shop()
    async with shop(tmp_path / "s.db", ScriptedModel(refunds_once), service) as app:
        events, problem, request = await ask(app)
        assert problem is None, problem
        print([type(e).__name__ for e in events])
        assert len(service.refunds) == 1
        page = await app.engine.store.turns(
            __import__("seawall.turn", fromlist=["SessionKey"]).SessionKey("shop", "ann", request.session), limit=5
        )
        assert page.turns[0].status == "completed"
        audit = await app.engine.store.audit(limit=10)
        assert len(audit.records) == 1
        print(audit)


async def test_model_dies_then_retry_continues(tmp_path):
    service = Shop()
    fail = [True]

    def script(request):
        if isinstance(request.messages[-1], ToolMessage):
            if fail:
                fail.pop()
                from seawall.errors import UpstreamFailed
                raise UpstreamFailed("model died")
            return "Done."
        return (ToolCall("c1", "refund", '{"order": "o1", "amount": 5}'),)

    model = ScriptedModel(script)
    async with shop(tmp_path / "s.db", model, service) as app:
        events, problem, request = await ask(app, idempotency_key="k")
        assert problem.effects, problem.as_dict()
        print(problem.as_dict())
        events, problem, _ = await ask(app, idempotency_key="k")
        assert problem is None
        print(events)
        assert len(service.refunds) == 1
        again, problem, _ = await ask(app, idempotency_key="k")
        print(again)
        assert [e for e in again[:-1]] == [e for e in events[:-1]]


async def test_unknown(tmp_path):
    service = Shop()
    service.failing = 1
    async with shop(tmp_path / "s.db", ScriptedModel(refunds_once), service) as app:
        events, problem, request = await ask(app, idempotency_key="k")
        assert problem.code == "effect-unknown"
        waits = await app.engine.store.waits("shop", limit=10)
        assert len(waits.waits) == 1
        events, problem, request = await ask(app, idempotency_key="k")
        assert problem.code == "effect-unknown"
        assert len(service.refunds) == 1


async def test_retry_key(tmp_path):
    service = Shop()
    service.failing = 1
    async with shop(tmp_path / "s.db", ScriptedModel(refunds_once), service, retry="key") as app:
        events, problem, request = await ask(app, idempotency_key="k")
        assert problem is None
        assert len({r[2] for r in service.refunds}) == 1


async def test_approval(tmp_path):
    from seawall.pipeline.decisions import Verdict

    service = Shop()
    async with shop(tmp_path / "s.db", ScriptedModel(refunds_once), service, approve="amount > 2") as app:
        events, problem, request = await ask(app)
        assert problem is None
        print(events)
        assert not service.refunds
        wait, live = await app.engine.pipeline.decide(ANN, request.id, "c1", Verdict(decision="approve"))
        resumed = [e async for e in live.follow()]
        print(resumed)
        assert len(service.refunds) == 1
        all_events = [e async for e in app.engine.events(ANN, request.id)]
        assert [e[1] for e in all_events][:-1] == [e[1] for e in resumed][:-1]
        assert [e[0] for e in all_events] == [e[0] for e in resumed]
        audit = await app.engine.store.audit(limit=10)
        from seawall.storage.audit import verify
        assert verify(audit.records) is None
        assert len(audit.records) == 2
        waits = await app.engine.store.waits("shop", limit=10)
        assert not waits.waits
