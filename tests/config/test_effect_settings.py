"""The section `[effects]` reaches turns, tools and the store."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from seawall import Orchestrator, ScriptedModel
from seawall.config import AgentSettings, parse_settings
from seawall.errors import ConfigError
from seawall.events import ApprovalRequested, Event, TurnCompleted, TurnFailed, TurnPaused
from seawall.models import ModelRequest
from seawall.requests import new_request
from seawall.turn import Principal, ToolCall, ToolMessage

ANN = Principal("shop", "ann")
SECTION = """
[effects]
approval_seconds = 40
keep_seconds = 1000
"""


def _answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    if isinstance(request.messages[-1], ToolMessage):
        return "done"
    text = getattr(request.messages[-1], "text", "")
    return (ToolCall("c1", "refund", text),) if text.startswith("{") else "hello"


def _app(folder: Path, section: str) -> Orchestrator:
    app = Orchestrator(parse_settings(f'[sessions]\npath = "{folder / "s.db"}"\n{section}'))

    def refund(amount: float) -> str:
        """Refund."""
        return f"refunded {amount:g}"

    app.model("m", ScriptedModel(_answer))
    app.tool(refund, mutating=True)
    app.agent("a", AgentSettings(instructions="x", model="m", tools=("refund",)))
    return app


async def _ask(app: Orchestrator, text: str, session: str | None = None) -> list[Event]:
    request = new_request(text, session=session)
    return [event async for event in app.run(request, principal=ANN)]


async def test_approvals_expire_and_records_are_kept_as_configured(tmp_path: Path) -> None:
    approved = '[effects.tools.refund]\napprove = "amount > 10"\n'
    async with _app(tmp_path, SECTION + approved) as app:
        assert isinstance((await _ask(app, '{"amount": 5}'))[-1], TurnCompleted)
        with closing(sqlite3.connect(tmp_path / "s.db")) as database:
            (ends_at,) = database.execute("SELECT ends_at FROM audit").fetchone()
        assert ends_at == pytest.approx(time.time() + 1000, abs=30)
        *_, requested, paused = await _ask(app, '{"amount": 50}')
        assert isinstance(paused, TurnPaused)
        assert isinstance(requested, ApprovalRequested)
        assert requested.expires_at == pytest.approx(time.time() + 40, abs=20)


@pytest.mark.parametrize("next_message", ["answer", "refuse"])
async def test_the_next_message_of_a_paused_session(tmp_path: Path, next_message: str) -> None:
    section = f'{SECTION}next_message = "{next_message}"\n'
    section += '[effects.tools.refund]\napprove = "always"\n'
    async with _app(tmp_path, section) as app:
        paused = (await _ask(app, '{"amount": 50}'))[-1]
        assert isinstance(paused, TurnPaused)
        last = (await _ask(app, "hi", paused.session))[-1]
        if next_message == "answer":
            assert isinstance(last, TurnCompleted)
        else:
            assert isinstance(last, TurnFailed)
            assert last.problem["code"] == "turn-paused"


async def test_a_table_of_an_unknown_tool_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'effects\.tools\.refnd: .*did you mean "refund"'):
        await _app(tmp_path, '[effects.tools.refnd]\napprove = "always"\n').open()
