"""What tests of the MCP client share: sources opened as a server opens them, and scripted servers.

A scripted server answers on loopback with whatever a test gives it: bytes of HTTP, or lines.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from seawall.tools.catalog import ToolCatalog
from seawall.tools.port import Tool, ToolContext, ToolOutcome
from seawall.tools.settings import McpSettings
from seawall.tools.sources import open_catalog
from seawall.turn import Principal

__all__ = [
    "ALICE",
    "Asked",
    "Reply",
    "answer",
    "call",
    "context",
    "events",
    "initialized",
    "json_reply",
    "opened",
    "python_server",
    "scripted",
    "status",
    "tool",
    "until",
]

ALICE = Principal("tenant", "alice")
HERE = Path(__file__).parent


def context(
    principal: Principal = ALICE, *, seconds: float = 10.0, key: str = "key"
) -> ToolContext:
    """A turn's context."""
    deadline = asyncio.get_running_loop().time() + seconds
    return ToolContext(principal, "session", "turn", "agent", "call", key, deadline, {})


@asynccontextmanager
async def opened(
    settings: McpSettings, *, stateless: bool = False, folder: str = "."
) -> AsyncIterator[ToolCatalog]:
    """The catalog of one source, `server`, listed."""
    catalog = open_catalog(
        {"server": settings}, folder=folder, environment=os.environ, stateless=stateless
    )
    try:
        await catalog.list_all()
        yield catalog
    finally:
        await catalog.close()


def tool(catalog: ToolCatalog, name: str) -> Tool:
    """A tool of the source."""
    return {each.name: each for each in catalog.tools["server"]}[name]


async def call(
    catalog: ToolCatalog,
    name: str,
    arguments: dict[str, Any] | None = None,
    turn: ToolContext | None = None,
) -> ToolOutcome:
    """Call a tool as an agent does."""
    written = msgspec.json.encode(arguments or {}).decode()
    return await tool(catalog, name).call(written, turn or context())


class Asked(msgspec.Struct):
    """A request as a scripted server has read it.

    Attributes:
        verb: The HTTP method.
        headers: By lower-case name.
        body: The message; empty without one.
    """

    verb: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def method(self) -> str:
        """The method of the message, or the HTTP method of a request without one."""
        return str(self.body.get("method", self.verb if not self.body else "answer"))

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the message."""
        found: dict[str, Any] = self.body.get("params", {})
        return found


Reply = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Script = Callable[[Asked], Reply]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[str, list[Asked]]]:
    """A server that answers as its script says; its URL, and the requests that it has got."""
    asked: list[Asked] = []
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(":") for line in head[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Asked(
                    head[0].split()[0], headers, msgspec.json.decode(body) if body else {}
                )
                asked.append(request)
                reply = script(request)
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                else:
                    await reply(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", asked
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def status(code: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> bytes:
    """A complete response."""
    lines = [f"HTTP/1.1 {code} x", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


def json_reply(message: object, code: int = 200, **headers: str) -> bytes:
    """A response of JSON."""
    return status(code, msgspec.json.encode(message), "application/json", **headers)


def answer(asked: Asked, result: object, *, session: str = "") -> bytes:
    """The answer to a request."""
    message = {"jsonrpc": "2.0", "id": asked.body["id"], "result": result}
    return json_reply(message, Mcp_Session_Id=session) if session else json_reply(message)


def events(*pieces: Any) -> bytes:
    """A response that is a stream of events; a dict is a message, a text is as it comes."""
    texts = (
        each if isinstance(each, str) else f"data: {msgspec.json.encode(each).decode()}\n\n"
        for each in pieces
    )
    return status(200, "".join(texts).encode(), "text/event-stream")


def initialized(version: str = "2025-11-25", **capabilities: Any) -> dict[str, Any]:
    """The result of a handshake."""
    return {
        "protocolVersion": version,
        "capabilities": {"tools": {}, **capabilities},
        "serverInfo": {"name": "scripted", "version": "1"},
    }


async def until(there: Callable[[], bool]) -> None:
    """Wait for something that another process or the log shows."""
    while not there():  # noqa: ASYNC110 - nothing says when
        await asyncio.sleep(0.01)


def python_server(name: str, *arguments: str) -> tuple[str, ...]:
    """The command of a server of this folder."""
    return (sys.executable, str(HERE / name), *arguments)
