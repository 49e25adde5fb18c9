"""An agent for clients with tools of their own, whose model does what the message says."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec

from seawall.agents import AgentLimits
from seawall.config import AgentSettings, Settings
from seawall.identity.settings import ApiKeySettings, IdentitySettings
from seawall.models import ModelRequest
from seawall.models.scripted import ScriptedModel
from seawall.orchestrator import Orchestrator
from seawall.settings import EffectSettings, SessionSettings
from seawall.tools.policy import Approval
from seawall.turn import ToolCall, ToolMessage, UserMessage

__all__ = ["KEY", "WEATHER", "Clients", "asking", "key", "results", "serving", "steps"]

KEY = "sw_ann"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def steps(*calls: list[tuple[str, Any]], text: str = "") -> str:
    """A message that makes the model call tools, step by step.

    Args:
        calls: Of each step: names of tools and arguments; a text is written as it is.
        text: Part of the answer.
    """
    return msgspec.json.encode({"steps": calls, "text": text}).decode()


def results(request: ModelRequest) -> list[str]:
    """The results since the user's message."""
    last = max(i for i, each in enumerate(request.messages) if isinstance(each, UserMessage))
    found = [each for each in request.messages[last:] if isinstance(each, ToolMessage)]
    return [f"{'!' * each.failed}{each.content}" for each in found]


def answer(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """The next step of the user's message, or the results so far."""
    last = max(i for i, each in enumerate(request.messages) if isinstance(each, UserMessage))
    message = request.messages[last]
    assert isinstance(message, UserMessage)
    if not message.text.startswith("{"):
        return f"You said {message.text}"
    script, done = msgspec.json.decode(message.text), results(request)
    count = 0
    for number, step in enumerate(script["steps"]):
        if len(done) <= count:
            return tuple(
                ToolCall(
                    f"c{number}.{index}",
                    name,
                    given if isinstance(given, str) else msgspec.json.encode(given).decode(),
                )
                for index, (name, given) in enumerate(step)
            )
        count += len(step)
    return f"{script['text']}Results: {'; '.join(done)}"


def key(name: str, tenant: str = "acme", subject: str = "") -> ApiKeySettings:
    """The API key `sw_NAME`."""
    digest = hashlib.sha256(f"sw_{name}".encode()).hexdigest()
    return ApiKeySettings(sha256=digest, tenant=tenant, subject=subject or name)


class Clients:
    """Clients of an application in this process, and what its model got."""

    def __init__(self, app: Orchestrator, http: httpx2.AsyncClient, model: ScriptedModel) -> None:
        self.app = app
        self.http = http
        self.model = model
        self.looked_up: list[str] = []

    def openai(self, name: str = "ann") -> Any:
        """The official client of a caller."""
        import openai  # noqa: PLC0415 - slow to import

        return openai.AsyncOpenAI(
            base_url="http://test/v1", api_key=f"sw_{name}", max_retries=0, http_client=self.http
        )

    async def post(self, path: str, body: object, name: str = "ann", **headers: str) -> Any:
        """A request of a caller."""
        sent = {"authorization": f"Bearer sw_{name}"} | {
            each.replace("_", "-"): value for each, value in headers.items()
        }
        return await self.http.post(path, json=body, headers=sent)

    @property
    def asked(self) -> ModelRequest:
        """The newest request to the model."""
        return self.model.requests[-1]


@asynccontextmanager
async def serving(
    sessions: SessionSettings, script: Any = answer, **effects: Any
) -> AsyncIterator[Clients]:
    """The application, open.

    Args:
        sessions: Where its sessions are.
        script: Of the model.
        effects: Settings of effects.
    """
    model = ScriptedModel(script)
    people = (key("ann"), key("bob"), key("eve", "evil", "ann"))
    open_agent = AgentSettings(
        instructions="Help.", client_tools=True, tools=("look_up",), limits=AgentLimits(steps=8)
    )
    app = Orchestrator(
        Settings(
            identity=IdentitySettings(api_keys=people),
            sessions=sessions,
            effects=EffectSettings(**effects),
            agents={
                "open": open_agent,
                "closed": AgentSettings(instructions="Help."),
                "careful": AgentSettings(
                    instructions="Help.", client_tools=True, tools=("refund",)
                ),
                "bare": AgentSettings(
                    instructions="Help.", client_tools=True, client_instructions="append"
                ),
                "strict": AgentSettings(instructions="Help.", client_instructions="refuse"),
                "front": AgentSettings(
                    instructions="Hand over.", client_tools=True, handoffs=("open",)
                ),
            },
        )
    )
    app.model("default", model)

    async def look_up(order: str) -> str:
        """Look an order up."""
        clients.looked_up.append(order)
        return f"{order} is delivered"

    async def refund(order: str) -> str:
        """Refund an order."""
        return f"{order} is refunded"

    app.tool(look_up)
    app.tool(refund, mutating=True, approve=Approval())
    async with (
        app,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app.asgi()), base_url="http://test", timeout=30
        ) as http,
    ):
        clients = Clients(app, http, model)
        yield clients


@asynccontextmanager
async def asking(tmp: Any, script: Any = answer, **effects: Any) -> AsyncIterator[Clients]:
    """As `serving`, in SQLite below a folder."""
    sessions = SessionSettings(path=str(tmp / "sessions.db"), orphan_scan_seconds=0.1)
    async with serving(sessions, script, **effects) as clients:
        yield clients
