"""A peer's MCP adapter under a crowd: `drive_peer.py langchain|openai_agents URL CALLS CROWD`.

Prints CPU milliseconds a call and the latency of calls as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

Call = Callable[[], Awaitable[object]]


async def measure(call: Call, calls: int, crowd: int) -> dict[str, float]:
    """Make the calls, so many at once."""
    await call()
    took: list[float] = []

    async def caller() -> None:
        for _ in range(calls // crowd):
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)

    cpu = time.process_time()
    await asyncio.gather(*(caller() for _ in range(crowd)))
    cpu = time.process_time() - cpu
    took.sort()
    return {
        "cpu_ms": round(cpu / len(took) * 1e3, 3),
        "p50_ms": round(took[len(took) // 2] * 1e3, 1),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1e3, 1),
    }


async def langchain(url: str, calls: int, crowd: int) -> dict[str, float]:
    """A session that is kept, as its documentation advises for many calls."""
    from langchain_mcp_adapters.client import MultiServerMCPClient  # noqa: PLC0415 - of this peer
    from langchain_mcp_adapters.tools import load_mcp_tools  # noqa: PLC0415 - likewise

    client = MultiServerMCPClient({"bench": {"transport": "streamable_http", "url": url}})
    async with client.session("bench") as session:
        (tool,) = await load_mcp_tools(session)
        return await measure(lambda: tool.ainvoke({"order": "A-7"}), calls, crowd)


async def openai_agents(url: str, calls: int, crowd: int) -> dict[str, float]:
    """A server that is kept, its tools listed once."""
    from agents.mcp import MCPServerStreamableHttp  # noqa: PLC0415 - of this peer

    async with MCPServerStreamableHttp(params={"url": url}, cache_tools_list=True) as server:
        await server.list_tools()
        return await measure(lambda: server.call_tool("get_order", {"order": "A-7"}), calls, crowd)


if __name__ == "__main__":
    _, peer, url, calls, crowd = sys.argv
    drive = {"langchain": langchain, "openai_agents": openai_agents}[peer]
    print(json.dumps(asyncio.run(drive(url, int(calls), int(crowd)))))
