"""A whole orchestrator over a recorded model server, called over its HTTP APIs."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from msgspec import Struct, field

from seawall.orchestrator import Orchestrator
from tests.models.player import Player, Recording, playing

QUICK = "backoff_seconds = 0.01\nbackoff_cap_seconds = 0.01"


class Served(Struct):
    """A server under test. ran: the arguments with which its tools were called."""

    app: Orchestrator
    client: httpx2.AsyncClient
    players: list[Player]
    ran: list[dict[str, Any]] = field(default_factory=list)

    @property
    def player(self) -> Player:
        return self.players[0]

    async def turn(self, text: str = "hello", **body: Any) -> httpx2.Response:
        return await self.client.post("/v1/turns", json={"text": text, "stream": False, **body})

    async def events(self, text: str = "hello", **body: Any) -> list[dict[str, Any]]:
        answer = await self.client.post("/v1/turns", json={"text": text, "stream": True, **body})
        return [
            json.loads(line.removeprefix("data: "))
            for line in answer.text.splitlines()
            if line.startswith("data: ")
        ]

    async def chat(self, text: str = "hello", **body: Any) -> httpx2.Response:
        messages = [{"role": "user", "content": text}]
        asked = {"model": "auto", "messages": messages, **body}
        return await self.client.post("/v1/chat/completions", json=asked)

    def sent(self, request: int = -1, player: int = 0) -> dict[str, Any]:
        return self.players[player].requests[request].document


@asynccontextmanager
async def serving(
    folder: Path,
    *recordings: Recording,
    judge: Callable[[Any], Recording] | None = None,
    spare: Callable[[Any], Recording] | None = None,
    kind: str = "openai",
    agent: str = "",
    limits: str = "",
    resilience: str = "",
) -> AsyncGenerator[Served, None]:
    """Serve an agent with two tools, whose model is a `Player`.

    spare: plays the fallback.
    """
    async with AsyncExitStack() as stack:
        players = [await stack.enter_async_context(playing(*recordings, judge=judge))]
        if spare is not None:
            players.append(await stack.enter_async_context(playing(judge=spare)))
        (folder / "seawall.toml").write_text(
            _configuration(
                folder,
                [player.url for player in players],
                kind=kind,
                agent=agent,
                limits=limits,
                resilience=resilience,
            )
        )
        app = Orchestrator.from_config(folder / "seawall.toml")
        served = Served(app, httpx2.AsyncClient(), players)

        @app.tool
        async def lookup(path: str = "none") -> str:
            """Look something up."""
            served.ran.append({"path": path})
            return f"found {path}"

        @app.tool
        async def silent() -> str:
            """Answer nothing."""
            served.ran.append({})
            return ""

        async with app:
            transport = httpx2.ASGITransport(app.asgi())
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", timeout=30
            ) as client:
                served.client = client
                yield served


def _configuration(
    folder: Path, urls: list[str], *, kind: str, agent: str, limits: str, resilience: str
) -> str:
    region = 'region = "eu-west-1"\napi_key_env = "HOME"' if kind == "bedrock" else ""
    base = "" if kind == "bedrock" else "/v1"
    models = "\n".join(
        f"""
[models.{name}]
kind = "{kind}"
base_url = "{url}{base}"
model = "m"
warm_connections = 0
{region}
{'fallbacks = ["spare"]' if name == "default" and len(urls) > 1 else ""}
[models.{name}.resilience]
{QUICK}
{resilience}
"""
        for name, url in zip(("default", "spare"), urls, strict=False)
    )
    return f"""
[sessions]
path = "{folder}/sessions.db"
[identity]
anonymous = true
{models}
[agents.helper]
instructions = "Help."
tools = ["lookup", "silent"]
{agent}
[agents.helper.limits]
{limits}
"""
