"""A server made with the official SDK asks the user: the turn pauses, and goes on anywhere."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seawall import Orchestrator, ScriptedModel
from seawall.config import AgentSettings, Settings
from seawall.errors import AlreadyDecided, InvalidField, TurnNotFound
from seawall.events import ApprovalRequested, Event, ToolReturned, TurnCompleted, TurnPaused
from seawall.pipeline.decisions import Verdict
from seawall.pipeline.live import LiveTurn
from seawall.settings import EffectSettings, SessionSettings
from seawall.storage.audit import verify
from seawall.tools.settings import McpSettings, SourceLimits
from seawall.turn import Principal, ToolCall, TurnRecord
from tests.pipeline.conftest import place  # noqa: F401 - a fixture
from tests.pipeline.shop import ANN, Outcome, Script, ask, stored, waits
from tests.tools.mcp.harness import HERE, python_server

LIMITS = SourceLimits(list_seconds=60.0, answer_seconds=20.0)
ORDER = ToolCall("c1", "order", '{"item":"tent"}')
SHOP = ToolCall("c1", "find_shop", '{"city":"Bern"}')
COUNT = ToolCall("c2", "count", '{"city":"Bern"}')
PAY = ToolCall("c1", "pay", '{"amount":5}')


class Asking(msgspec.Struct):
    """A server that asks, and the file of what it has done."""

    where: dict[str, Any]
    file: Path

    def done(self, turn: TurnRecord) -> list[str]:
        """What it has done with the keys of a turn's effects."""
        assert turn.journal is not msgspec.UNSET
        keys = {each.key for each in turn.journal.effects}
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        pairs = [line.split(" ", 1) for line in lines]
        return [text for key, text in pairs if key in keys]


@contextmanager
def asking_server(folder: Path, *arguments: str) -> Iterator[Asking]:
    file = folder / "done.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        (sys.executable, str(HERE / "asking_server.py"), str(port), *arguments),
        env=os.environ | {"DONE": str(file)},
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.05)
            else:
                break
        yield Asking({"mcp": f"http://127.0.0.1:{port}/mcp"}, file)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """Made once: importing the SDK takes seconds."""
    with asking_server(tmp_path_factory.mktemp("asking")) as server:
        yield server


@asynccontextmanager
async def assistant(
    sessions: SessionSettings,
    where: dict[str, Any],
    *calls: ToolCall,
    effects: EffectSettings | None = None,
    **more: Any,
) -> AsyncIterator[Orchestrator]:
    source = McpSettings(**where, trust_annotations=True, limits=LIMITS, **more)
    settings = Settings(
        sessions=sessions, sources={"server": source}, effects=effects or EffectSettings()
    )
    app = Orchestrator(settings)
    app.model("m", ScriptedModel(Script(calls)))
    app.agent("a", AgentSettings(instructions="x", model="m", tools=("server.*",)))
    async with app:
        yield app


async def answered(
    app: Orchestrator, turn: str, verdict: Verdict, *, by: Principal = ANN, call: str = "c1"
) -> list[Event]:
    """Answer, and follow the turn to its end or next pause."""
    _, live = await app.engine.pipeline.decide(by, turn, call, verdict)
    assert isinstance(live, LiveTurn)
    return [event async for _, event in live.follow()]


def accept(question: int, **content: object) -> Verdict:
    return Verdict(decision="accept", question=question, content=content)


def requested(outcome: Outcome | list[Event]) -> ApprovalRequested:
    """What a turn that has paused asks for."""
    events = outcome.events if isinstance(outcome, Outcome) else outcome
    *_, wanted, last = events
    assert isinstance(last, TurnPaused), events
    assert isinstance(wanted, ApprovalRequested)
    return wanted


def result(events: list[Event]) -> ToolReturned:
    assert isinstance(events[-1], TurnCompleted), events
    return next(each for each in reversed(events) if isinstance(each, ToolReturned))


async def test_an_effect_asks_twice_and_goes_on_in_other_processes(
    place: SessionSettings,  # noqa: F811
    server: Asking,
) -> None:
    """The store has all that is needed: each answer is taken by another orchestrator."""
    async with assistant(place, server.where, ORDER) as app:
        paused = await ask(app)
        first = requested(paused)
        assert first.question is not None
        assert (first.kind, first.role, first.question.number) == ("input", None, 1)
        assert first.question.source == "server"
        fields = first.question.schema["properties"] if first.question.schema else {}
        asked_address = "street" in fields  # the two have no order
        [record] = await stored(app, paused.request.session)
        assert not server.done(record)
    turn = paused.request.id
    replies: list[dict[str, Any]] = [{"street": "Main Street 1", "floor": 2}, {"pin": "1234"}]
    if not asked_address:
        replies.reverse()
    async with assistant(place, server.where, ORDER, redact_answers=("pin",)) as app:
        with pytest.raises(TurnNotFound):
            await answered(app, turn, accept(1, **replies[0]), by=Principal("shop", "eve"))
        with pytest.raises(InvalidField, match="does not fit") as invalid:
            await answered(app, turn, accept(1, street=7, pin=7))
        assert invalid.value.field is not None
        assert invalid.value.field.startswith("content")
        second = requested(await answered(app, turn, accept(1, **replies[0])))
        assert second.question is not None
        assert second.question.number == 2
        with pytest.raises(AlreadyDecided):  # the first answer, sent again
            await answered(app, turn, accept(1, **replies[0]))
        [record] = await stored(app, paused.request.session)
        assert not server.done(record)
    async with assistant(place, server.where, ORDER) as app:
        done = result(await answered(app, turn, accept(2, **replies[1])))
        assert done.content == "tent to Main Street 1, floor 2, 4 digits"
        [record] = await stored(app, paused.request.session)
        assert record.journal is not msgspec.UNSET
        [effect] = record.journal.effects
        assert (effect.status, effect.input) == ("done", None)
        assert server.done(record) == [done.content]
        assert b"1234" not in msgspec.json.encode(record)
        assert not await waits(app)
        replayed = [each async for _, each in app.engine.events(ANN, turn, after=0)]
        asked = [each for each in replayed if isinstance(each, ApprovalRequested)]
        assert [each.question for each in asked] == [first.question, second.question]
        records = (await app.engine.store.audit(limit=10)).records
        assert [each.status for each in records] == ["accept", "accept", "done"]
        assert {each.effect for each in records} == {effect.id}
        assert "Where to?" in [each.question for each in records]
        assert verify(records) is None


async def test_values_that_must_not_be_shown_are_in_no_record(
    server: Asking, tmp_path: Path
) -> None:
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    async with (
        assistant(sessions, server.where, ORDER, redact_answers=("*",)) as app,
    ):
        outcome = await ask(app)
        for number in (1, 2):
            question = requested(outcome).question
            assert question is not None
            assert question.schema is not None
            address = "street" in question.schema["properties"]
            content: dict[str, Any] = {"street": "Hidden Alley"} if address else {"pin": "987654"}
            events = await answered(app, outcome.request.id, accept(number, **content))
            outcome.events = events
        assert "Hidden Alley" in result(events).content  # the server's own words
        decisions = (await app.engine.store.audit(limit=2)).records
        assert all("[redacted]" in each.decision.arguments for each in decisions if each.decision)
        assert b"987654" not in (tmp_path / "sessions.db").read_bytes()
        assert b"987654" not in msgspec.json.encode(decisions)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (accept(1, street="Main Street 1"), "near Main Street 1 (accept)"),
        (Verdict(decision="decline", question=1), "near no street (decline)"),
        (Verdict(decision="cancel", question=1), "near no street (cancel)"),
    ],
)
async def test_a_read_asks(server: Asking, verdict: Verdict, said: str, tmp_path: Path) -> None:
    """It is journaled because it waits; the other read of the step is not made again."""
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    async with (
        assistant(sessions, server.where, SHOP, COUNT) as app,
    ):
        paused = await ask(app)
        assert requested(paused).name == "find_shop"
        assert not [each for each in paused.events if isinstance(each, ToolReturned)]
        events = await answered(app, paused.request.id, verdict)
        returned = [each.content for each in events if isinstance(each, ToolReturned)]
        assert returned == [f"the shop of Bern {said}", "3 in Bern"]
        replayed = [each async for _, each in app.engine.events(ANN, paused.request.id, after=0)]
        assert replayed[:-1] == events[:-1]


async def test_nobody_answers(server: Asking, tmp_path: Path) -> None:
    """Then the server reads that the question was cancelled."""
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"), orphan_scan_seconds=0.2)
    async with (
        assistant(
            sessions, server.where, SHOP, effects=EffectSettings(approval_seconds=0.5)
        ) as app,
    ):
        paused = await ask(app)
        expires_at = requested(paused).expires_at
        assert expires_at
        async with asyncio.timeout(20):
            while (await stored(app, paused.request.session))[0].status != "completed":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        events = [each async for _, each in app.engine.events(ANN, paused.request.id, after=0)]
        assert result(events).content.endswith("near no street (cancel)")


async def test_a_page_to_visit(server: Asking, tmp_path: Path) -> None:
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    async with (
        assistant(sessions, server.where, PAY) as app,
    ):
        paused = await ask(app)
        question = requested(paused).question
        assert question is not None
        assert (question.schema, question.url) == (None, "https://bank.example/pay/7")
        with pytest.raises(InvalidField):
            await answered(app, paused.request.id, accept(1, pin="1"))
        events = await answered(app, paused.request.id, Verdict(decision="accept", question=1))
        assert result(events).content == "paying 5.0: accept"
        [record] = await stored(app, paused.request.session)
        assert server.done(record) == ["paying 5.0: accept"]


async def test_a_server_that_has_forgotten_its_question_asks_again(tmp_path: Path) -> None:
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    with asking_server(tmp_path, "0.3") as short:
        where = short.where
        await _asked_again(sessions, where)


async def _asked_again(sessions: SessionSettings, where: dict[str, Any]) -> None:
    async with assistant(sessions, where, SHOP) as app:
        paused = await ask(app)
        await asyncio.sleep(0.5)
        turn = paused.request.id
        again = requested(await answered(app, turn, accept(1, street="Main Street 1"))).question
        assert again is not None
        assert again.number == 2
        events = await answered(app, turn, accept(2, street="Main Street 2"))
        assert "Main Street 2" in result(events).content


async def test_questions_are_declined_if_not_wanted(server: Asking, tmp_path: Path) -> None:
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    async with (
        assistant(sessions, server.where, SHOP, elicitation=False) as app,
    ):
        outcome = await ask(app)
        assert outcome.problem is None
        assert result(outcome.events).failed  # the server may not ask such a client


def old_server(folder: Path) -> dict[str, Any]:
    """The same server, as one of version 2025-11-25 on standard streams."""
    os.environ["DONE"] = str(folder / "done.txt")
    return {"command": python_server("old_asking_server.py"), "env_pass": ("DONE",)}


async def test_a_server_that_asks_while_a_call_runs(tmp_path: Path) -> None:
    """Its call is made again with the answer, if the server may be called again."""
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    where = old_server(tmp_path)
    async with assistant(sessions, where, SHOP, elicitation=True) as app:
        paused = await ask(app)
        assert requested(paused).name == "find_shop"
    async with assistant(sessions, where, SHOP, elicitation=True) as app:
        events = await answered(app, paused.request.id, accept(1, street="Main Street 1"))
        assert result(events).content == "the shop of Bern near Main Street 1 (accept)"


async def test_an_effect_that_may_not_be_called_again_is_not(tmp_path: Path) -> None:
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    async with assistant(sessions, old_server(tmp_path), ORDER, elicitation=True) as app:
        outcome = await ask(app)
        assert outcome.problem is None
        assert "declined" in result(outcome.events).content


async def test_what_comes_later_in_order_waits(server: Asking, tmp_path: Path) -> None:
    sessions = SessionSettings(path=str(tmp_path / "sessions.db"))
    later = ToolCall("c2", "pay", '{"amount":6}')
    async with assistant(sessions, server.where, PAY, later) as app:
        paused = await ask(app)
        turn = paused.request.id
        for call in ("c1", "c2"):
            asked = requested(paused)
            assert (asked.id, asked.question and asked.question.number) == (call, 1)
            [record] = await stored(app, paused.request.session)
            assert len(server.done(record)) == (call == "c2")
            agreed = Verdict(decision="accept", question=1)
            paused.events = await answered(app, turn, agreed, call=call)
        [record] = await stored(app, paused.request.session)
        assert record.status == "completed"
        assert len(server.done(record)) == 2
