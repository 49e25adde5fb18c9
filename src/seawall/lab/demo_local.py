"""The demo with a small local model: a conversation, then a few concurrent users."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from seawall.lab.demo import show_event, stream_turn
from seawall.lab.processes import Service, run_service
from seawall.transport.http_client import HttpClient

__all__ = ["LocalDemoResult", "run_local_demo"]

_LOAD_SECONDS = 120.0
_MESSAGES = ("Hello!", "What is the capital of Norway?", "And what is the sea like?")
_CONFIGURATION = """
[server]
workers = 1

[identity]
anonymous = true

[sessions]
path = "{database}"

[models.default]
kind = "local"

[models.default.resilience]
first_token_seconds = 60

[agents.assistant]
instructions = "A talk between a customer and a friendly assistant, who answers in one sentence."

[agents.assistant.limits]
completion_tokens = 48
"""


class LocalDemoResult(Struct, frozen=True, kw_only=True):
    """Times in seconds; tokens_a_second: generated for all users together."""

    turns: int
    completed: int
    first_text: list[float]
    seconds: float
    tokens_a_second: float


async def run_local_demo(
    turns: int, *, write_line: Callable[[str], None], write: Callable[[str], None]
) -> LocalDemoResult:
    """Start a server with a local model, show a conversation, send a few turns at once.

    Args:
        turns: Turns sent at once.
        write_line: Called with lines of text.
        write: Called with pieces of text.

    Raises:
        SeawallError: Something did not start, or a turn failed.
    """
    client = HttpClient()
    with tempfile.TemporaryDirectory(prefix="seawall-demo-") as folder:
        path = Path(folder) / "seawall.toml"
        path.write_text(_CONFIGURATION.format(database=Path(folder) / "sessions.db"))
        write_line("loading the model ...")
        try:
            async with run_service(
                *("serve", str(path), "--port", "0", "--json"), seconds=_LOAD_SECONDS
            ) as server:
                write_line(f"server with a local model at {server.url}")
                write_line(f"the console, in a browser: {server.url}/console/\n")
                session: str | None = None
                for text in _MESSAGES:
                    write_line(f"User:      {text}")
                    async for event in stream_turn(client, server, "", text, session):
                        session = str(event.get("session", session))
                        show_event(write_line, write, event)
                write_line(f"{turns} turns are sent at once; two generate at a time.")
                return await _crowd(client, server, turns)
        finally:
            await client.close()


async def _crowd(client: HttpClient, server: Service, turns: int) -> LocalDemoResult:
    clock = asyncio.get_running_loop().time
    began = clock()
    firsts: list[float] = []
    written = completed = 0

    async def ask(number: int) -> None:
        nonlocal written, completed
        first: float | None = None
        text = f"I am customer {number}. What do you sell?"
        async for event in stream_turn(client, server, "", text, None):
            if event["type"] == "text.delta" and first is None:
                first = clock() - began
                firsts.append(round(first, 2))
            elif event["type"] == "usage":
                usage = event["usage"]
                written += usage["completion_tokens"] if isinstance(usage, dict) else 0
            elif event["type"] == "turn.completed":
                completed += 1

    async with asyncio.TaskGroup() as group:
        for number in range(turns):
            group.create_task(ask(number))
    seconds = clock() - began
    return LocalDemoResult(
        turns=turns,
        completed=completed,
        first_text=sorted(firsts),
        seconds=round(seconds, 2),
        tokens_a_second=round(written / seconds, 1),
    )
