"""Tests of the assistant with a scripted model: no key, no network. Run with `python -m pytest`."""

import asyncio
from pathlib import Path

import pytest

from seawall import (
    ModelRequest,
    Orchestrator,
    Principal,
    ScriptedModel,
    TextDelta,
    ToolCall,
    ToolMessage,
)

CONFIG = Path(__file__).with_name("seawall.toml")


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The model's part: call the tool, then repeat what it returned."""
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return f"We are open from {last.content}."
    return (ToolCall("call-1", "opening_hours", '{"city": "Oslo"}'),)


async def ask(text: str) -> str:
    """The answer to one message."""
    app = Orchestrator.from_config(CONFIG)
    app.model("default", ScriptedModel(answer))
    async with app:
        client = Principal(tenant="test", subject="ada")
        events = [event async for event in app.run(text, principal=client)]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_opening_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not used")
    monkeypatch.setenv("SEAWALL_SESSIONS__PATH", str(tmp_path / "sessions.db"))
    assert asyncio.run(ask("When are you open in Oslo?")) == "We are open from 10 to 18."
