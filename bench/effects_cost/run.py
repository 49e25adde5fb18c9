"""What an effect costs a turn, and what ten thousand paused turns cost a server.

    .venv/bin/python bench/effects_cost/run.py [--quick]

Runs turns in this process: a model that follows a script, a tool that changes nothing outside, and
sessions in SQLite, then in DynamoDB Local. Prints tables, and the figures as one JSON line at the
end. See README.md.
"""

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.dynamodb_local import ENVIRONMENT, running_dynamodb
from tests.parts.dynamodb_local import missing

from seawall import (
    AgentSettings,
    ModelRequest,
    Orchestrator,
    Principal,
    ScriptedModel,
    SessionSettings,
    Settings,
    ToolCall,
    ToolMessage,
    new_request,
    tool,
)
from seawall.events import Event
from seawall.identity import Trusted
from seawall.storage.dynamodb.store import DynamoDBStore

KINDS = ("look_up", "change", "ask_first")
AT_ONCE = 50


def script(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """Call the tool that the message names, then answer; or answer at once."""
    last = request.messages[-1]
    if isinstance(last, ToolMessage) or last.text == "answer":
        return "Done: your order is on its way and should be with you by Friday."
    return (ToolCall("call_1", last.text, '{"order": "o-1"}'),)


@tool
def look_up(order: str) -> str:
    """Look an order up."""
    return f"{order} is delivered"


@tool(mutating=True, retry="key")
def change(order: str) -> str:
    """Change an order."""
    return f"{order} is changed"


@tool(mutating=True, approve="always")
def ask_first(order: str) -> str:
    """Change an order, with permission."""
    return f"{order} is changed"


@asynccontextmanager
async def orchestrator(sessions: SessionSettings) -> AsyncGenerator[Orchestrator, None]:
    """With an agent that has all three tools."""
    app = Orchestrator(Settings(sessions=sessions))
    app.model("scripted", ScriptedModel(script))
    for each in (look_up, change, ask_first):
        app.tool(each.function, mutating=each.mutating, **_declared(each.name))
    app.agent("shop", AgentSettings(instructions="Help.", model="scripted", tools=KINDS))
    async with app:
        yield app


def _declared(name: str) -> dict[str, str]:
    return {"change": {"retry": "key"}, "ask_first": {"approve": "always"}}.get(name, {})


async def turn(app: Orchestrator, kind: str, session: str | None = None) -> str:
    """Run one turn; the id of its session."""

    async def emit(*_: Event) -> None:
        return

    request = new_request(kind, session=session)
    await app.engine.execute(request, Trusted(Principal("shop", "ann")), emit)
    return request.session


async def cpu_of_turns(app: Orchestrator, kind: str, count: int) -> tuple[float, float]:
    """Milliseconds of CPU and of time of one turn, each the second of its session, many at once."""
    opened = [await turn(app, "look_up") for _ in range(AT_ONCE)]
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(count // AT_ONCE):
        await asyncio.gather(*(turn(app, kind, session) for session in opened))
    share = 1e3 / (count // AT_ONCE * AT_ONCE)
    return (time.process_time() - cpu) * share, (time.perf_counter() - began) * share


def resident_bytes() -> int:
    """Memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def paused_turns(app: Orchestrator, count: int) -> dict[str, float]:
    """Pause many turns; what they leave in memory, and what listing them costs."""
    for _ in range(AT_ONCE):  # so that what is allocated once is there
        await turn(app, "ask_first")
    before, began = resident_bytes(), time.perf_counter()
    for _ in range(count // AT_ONCE):
        await asyncio.gather(*(turn(app, "ask_first") for _ in range(AT_ONCE)))
    seconds = time.perf_counter() - began
    after = resident_bytes()
    tasks = len(asyncio.all_tasks())
    began, found, cursor = time.perf_counter(), 0, None
    while True:
        page = await app.engine.store.waits("shop", limit=200, cursor=cursor)
        found, cursor = found + len(page.waits), page.cursor
        if cursor is None:
            break
    return {
        "paused": found,
        "pausing_seconds": seconds,
        "bytes_each": (after - before) / count,
        "tasks": tasks,
        "list_seconds": time.perf_counter() - began,
    }


async def calls_of_turns(endpoint: str) -> dict[str, dict[str, float]]:
    """Requests to DynamoDB, and their bytes, of the second turn of a session."""
    for name, value in ENVIRONMENT.items():
        os.environ[name] = value
    settings = SessionSettings(
        store="dynamodb",
        table=f"effects-{os.urandom(6).hex()}",
        endpoint=endpoint,
        region=ENVIRONMENT["AWS_REGION"],
        create_table=True,
    )
    found: dict[str, dict[str, float]] = {}
    async with orchestrator(settings) as app:
        store = app.engine.store
        assert isinstance(store, DynamoDBStore)
        traffic = store.table.client.traffic
        for kind in KINDS:
            session = await turn(app, "look_up")
            before = (traffic.round_trips, traffic.bytes_sent, traffic.bytes_received)
            await turn(app, kind, session)
            found[kind] = {
                "requests": traffic.round_trips - before[0],
                "bytes_sent": traffic.bytes_sent - before[1],
                "bytes_received": traffic.bytes_received - before[2],
            }
    return found


async def measure(*, quick: bool) -> dict[str, object]:
    """All figures."""
    turns, paused = (500, 1_000) if quick else (5_000, 10_000)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = SessionSettings(path=str(Path(folder) / "sessions.db"))
        async with orchestrator(settings) as app:
            await cpu_of_turns(app, "look_up", AT_ONCE)
            print(f"{turns} turns of each kind, {AT_ONCE} at once, SQLite, the second of a session")
            for kind in ("answer", *KINDS[:2]):
                cpu, took = await cpu_of_turns(app, kind, turns)
                figures[f"{kind}_cpu_ms"] = round(cpu, 3)
                print(f"  {kind:10} {cpu:6.2f} ms of CPU, {took:6.2f} ms")
            figures |= await paused_turns(app, paused)
            print(
                f"{figures['paused']} paused turns: {figures['bytes_each']:.0f} bytes of memory "
                f"each, {figures['tasks']} tasks; listed in {figures['list_seconds']:.2f} s"
            )
    if reason := missing():
        print(f"DynamoDB Local: {reason}")
        return figures
    with running_dynamodb() as endpoint:
        calls = await calls_of_turns(endpoint)
    print("DynamoDB, the second turn of a session")
    for kind, each in calls.items():
        print(
            f"  {kind:10} {each['requests']:.0f} requests, {each['bytes_sent']:.0f} bytes sent, "
            f"{each['bytes_received']:.0f} received"
        )
    return figures | {"dynamodb": calls}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    figures = asyncio.run(measure(quick=parser.parse_args().quick))
    print(json.dumps({"benchmark": "effects_cost", **figures}))


if __name__ == "__main__":
    main()
