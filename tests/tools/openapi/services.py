"""Services on loopback whose documents are sources of tools."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from seawall.tools.catalog import ToolCatalog
from seawall.tools.port import Tool, ToolContext
from seawall.tools.settings import OpenApiSettings
from seawall.tools.sources import open_catalog
from seawall.turn import Principal

__all__ = ["context", "opened", "served"]


@asynccontextmanager
async def served(app: Any) -> AsyncGenerator[str, None]:
    """The address of an ASGI application."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server._serve([listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await serving


@asynccontextmanager
async def opened(
    folder: Path | str = ".", **settings: Any
) -> AsyncGenerator[dict[str, Tool], None]:
    """The tools of a table, by name."""
    settings.setdefault("include", ["*"])
    table = msgspec.convert(settings, OpenApiSettings)
    catalog: ToolCatalog = open_catalog(
        {"api": table}, folder=str(folder), environment={"SECRET": "s"}
    )
    try:
        await catalog.list_all()
        yield {each.name: each for each in catalog.tools.get("api", ())}
    finally:
        await catalog.close()


def context(**changes: Any) -> ToolContext:
    """The context of a call."""
    found = ToolContext(
        principal=Principal("shop", "ann"),
        session="s",
        turn="t",
        agent="a",
        call="c",
        idempotency_key="key-1",
        deadline=asyncio.get_running_loop().time() + 10.0,
        state={},
    )
    return msgspec.structs.replace(found, **changes)
