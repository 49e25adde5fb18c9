"""Public servers, driven through real turns: a model's calls, the agent loop, effects and all."""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from seawall import Orchestrator, ScriptedModel
from seawall.agents import AgentLimits
from seawall.config import AgentSettings, Settings
from seawall.events import ApprovalRequested, ToolReturned, TurnPaused
from seawall.models import ModelRequest
from seawall.pipeline.decisions import Verdict
from seawall.settings import EffectSettings, SessionSettings, ToolPolicySettings
from seawall.tools.settings import McpSettings, SourceLimits, SourceSettings
from seawall.turn import ToolCall, ToolMessage
from tests.parts import mcp_parts, require, tools
from tests.pipeline.shop import ANN, ask, stored

LIMITS = SourceLimits(list_seconds=30.0)


def once(*calls: tuple[str, dict[str, Any]]) -> Callable[[ModelRequest], Any]:
    """The script of a model that makes these calls in one step, then answers."""
    made = tuple(
        ToolCall(f"c{index}", name, msgspec.json.encode(arguments).decode())
        for index, (name, arguments) in enumerate(calls)
    )

    def script(request: ModelRequest) -> Any:
        done = any(isinstance(each, ToolMessage) for each in request.messages)
        return "Done." if done else made

    return script


@asynccontextmanager
async def assistant(
    place: Path,
    settings: McpSettings,
    script: Callable[[ModelRequest], Any],
    effects: EffectSettings | None = None,
) -> AsyncIterator[Orchestrator]:
    """An agent that has all tools of a server."""
    sessions = SessionSettings(path=str(place / "sessions.db"))
    sources: dict[str, SourceSettings] = {"server": settings}
    app = Orchestrator(
        Settings(sessions=sessions, sources=sources, effects=effects or EffectSettings())
    )
    app.model("m", ScriptedModel(script))
    limits = AgentLimits(tool_calls=16)
    agent = AgentSettings(instructions="x", model="m", tools=("server.*",), limits=limits)
    app.agent("a", agent)
    async with app:
        yield app


async def results(app: Orchestrator) -> list[ToolReturned]:
    """What came back of the calls of a turn."""
    outcome = await ask(app)
    assert outcome.problem is None
    return [each for each in outcome.events if isinstance(each, ToolReturned)]


@asynccontextmanager
async def everything(way: str) -> AsyncIterator[dict[str, Any]]:
    """Where the server with everything is: over HTTP it has sessions, and streams to resume."""
    command = mcp_parts.server("everything")
    if way == "stdio":
        yield {"command": (*command, "stdio")}
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *command,
        "streamableHttp",
        env=os.environ | {"PORT": str(port)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        while b"listening" not in (line := await process.stderr.readline()):
            assert line, "it has ended"
        yield {"mcp": f"http://127.0.0.1:{port}/mcp"}
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_the_server_with_everything(way: str, tmp_path: Path) -> None:
    require(mcp_parts.missing())
    script = once(
        ("echo", {"message": "hello"}),
        ("get-sum", {"a": 2, "b": 3}),
        ("get-tiny-image", {}),
        ("get-structured-content", {"location": "Chicago"}),
        ("get-resource-links", {"count": 2}),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
        ("trigger-long-running-operation", {"duration": 1, "steps": 2}),
        ("list_resources", {}),
        ("get_prompt", {"name": "args-prompt", "arguments": {"city": "Bern"}}),
        ("get-sum", {"a": "two"}),
    )
    more: dict[str, Any] = {"trust_annotations": True, "resources": True, "prompts": True}
    async with (
        everything(way) as where,
        assistant(tmp_path, McpSettings(**where, **more, limits=LIMITS), script) as app,
    ):
        found = [each.content for each in await results(app)]
    echo, total, image, structured, links, reference, long, resources, prompt, wrong = found
    assert echo == "Echo: hello"
    assert "5" in total
    assert "[image image/png" in image
    assert msgspec.json.decode(structured)["conditions"]
    assert links.count("[resource ") == 2
    assert "[resource demo://resource/dynamic/text/1 text/plain]" in reference
    assert "completed" in long
    assert "demo://resource/static/document/" in resources
    assert "Bern" in prompt
    assert wrong.startswith("Invalid arguments for get-sum")


async def test_the_file_server(tmp_path: Path) -> None:
    """Writing is an effect: it goes through the journal, and its outcome is recorded."""
    require(mcp_parts.missing())
    shared = tmp_path / "shared"
    shared.mkdir()
    settings = McpSettings(
        command=(*mcp_parts.server("filesystem"), str(shared)),
        trust_annotations=True,
        limits=LIMITS,
    )
    script = once(
        ("write_file", {"path": str(shared / "a.txt"), "content": "hello"}),
        ("read_text_file", {"path": str(tmp_path / "sessions.db")}),
    )
    async with assistant(tmp_path, settings, script) as app:
        written, refused = await results(app)
        assert not written.failed
        assert (shared / "a.txt").read_text() == "hello"
        assert refused.failed
        assert "denied" in refused.content


async def test_the_memory_server(tmp_path: Path) -> None:
    require(mcp_parts.missing())
    settings = McpSettings(command=mcp_parts.server("memory"), limits=LIMITS)
    entity = {"name": "Ann", "entityType": "customer", "observations": ["likes tea"]}
    script = once(("create_entities", {"entities": [entity]}), ("search_nodes", {"query": "tea"}))
    async with assistant(tmp_path, settings, script) as app:
        created, found = await results(app)
    assert not created.failed
    assert "likes tea" in found.content


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_the_server_with_everything_asks_the_user(way: str, tmp_path: Path) -> None:
    """Over HTTP it asks on the session's stream. The call is made again with the answer."""
    require(mcp_parts.missing())
    script = once(("trigger-elicitation-request", {}))
    more: dict[str, Any] = {"trust_annotations": True, "elicitation": True, "limits": LIMITS}
    effects = EffectSettings(tools={"trigger-elicitation-request": ToolPolicySettings(retry="key")})
    async with (
        everything(way) as where,
        assistant(tmp_path, McpSettings(**where, **more), script, effects) as app,
    ):
        outcome = await ask(app)
        *_, wanted, paused = outcome.events
        assert isinstance(paused, TurnPaused)
        assert isinstance(wanted, ApprovalRequested)
        assert wanted.question is not None
        assert wanted.question.schema is not None
        fields = wanted.question.schema["properties"]
        assert {"name", "check", "email", "integer"} <= fields.keys()
        content = {"name": "Ann", "check": True, "email": "ann@example.com", "integer": 7}
        verdict = Verdict(decision="accept", question=1, content=content)
        _, live = await app.engine.pipeline.decide(ANN, outcome.request.id, wanted.id, verdict)
        assert live is not None
        events = [event async for _, event in live.follow()]
    [returned] = [each for each in events if isinstance(each, ToolReturned)]
    assert not returned.failed
    assert "Ann" in returned.content
    assert "ann@example.com" in returned.content


async def test_a_model_is_shown_an_image_in_its_turn_and_no_later(tmp_path: Path) -> None:
    require(mcp_parts.missing())
    requests: list[ModelRequest] = []
    answer = once(("get-tiny-image", {}))

    def script(request: ModelRequest) -> Any:
        requests.append(request)
        return answer(request)

    async with (
        everything("stdio") as where,
        assistant(
            tmp_path, McpSettings(**where, trust_annotations=True, limits=LIMITS), script
        ) as app,
    ):
        outcome = await ask(app)
        assert outcome.problem is None
        [result] = [each for each in requests[1].messages if isinstance(each, ToolMessage)]
        [image] = result.images
        assert image.media_type == "image/png"
        assert base64.b64decode(image.data).startswith(b"\x89PNG")
        assert "[image image/png, " in result.content
        [turn] = await stored(app, outcome.request.session)
        [kept] = [each for each in turn.messages if isinstance(each, ToolMessage)]
        assert not kept.images
        assert kept.content.endswith("[Its images are not kept.]")


async def test_the_time_server(tmp_path: Path) -> None:
    """Made in Python; what is impossible is an error that models can read."""
    require(tools.missing_mcp_time())
    settings = McpSettings(
        command=(str(tools.mcp_time()), "--local-timezone", "Europe/Zurich"),
        trust_annotations=True,
        limits=LIMITS,
    )
    noon = {"source_timezone": "Europe/Zurich", "target_timezone": "Asia/Tokyo", "time": "12:00"}
    script = once(
        ("convert_time", noon),
        ("get_current_time", {"timezone": "Asia/Kolkata"}),
        ("get_current_time", {"timezone": "Middle-earth/Shire"}),
        ("get_current_time", {}),
    )
    async with assistant(tmp_path, settings, script) as app:
        converted, now, nowhere, invalid = await results(app)
    found = msgspec.json.decode(converted.content)
    there = datetime.fromisoformat(found["target"]["datetime"])
    here = datetime.fromisoformat(found["source"]["datetime"])
    assert here == there
    assert here.hour == 12
    zone = ZoneInfo("Asia/Tokyo")
    assert there.utcoffset() == here.astimezone(zone).utcoffset()
    said = datetime.fromisoformat(msgspec.json.decode(now.content)["datetime"])
    assert abs((said - datetime.now(ZoneInfo("Asia/Kolkata"))).total_seconds()) < 60
    assert nowhere.failed
    assert "Middle-earth" in nowhere.content
    assert invalid.failed
