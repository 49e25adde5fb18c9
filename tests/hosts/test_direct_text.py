"""Text that passes from the model's connection to the client's without a task."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import httpx2
import pytest

from seawall.config import AgentSettings, RoutingSettings, Settings
from seawall.events import Event, TextDelta
from seawall.identity import Trusted
from seawall.identity.settings import IdentitySettings
from seawall.models import Model, ModelEvent, ModelRequest, Text
from seawall.models.openai import OpenAIModel, OpenAISettings
from seawall.orchestrator import Orchestrator
from seawall.requests import new_request
from seawall.settings import (
    AnswerCacheSettings,
    ModelSettings,
    ResilienceSettings,
    SessionSettings,
    TelemetrySettings,
)
from seawall.transport.http_client import HttpClient
from seawall.turn import AnswerOptions, AssistantMessage, OutputFormat, Principal, SessionKey
from tests.hosts.conftest import API_KEY, Pair, identity
from tests.issuer import Issuer
from tests.models.player import Recording, playing
from tests.servers import running_server

_PIECES = 6_000
_FILLING = "f" * 6_000  # what a client never sees, so that the kernel cannot buffer all of it


class _Counted(list[bytes]):
    """Chunks; how many were asked for."""

    asked = 0

    def __iter__(self) -> Iterator[bytes]:
        for each in super().__iter__():
            self.asked += 1
            yield each


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], "filling": _FILLING}).encode() + b"\n\n"


def _text(number: int) -> str:
    return f"{number:05} " + "y" * 100


async def _still(chunks: _Counted) -> None:
    """Wait until no more of them are asked for."""
    async with asyncio.timeout(20):
        before = -1
        while chunks.asked < 2 or chunks.asked != before:
            before = chunks.asked
            await asyncio.sleep(0.5)


async def test_a_client_that_does_not_read_stops_the_model(
    tmp_path: Path, issuer: Issuer, pair: Pair
) -> None:
    pieces = [_chunk({"content": _text(number)}) for number in range(_PIECES)]
    chunks = _Counted([*pieces, _chunk({}, "stop"), b"data: [DONE]\n\n"])
    async with playing(Recording(chunks)) as player:
        settings = {
            "SERVER__WORKERS": "1",
            "MODELS__DEFAULT__BASE_URL": f"{player.url}/v1",
            **identity(tmp_path, issuer),
        }
        with running_server(tmp_path, pair.model, **settings) as server:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", int(server.url.rpartition(":")[2]), limit=1 << 14
            )
            body = json.dumps({"text": "Where is my order?", "stream": True}).encode()
            writer.write(
                b"POST /v1/turns HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
                b"content-type: application/json\r\nauthorization: Bearer %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (API_KEY.encode(), len(body), body)
            )
            await _still(chunks)
            assert 1 < chunks.asked < _PIECES
            data = await reader.read(-1)
            writer.close()
    events = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]
    text = "".join(each["text"] for each in events if each["type"] == "text.delta")
    assert text == "".join(map(_text, range(_PIECES)))
    assert events[-1]["type"] == "turn.completed"


class _Loud:
    """A model of an application, around an adapter: it writes in capitals."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.warm = model.warm
        self.close = model.close

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        async with aclosing(self._model.stream(request, deadline=deadline)) as events:
            async for event in events:
                yield Text(event.text.upper()) if isinstance(event, Text) else event


async def test_text_does_not_pass_by_a_model_around_another(tmp_path: Path) -> None:
    chunks = [_chunk({"content": f"word{number} "}) for number in range(20)]
    recording = Recording([*chunks, _chunk({}, "stop"), b"data: [DONE]\n\n"], seconds=0.01)
    async with playing(recording) as player:
        upstream = HttpClient()
        adapter = OpenAIModel(
            "default", OpenAISettings(base_url=f"{player.url}/v1", model="m"), upstream
        )
        app = Orchestrator(
            Settings(
                identity=IdentitySettings(anonymous=True),
                sessions=SessionSettings(path=str(tmp_path / "sessions.db")),
                agents={"open": AgentSettings(instructions="Help.")},
            )
        )
        app.model("default", _Loud(adapter))
        transport = httpx2.ASGITransport(app=app.asgi(), client=("127.0.0.1", 1))
        async with (
            app,
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            answer = await client.post(
                "/v1/turns",
                json={"text": "Hi", "stream": True},
                headers={"idempotency-key": "a"},  # its text is taken without a task
            )
        await upstream.close()
    found = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    text = "".join(each["text"] for each in found if each["type"] == "text.delta")
    assert text == "".join(f"WORD{number} " for number in range(20))


_WORDS = [f"{number} " for number in range(30)]
_STOPPED = AnswerOptions(stop=("21",))
_OBJECT = AnswerOptions(output=OutputFormat("answer", {"type": "object"}))


@pytest.mark.parametrize(
    ("agent", "options", "taken"),
    [
        ("plain", None, True),
        ("acting", None, True),
        ("first", None, True),
        ("resumed", None, True),
        ("kept", None, False),
        ("plain", _STOPPED, False),
        ("plain", _OBJECT, False),
    ],
    ids=["plain", "tools", "hand-off", "broken off", "cached", "stop", "schema"],
)
@pytest.mark.parametrize("telemetry", ["", "http://127.0.0.1:9"], ids=["", "traced"])
async def test_what_a_client_gets_is_what_the_session_has(
    tmp_path: Path,
    agent: str,
    options: AnswerOptions | None,
    taken: bool,
    telemetry: str,
) -> None:
    """Whatever is between the model and the client, and whether or not a sink takes text."""
    words = ['{"a": "', *_WORDS, '"}'] if options is _OBJECT else _WORDS
    chunks = [_chunk({"content": each}) for each in words]
    end = [_chunk({}, "stop"), b"data: [DONE]\n\n"]
    whole = Recording([*chunks, *end], seconds=0.002)
    recordings = [whole]
    if agent in ("acting", "first"):
        name, arguments = ("look_up", "{}") if agent == "acting" else ("hand_off", _TO_PLAIN)
        recordings.insert(0, Recording([*chunks[:9], _call(name, arguments), *end], seconds=0.002))
    if agent == "resumed":
        recordings.insert(0, Recording(chunks[:9], cut=True, seconds=0.002))
    async with playing(*recordings) as player:
        model = ModelSettings(
            base_url=f"{player.url}/v1",
            model="m",
            resilience=ResilienceSettings(resume=True, backoff_seconds=1e-3),
        )
        app = Orchestrator(
            Settings(
                identity=IdentitySettings(anonymous=True),
                sessions=SessionSettings(path=str(tmp_path / "sessions.db")),
                models={"default": model},
                telemetry=TelemetrySettings(endpoint=telemetry),
                agents={
                    "plain": AgentSettings(instructions="Help."),
                    "acting": AgentSettings(instructions="Help.", tools=("look_up",)),
                    "first": AgentSettings(instructions="Help.", handoffs=("plain",)),
                    "resumed": AgentSettings(instructions="Help."),
                    "kept": AgentSettings(
                        instructions="Help.", cache=AnswerCacheSettings(seconds=60)
                    ),
                },
                routing=RoutingSettings(default_agent="plain"),
            )
        )

        async def look_up() -> str:
            """Look something up."""
            return "found"

        app.tool(look_up)
        async with app:
            for _ in range(2):  # the second may be from a cache
                seen: list[str] = []
                by_sink = 0

                async def emit(*events: Event, seen: list[str] = seen) -> None:
                    seen += [each.text for each in events if isinstance(each, TextDelta)]

                def sink(text: str, seen: list[str] = seen) -> bool:
                    nonlocal by_sink
                    by_sink += 1
                    seen.append(text)
                    return True

                request = new_request("Hi", agent=agent, options=options)
                await app.engine.execute(
                    request, Trusted(Principal("acme", "ann")), emit, sink=sink
                )
                key = SessionKey("acme", "ann", request.session)
                (turn,) = (await app.engine.store.turns(key, limit=2)).turns
                said = [e.text for e in turn.messages if isinstance(e, AssistantMessage)]
                assert "".join(seen) == "".join(said)
                assert "20 " in said[-1]
                assert bool(by_sink) == taken
                player.requests.clear()


_TO_PLAIN = '{"agent": "plain", "reason": "x"}'


def _call(name: str, arguments: str) -> bytes:
    function = {"name": name, "arguments": arguments}
    made = {"index": 0, "id": "c", "type": "function", "function": function}
    choice = {"index": 0, "delta": {"tool_calls": [made]}, "finish_reason": None}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
