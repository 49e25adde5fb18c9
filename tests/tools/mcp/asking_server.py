"""A server made with the official SDK that asks the user: `PORT [SECONDS]`, `stdio`.

SECONDS is how long it knows its questions again. What it has done is in the file of the variable
DONE, a line for each order.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.mcpserver.resolve import Elicit, ElicitationResult, Resolve
from mcp.types import ElicitRequest, ElicitRequestURLParams, InputRequiredResult, ToolAnnotations
from pydantic import BaseModel, Field

stdio = sys.argv[1] == "stdio"
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600.0
server = MCPServer(
    "asking",
    version="1.0",
    request_state_security=RequestStateSecurity(keys=[b"k" * 32], ttl=seconds),
)


class Address(BaseModel):
    street: str = Field(min_length=3)
    floor: int = 0


class Pin(BaseModel):
    pin: str


async def ask_address() -> Elicit[Address]:
    return Elicit("Where to?", Address)


async def ask_pin(item: str) -> Elicit[Pin]:
    return Elicit(f"Your PIN for the {item}?", Pin)


def _done(context: Context, text: str) -> str:
    meta: Any = context.request_context.meta
    key = (meta or {}).get("io.github.seawall-project/idempotency-key", "none")
    with Path(os.environ["DONE"]).open("a", encoding="utf-8") as done:
        done.write(f"{key} {text}\n")
    return text


@server.tool()
async def order(
    item: str,
    context: Context,
    address: Annotated[Address, Resolve(ask_address)],
    pin: Annotated[Pin, Resolve(ask_pin)],
) -> str:
    """Order an item."""
    where = f"{address.street}, floor {address.floor}"
    return _done(context, f"{item} to {where}, {len(pin.pin)} digits")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def find_shop(
    city: str, address: Annotated[ElicitationResult[Address], Resolve(ask_address)]
) -> str:
    """Find the nearest shop."""
    where = address.data.street if address.action == "accept" else "no street"
    return f"the shop of {city} near {where} ({address.action})"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def count(city: str) -> str:
    """Count the shops of a city."""
    return f"3 in {city}"


@server.tool()
async def pay(amount: float, context: Context) -> str | InputRequiredResult:
    """Pay at the bank."""
    responses = context.input_responses
    if not responses:
        page = ElicitRequestURLParams(
            message="Confirm at your bank.", url="https://bank.example/pay/7"
        )
        return InputRequiredResult(
            input_requests={"bank": ElicitRequest(params=page)}, request_state=f"paying {amount}"
        )
    action = responses["bank"].action  # type: ignore[union-attr]
    return _done(context, f"{context.request_state}: {action}")


if __name__ == "__main__":
    if stdio:
        server.run("stdio")
    else:
        server.run("streamable-http", port=int(sys.argv[1]))
