"""Text that passes from the model's connection to the client's without a task."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import httpx2

from seawall.config import AgentSettings, Settings
from seawall.identity.settings import IdentitySettings
from seawall.models import Model, ModelEvent, ModelRequest, Text
from seawall.models.openai import OpenAIModel, OpenAISettings
from seawall.orchestrator import Orchestrator
from seawall.settings import SessionSettings
from seawall.transport.http_client import HttpClient
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
