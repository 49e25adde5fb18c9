"""One client in a process of its own: `client.py seawall|sdk WAY TARGET CALLS CROWD`.

Prints CPU milliseconds a call, and megabytes of the process at its largest. Without calls it only
becomes ready: one call, and the end.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

ARGUMENTS = {"number": "4711"}
Call = Callable[[], Awaitable[object]]


async def measure(call: Call, calls: int, crowd: int) -> None:
    """Make the calls; print what they cost."""
    await call()
    each = max(1, calls // crowd)

    async def caller() -> None:
        for _ in range(each):
            await call()

    began = time.process_time()
    await asyncio.gather(*(caller() for _ in range(crowd if calls else 0)))
    spent = (time.process_time() - began) / (each * crowd)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(json.dumps({"ms": spent * 1e3, "mb": memory}))


async def seawall(way: str, target: str, calls: int, crowd: int) -> None:
    """Ours, as an agent calls it: arguments checked, limits, breaker, text for the model."""
    from seawall.tools.port import ToolContext  # noqa: PLC0415 - either side imports only its own
    from seawall.tools.settings import McpSettings, SourceLimits  # noqa: PLC0415 - either side imports only its own
    from seawall.tools.sources import open_catalog  # noqa: PLC0415 - either side imports only its own
    from seawall.turn import Principal  # noqa: PLC0415 - either side imports only its own

    limits = SourceLimits(concurrency=max(crowd, 1))
    settings = (
        McpSettings(command=(sys.executable, target, "stdio"), limits=limits)
        if way == "stdio"
        else McpSettings(mcp=target, limits=limits)
    )
    catalog = open_catalog({"server": settings}, folder=".", environment=os.environ)
    await catalog.list_all()
    tool = catalog.tools["server"][0]
    loop = asyncio.get_running_loop()
    written = json.dumps(ARGUMENTS)

    async def call() -> None:
        deadline = loop.time() + 30.0
        context = ToolContext(Principal("t", "s"), "s", "t", "a", "c", "k", deadline, {})
        outcome = await tool.call(written, context)
        assert not outcome.failed

    await measure(call, calls, crowd)
    await catalog.close()


async def sdk(way: str, target: str, calls: int, crowd: int) -> None:
    """The official SDK's client, which checks structured results as ours does."""
    from mcp import Client, StdioServerParameters  # noqa: PLC0415 - as above

    server = (
        StdioServerParameters(command=sys.executable, args=[target, "stdio"])
        if way == "stdio"
        else target
    )
    async with Client(server) as client:

        async def call() -> None:
            result = await client.call_tool("get_order", ARGUMENTS)
            assert not result.is_error

        await measure(call, calls, crowd)


def main() -> None:
    """Run one client."""
    client, way, target, calls, crowd = sys.argv[1:]
    run = seawall if client == "seawall" else sdk
    uvloop.run(run(way, target, int(calls), int(crowd)))


main()
