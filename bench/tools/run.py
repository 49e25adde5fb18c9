"""What a call of a tool elsewhere costs, and what one hung service of six does to the others.

    .venv/bin/python bench/tools/run.py [--quick] [--peers] [--pairs N] [--only-hung]

Prints tables, and the figures as one JSON line at the end. See README.md.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from bench.peers.install import install, installed, python_of
from bench.tools.drive_peer import measure

from seawall import (
    AgentSettings,
    ModelRequest,
    Orchestrator,
    Principal,
    ScriptedModel,
    SessionSettings,
    Settings,
    ToolCall,
    ToolContext,
    ToolMessage,
    new_request,
    tool,
)
from seawall.events import Event
from seawall.identity import Trusted
from seawall.tools.settings import McpSettings, OpenApiSettings, SourceLimits, SourceSettings
from seawall.tools.sources import open_catalog
from seawall.tools.upstream import ToolUpstream

Costs = dict[str, float]
Runs = dict[str, list[dict[str, Any]]]
PEERS = ("langchain", "openai_agents")
CROWD = 50
LIMITS = SourceLimits(concurrency=CROWD, wait_seconds=30.0)
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Orders", "version": "1"},
    "paths": {
        "/{way}/{order}": {
            "get": {
                "operationId": "getOrder",
                "description": "Look an order up.",
                "parameters": [
                    {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
                    for each in ("way", "order")
                ],
                "responses": {"200": {"description": "The order."}},
            }
        },
        "/now": {
            "get": {"operationId": "now", "responses": {"200": {"description": "The order."}}}
        },
    },
}


@contextmanager
def service(kind: str) -> Iterator[list[int]]:
    """The ports of a service in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "service.py"), kind], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def context(seconds: float = 60.0) -> ToolContext:
    """The context of a call."""
    deadline = asyncio.get_running_loop().time() + seconds
    return ToolContext(Principal("t", "s"), "s", "t", "a", "c", "k", deadline, {})


@tool
async def get_order(order: str) -> dict[str, object]:
    """Look an order up."""
    return {"id": order, "total": 12.5, "items": ["tent", "mat"]}


async def cost_of(settings: SourceSettings, name: str, arguments: str, calls: int) -> Costs:
    """CPU and latency of calls of one tool of a source."""
    catalog = open_catalog({"s": settings}, folder="/", environment=os.environ)
    try:
        await catalog.list_all()
        made = next(each for each in catalog.tools["s"] if each.name == name)

        async def call() -> None:
            outcome = await made.call(arguments, context())
            assert not outcome.failed, outcome

        return await measure(call, calls, CROWD)
    finally:
        await catalog.close()


async def costs(document: Path, calls: int) -> dict[str, Any]:
    """What a call costs, by kind of tool."""
    found: dict[str, Any] = {}

    async def call() -> None:
        assert not (await get_order.call('{"order": "A-7"}', context())).failed

    found["python"] = await measure(call, calls, CROWD)
    with service("http") as ports:
        settings = OpenApiSettings(
            openapi=str(document),
            base_url=f"http://127.0.0.1:{ports[0]}",
            include=("*",),
            limits=LIMITS,
        )
        found["openapi"] = await cost_of(settings, "now", "{}", calls)
    with service("mcp") as ports:
        table = McpSettings(
            mcp=f"http://127.0.0.1:{ports[0]}/mcp", trust_annotations=True, limits=LIMITS
        )
        found["mcp"] = await cost_of(table, "get_order", '{"order": "A-7"}', calls)
    return found


def script(request: ModelRequest) -> str | tuple[ToolCall, ...]:
    """Call the tool that the message names, then answer."""
    last = request.messages[-1]
    if isinstance(last, ToolMessage):
        return "Your order is on its way."
    return (ToolCall("c", last.text, '{"way": "orders", "order": "A-7"}'),)


async def crowd(app: Orchestrator, turns: int, services: range) -> dict[int, list[float]]:
    """Seconds of turns that begin at once, by the service that they use."""
    took: dict[int, list[float]] = {each: [] for each in services}

    async def ignore(*_: Event) -> None:
        pass

    async def one(number: int) -> None:
        began = time.perf_counter()
        owner = Trusted(Principal("t", f"s{number}"))
        await app.engine.execute(new_request(f"s{number % 6}_getOrder"), owner, ignore)
        took[number % 6].append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for number in range(turns):
            if number % 6 in services:
                group.create_task(one(number))
    return took


def p(values: list[float], share: float) -> float:
    """A percentile in milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3, 1)


def compared(runs: Runs) -> dict[str, Any]:
    """Medians of both kinds of runs, and how those of each pair compare."""
    keys = ("p50_ms", "p99_ms", "cpu_ms")
    found: dict[str, Any] = {
        name: {key: median([row[key] for row in rows]) for key in keys}
        for name, rows in runs.items()
    }
    both = [*zip(runs["all well"], runs["beside"], strict=True)]
    found["pairs"] = {
        key: [round(beside[key] / well[key], 3) for well, beside in both] for key in keys
    }
    found["median of pairs"] = {key: median(each) for key, each in found["pairs"].items()}
    return found


async def opening(
    app: Orchestrator, upstream: ToolUpstream, get: Callable[[str], Awaitable[None]]
) -> dict[str, Any]:
    """How many calls of a hung service open its breaker, and how long it stays open after.

    In the runs of `bulkhead`, the breaker's window has a crowd that was answered as well.
    """
    found: dict[str, Any] = {"calls_until_the_breaker_opened": 0}
    await get("/hang")
    while upstream.state() != "open":
        found["calls_until_the_breaker_opened"] += CROWD
        await crowd(app, CROWD * 6, range(1))
    await get("/heal")
    began = time.perf_counter()
    while upstream.state() != "closed":
        await asyncio.sleep(0.25)
        await crowd(app, 1, range(1))
    found["recovered_seconds"] = round(time.perf_counter() - began, 1)
    return found


async def bulkhead(document: Path, turns: int, folder: Path, pairs: int) -> dict[str, Any]:
    """Turns on five services, without and beside turns on a sixth that hangs, in pairs of runs."""
    from seawall.transport.http_client import Endpoint, HttpClient  # noqa: PLC0415 - of this part

    with service("http") as ports:
        limits = SourceLimits(
            concurrency=128, wait_seconds=10.0, answer_seconds=2.0, open_seconds=2
        )
        sources: dict[str, SourceSettings] = {
            f"s{number}": OpenApiSettings(
                openapi=str(document),
                base_url=f"http://127.0.0.1:{port}",
                include=("getOrder",),
                prefix=f"s{number}_",
                limits=limits,
            )
            for number, port in enumerate(ports)
        }
        sessions = SessionSettings(path=str(folder / "sessions.db"))
        app = Orchestrator(Settings(sessions=sessions, sources=sources))
        app.model("m", ScriptedModel(script))
        tools = tuple(f"{each}.*" for each in sources)
        app.agent("a", AgentSettings(instructions="x", model="m", tools=tools))
        client, found = HttpClient(), {}

        async def get(path: str) -> None:
            deadline = asyncio.get_running_loop().time() + 5.0
            await client.request(
                "GET", Endpoint.parse(f"http://127.0.0.1:{ports[1]}{path}"), deadline=deadline
            )

        async with app:
            catalog = app.engine.catalog
            assert catalog is not None
            upstream = catalog.upstreams["s0"]

            async def run(services: range, *, hangs: bool) -> dict[str, Any]:
                """One crowd, whatever was before: breakers closed, connections open."""
                await get("/heal")
                while upstream.state() != "closed":
                    await asyncio.sleep(0.25)
                    await crowd(app, 1, range(1))
                await crowd(app, turns, range(6))
                if hangs:
                    await get("/hang")
                await asyncio.sleep(0.5)
                cpu = time.process_time()
                took = await crowd(app, turns, services)
                others = [each for number in range(1, 6) for each in took[number]]
                row: dict[str, Any] = {"p50_ms": p(others, 0.5), "p99_ms": p(others, 0.99)}
                row["cpu_ms"] = round((time.process_time() - cpu) / turns * 1e3, 2)
                if hangs:
                    row["hung_p99_ms"] = p(took[0], 0.99)
                return row

            found["without"] = await run(range(1, 6), hangs=False)
            runs: Runs = {"all well": [], "beside": []}
            for number in range(pairs):
                for name in sorted(runs, reverse=bool(number % 2)):
                    runs[name].append(await run(range(6), hangs=name == "beside"))
            found |= compared(runs)
            found["hung_p99_ms"] = max(row["hung_p99_ms"] for row in runs["beside"])
            found["attempts"] = dict(upstream.attempts)
            found |= await opening(app, upstream, get)
        await client.close()
    return found


def peers(calls: int) -> dict[str, Any]:
    """The same calls by the MCP adapters of others."""
    found: dict[str, Any] = {}
    for peer in PEERS:
        if not installed(peer, HERE):
            install(peer, HERE)
        with service("mcp") as ports:
            done = subprocess.run(
                [
                    python_of(peer, HERE),
                    str(HERE / "drive_peer.py"),
                    peer,
                    f"http://127.0.0.1:{ports[0]}/mcp",
                    str(calls),
                    str(CROWD),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
        found[peer] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    parser.add_argument("--peers", action="store_true", help="also MCP adapters of others")
    parser.add_argument("--pairs", type=int, default=5, help="of runs beside a hung service")
    parser.add_argument("--only-hung", action="store_true", help="not what a call costs")
    given = parser.parse_args()
    calls = 500 if given.quick else 5_000
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "orders.json")
        document.write_text(json.dumps(DOCUMENT))
        found: dict[str, Any] = {"costs": {}}
        if not given.only_hung:
            print(f"{calls} calls of each kind, {CROWD} at once ...", file=sys.stderr)
            found["costs"] = asyncio.run(costs(document, calls))
        if given.peers:
            found["peers"] = peers(calls)
        print("500 turns at once on six services, one of which hangs ...", file=sys.stderr)
        found["bulkhead"] = asyncio.run(bulkhead(document, 500, Path(folder), given.pairs))
    print(f"{'tool call':16}{'CPU':>9}{'p50':>9}{'p99':>9}   (ms)")
    for name, row in (found["costs"] | found.get("peers", {})).items():
        print(f"{name:16}{row['cpu_ms']:>9}{row['p50_ms']:>9}{row['p99_ms']:>9}")
    for name, row in found["bulkhead"].items():
        print(f"{name:16} {row}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
