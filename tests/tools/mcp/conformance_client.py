"""The client that MCP's conformance suite tests: `conformance_client.py URL`.

The suite appends the URL of its server, and names the scenario in MCP_CONFORMANCE_SCENARIO. The
client does what an agent's tools do: it lists, and calls what it finds.
"""

import asyncio
import os
import sys

import msgspec

from seawall.tools.port import Tool, ToolContext
from seawall.tools.settings import McpSettings, SourceLimits
from seawall.tools.sources import open_catalog
from seawall.turn import Principal

_NUMBERS = {"a": 2, "b": 3}


def _arguments(tool: Tool) -> str:
    """Arguments for what a scenario offers: two numbers, or none."""
    return msgspec.json.encode({name: _NUMBERS.get(name, 1) for name in tool.parameters}).decode()


async def _main(url: str) -> int:
    settings = McpSettings(mcp=url, limits=SourceLimits(answer_seconds=20.0))
    catalog = open_catalog({"server": settings}, folder=".", environment=os.environ)
    loop = asyncio.get_running_loop()
    failed = False
    try:
        await catalog.list_all()
        for tool in catalog.tools.get("server", ()):
            principal = Principal("tenant", "subject")
            deadline = loop.time() + 20.0
            context = ToolContext(principal, "s", "t", "a", "c", "key", deadline, {})
            outcome = await tool.call(_arguments(tool), context)
            sys.stdout.write(f"{tool.name}: {outcome}\n")
            failed = failed or outcome.failed
    finally:
        await catalog.close()
    return int(failed or bool(catalog.unavailable))


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(sys.argv[1])))
