"""A server made with the official SDK: `stdio`, or `http PORT PORT`.

At the second port another process serves the same, which answers as JSON: a fork, since importing
the SDK takes longer than all that the server is asked for.
"""

import asyncio
import base64
import os
import sys
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.utilities.types import Image
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
server = MCPServer("stand", version="1.0")
calls: list[str] = []


class Order(BaseModel):
    number: str
    total: float


class Address(BaseModel):
    street: str = Field(default="Main Street 1")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def get_order(number: str) -> Order:
    """Look an order up."""
    return Order(number=number, total=12.5)


@server.tool()
def cancel_order(number: str, context: Context) -> str:
    """Cancel an order."""
    meta: Any = context.request_context.meta
    key = (meta or {}).get("io.github.seawall-project/idempotency-key", "none")
    calls.append(key)
    return f"cancelled {number} once for {key}, {calls.count(key)} calls"


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("the printer is on fire")


@server.tool(structured_output=False)
def draw() -> list[Any]:
    """Draw."""
    return ["a picture", Image(data=PIXEL, format="png")]


@server.tool()
async def slow(seconds: float, context: Context) -> str:
    """Take a while."""
    await context.report_progress(1, 3, "thinking")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        calls.append("cancelled")
        raise
    return "done"


@server.tool()
def cancellations() -> int:
    """How many calls were cancelled."""
    return calls.count("cancelled")


@server.tool()
async def ship(context: Context) -> str:
    """Ship it where the user says."""
    answer = await context.elicit("Where to?", Address)
    return f"the answer was: {answer.action}"


@server.tool()
async def grow(context: Context) -> str:
    """Add a tool."""
    server.add_tool(lambda: "new", name="added", description="It is new.")
    await context.notify_tools_changed()
    return "grown"


@server.resource("shop://terms", mime_type="text/plain")
def terms() -> str:
    """The terms."""
    return "No refunds on Sundays."


@server.resource("shop://order/{number}")
def order_page(number: str) -> str:
    """The page of an order."""
    return f"page of {number}"


@server.prompt()
def complaint(subject: str) -> str:
    """Write a complaint."""
    return f"Complain about {subject}."


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        as_json = os.fork() == 0
        port = int(sys.argv[3 if as_json else 2])
        server.run("streamable-http", port=port, json_response=as_json)
