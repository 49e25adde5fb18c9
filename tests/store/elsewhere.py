"""The store's tools as an OpenAPI service or an MCP server, used through the configuration."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from examples.store.service import StoreService, http_app, mcp_app

from seawall import Tool
from seawall.composition import open_tools
from seawall.config import load_settings

Form = Literal["openapi", "mcp"]

_EXAMPLE = Path(__file__).parents[2] / "examples" / "store"
_AGENT = """
[models.default]
base_url = "http://127.0.0.1:9/v1"
model = "none"
[agents.a]
instructions = "none"
tools = ["store.*"]
"""


@asynccontextmanager
async def tools_elsewhere(
    form: Form, service: StoreService, folder: Path
) -> AsyncGenerator[dict[str, Tool], None]:
    """Serve the tools, and open them as `examples/store/tools-*.toml` says.

    Args:
        form: How they are served.
        service: What is served.
        folder: Of the configuration that is written.
    """
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = mcp_app(service) if form == "mcp" else http_app(service)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    tables = (_EXAMPLE / f"tools-{form}.toml").read_text(encoding="utf-8")
    path = folder / "seawall.toml"
    path.write_text(re.sub(r"http://127\.0\.0\.1:\d+", url, tables) + _AGENT, encoding="utf-8")
    try:
        async with open_tools(load_settings(path, {})) as opened:
            yield opened.tools
    finally:
        server.should_exit = True
        await serving
