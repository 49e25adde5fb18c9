"""The end of a turn: unknown commits, and observers that fail."""

import asyncio
import logging
import math
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from seawall import Orchestrator, Principal
from seawall.config import parse_settings
from seawall.errors import CommitUnknown, SessionBusy
from seawall.events import Event, TurnCompleted
from seawall.identity import Trusted
from seawall.models import Finish, ModelEvent, ModelRequest, Text
from seawall.requests import new_request
from seawall.turn import SessionKey, TurnReport, TurnRequest, Usage

ADA = Principal("acme", "ada")
CONFIGURATION = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
price = {{ prompt = 1.0, completion = 1.0 }}
[turn]
commit = 0.2
session = {session_seconds}
[sessions]
path = "{path}"
[budgets.default]
tokens_per_day = 1_000_000
[agents.only]
instructions = "Help."
"""


class Answering:
    """Answers when it may, and says that it used so much."""

    def __init__(self, usage: Any = None) -> None:
        self.asked = 0
        self.reached = asyncio.Event()
        self.may = asyncio.Event()
        self._usage = usage or Usage(3, 4, 1)

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        del request, deadline
        self.asked += 1
        yield Text("answer")
        self.reached.set()
        await self.may.wait()
        yield Finish("stop", self._usage)

    async def warm(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""


@asynccontextmanager
async def serving(
    path: Path, model: Answering, session_seconds: float = 5.0
) -> AsyncIterator[Orchestrator]:
    app = Orchestrator(
        parse_settings(CONFIGURATION.format(path=path, session_seconds=session_seconds))
    )
    app.model("default", model)
    async with asyncio.timeout(30), app:
        yield app


async def ask(app: Orchestrator, request: TurnRequest) -> TurnCompleted:
    ended: list[Event] = []

    async def emit(*events: Event) -> None:
        ended.extend(events)

    await app.engine.execute(request, Trusted(ADA), emit)
    assert isinstance(ended[-1], TurnCompleted)
    return ended[-1]


async def test_a_late_commit_is_found_by_polling(tmp_path: Path) -> None:
    """Another process has the database for longer than the stage may take; then it is written."""
    path = tmp_path / "s.db"
    model = Answering()
    async with serving(path, model) as app:
        request = new_request("hello", idempotency_key="k")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            turn = asyncio.create_task(ask(app, request))
            await model.reached.wait()
            other.execute("BEGIN IMMEDIATE")
            model.may.set()
            await asyncio.sleep(0.8)
            assert not turn.done()
            other.execute("ROLLBACK")
            completed = await turn
        assert (completed.turn, completed.version) == (request.id, 1)
        again = await ask(app, new_request("hello", idempotency_key="k"))
        assert (again.turn, again.replayed, model.asked) == (request.id, True, 1)


async def test_an_unknown_commit_is_resolved_by_its_key(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    model = Answering()
    async with serving(path, model, session_seconds=0.5) as app:
        request = new_request("hello", idempotency_key="k")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            turn = asyncio.create_task(ask(app, request))
            await model.reached.wait()
            other.execute("BEGIN IMMEDIATE")
            model.may.set()
            with pytest.raises(CommitUnknown, match="Idempotency-Key") as unknown:
                await turn
            other.execute("ROLLBACK")
        assert (unknown.value.status, unknown.value.code) == (503, "commit-unknown")
        assert request.session in unknown.value.detail
        for _ in range(20):  # the late commit, or this: either way it is done once
            try:
                again = await ask(app, new_request("hello", idempotency_key="k"))
            except SessionBusy:
                await asyncio.sleep(0.1)
            else:
                break
        key = SessionKey(ADA.tenant, ADA.subject, again.session)
        page = await app.engine.store.turns(key, limit=9)
        assert [each.id for each in page.turns] == [again.turn]
        assert again.replayed == (again.turn == request.id)
        assert model.asked == (1 if again.replayed else 2)
        listed = await app.engine.store.sessions(ADA, limit=9)
        assert len(listed.sessions) == 1


@pytest.mark.parametrize(
    "usage",
    [(-5, -7, -1), (math.nan, math.inf, 1), (1 << 70, 3, 1), (None, "7", 1), (3, 4, 1)],
)
async def test_no_reported_usage_fails_a_turn(tmp_path: Path, usage: Any) -> None:
    """Regression: a negative number of tokens failed the turn in the metrics, after its commit."""
    model = Answering(Usage(*usage))
    model.may.set()
    async with serving(tmp_path / "s.db", model) as app:
        reports: list[TurnReport] = []
        app.observe(reports.append)
        from seawall.telemetry.metrics import Metrics  # noqa: PLC0415 - registers its metrics

        app.observe(Metrics().observe)
        first = await ask(app, new_request("hello"))
        await ask(app, new_request("and", session=first.session))
        page = await app.engine.store.turns(SessionKey("acme", "ada", first.session), limit=9)
        assert [each.number for each in page.turns] == [2, 1]
        for each in page.turns:
            assert 0 <= each.usage.prompt_tokens <= 10**9
            assert 0 <= each.usage.completion_tokens <= 10**9
        assert [each.outcome for each in reports] == ["completed", "completed"]


async def test_a_failing_observer_is_logged_and_does_not_affect_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Answering()
    model.may.set()
    reports: list[TurnReport] = []

    def fail(_: TurnReport) -> None:
        raise OSError("no space left on device")

    with caplog.at_level(logging.ERROR, "seawall.turns"):
        async with serving(tmp_path / "s.db", model) as app:
            app.observe(fail)
            app.observe(reports.append)
            for _ in range(5):
                assert (await ask(app, new_request("hello"))).version == 1
    assert [each.outcome for each in reports] == ["completed"] * 5
    said = [each for each in caplog.records if "an observer of turns failed" in each.msg]
    assert len(said) == 1
