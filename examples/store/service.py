"""The tools of the store as a service elsewhere: an HTTP API with an OpenAPI document, or MCP.

    python -m examples.store.service --port 8911          # see tools-openapi.toml
    python -m examples.store.service --port 8912 --mcp    # see tools-mcp.toml

A conversation is identified by the header X-Session, a repeated change by Idempotency-Key or,
in MCP, by the request's metadata.
"""

import argparse
import asyncio
import json
import socket
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from examples.store.tools import open_store

from seawall import Principal, Tool, ToolContext, ToolOutcome, Toolset

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StoreService", "http_app", "mcp_app"]

_CALL_SECONDS = 10.0
_MAX_SESSIONS = 10_000
_MAX_BODY_BYTES = 65_536
_KEY = "seawall/idempotency-key"  # in the metadata of a call (MCP)


class StoreService:
    """The tools, and what is known of each conversation."""

    def __init__(self, toolset: Toolset) -> None:
        self.tools: dict[str, Tool] = {each.name: each for each in toolset.tools}
        self._states: OrderedDict[str, dict[str, str]] = OrderedDict()

    async def call(self, name: str, arguments: str, *, session: str, key: str) -> ToolOutcome:
        """Call a tool.

        Args:
            name: Of the tool.
            arguments: JSON.
            session: Id of the conversation; empty for none.
            key: Idempotency key.
        """
        context = ToolContext(
            principal=Principal("store", "guest"),
            session=session,
            turn="",
            agent="",
            call="",
            idempotency_key=key,
            deadline=asyncio.get_running_loop().time() + _CALL_SECONDS,
            state=self.state(session),
        )
        return await self.tools[name].call(arguments, context)

    def state(self, session: str) -> dict[str, str]:
        """The notes of a conversation."""
        if not session:
            return {}
        state = self._states.setdefault(session, {})
        self._states.move_to_end(session)
        if len(self._states) > _MAX_SESSIONS:
            self._states.popitem(last=False)
        return state


def openapi_document(service: StoreService) -> dict[str, Any]:
    """The OpenAPI document: a lookup is a GET with a query, a change a POST with a body."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for name, tool in service.tools.items():
        schema: dict[str, Any] = dict(tool.spec.parameters)
        schemas |= schema.pop("$defs", {})
        operation: dict[str, Any] = {
            "operationId": name,
            "description": tool.spec.description,
            "responses": {"200": {"description": "Done."}, "422": {"description": "Refused."}},
        }
        if tool.mutating:
            content = {"application/json": {"schema": schema}}
            operation["requestBody"] = {"required": True, "content": content}
            paths[f"/changes/{name}"] = {"post": operation}
            continue
        operation["parameters"] = [
            {
                "name": parameter,
                "in": "query",
                "required": parameter in schema.get("required", ()),
                "description": each.get("description", ""),
                "schema": each,
            }
            for parameter, each in schema["properties"].items()
        ]
        paths[f"/lookups/{name}"] = {"get": operation}
    text = msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Store", "version": "1"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )
    return json.loads(text.replace(b"#/$defs/", b"#/components/schemas/"))  # type: ignore[no-any-return]


def http_app(service: StoreService) -> Any:  # noqa: ANN401 - an ASGI application
    """The HTTP API."""
    document = msgspec.json.encode(openapi_document(service))

    async def respond(send: Any, status: int, body: bytes) -> None:  # noqa: ANN401 - ASGI
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        if scope["type"] != "http":
            return None
        if scope["path"] == "/openapi.json":
            return await respond(send, 200, document)
        kind, _, name = scope["path"][1:].partition("/")
        tool = service.tools.get(name)
        wanted = ("changes", "POST") if tool is not None and tool.mutating else ("lookups", "GET")
        if tool is None or (kind, scope["method"]) != wanted:
            return await respond(send, 404, b'{"detail": "There is no such operation."}')
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        outcome = await service.call(
            name,
            await _arguments(tool, scope, receive),
            session=headers.get(b"x-session", b"").decode("latin-1"),
            key=headers.get(b"idempotency-key", b"").decode("latin-1"),
        )
        if outcome.failed:
            status = 500 if outcome.unknown else 422
            return await respond(send, status, msgspec.json.encode({"detail": outcome.content}))
        return await respond(send, 200, _json(outcome.content))

    return app


async def _arguments(tool: Tool, scope: Any, receive: Any) -> str:  # noqa: ANN401 - ASGI
    if not tool.mutating:
        from urllib.parse import parse_qsl  # noqa: PLC0415 - of lookups

        return json.dumps(dict(parse_qsl(scope["query_string"].decode("ascii"))))
    body = b""
    while len(body) <= _MAX_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body.decode("utf-8", "replace")


def _json(content: str) -> bytes:
    """A result as JSON: texts become strings."""
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        return msgspec.json.encode(content)
    return content.encode()


def mcp_app(service: StoreService) -> Any:  # noqa: ANN401 - an ASGI application
    """The MCP server, made with the official SDK (package `mcp`)."""
    from mcp.server.lowlevel import Server  # noqa: PLC0415 - only of this form
    from mcp_types import (  # noqa: PLC0415 - likewise
        CallToolResult,
        ListToolsResult,
        TextContent,
        ToolAnnotations,
    )
    from mcp_types import Tool as McpTool  # noqa: PLC0415 - likewise

    listed = ListToolsResult(
        tools=[
            McpTool(
                name=each.name,
                description=each.spec.description,
                input_schema=each.spec.parameters,
                annotations=ToolAnnotations(read_only_hint=not each.mutating),
            )
            for each in service.tools.values()
        ]
    )

    async def list_tools(context: Any, parameters: Any) -> ListToolsResult:  # noqa: ANN401, ARG001
        return listed

    async def call_tool(context: Any, parameters: Any) -> CallToolResult:  # noqa: ANN401 - the SDK's
        meta = parameters.meta or {}
        outcome = await service.call(
            parameters.name,
            json.dumps(parameters.arguments or {}),
            session=context.request.headers.get("x-session", ""),
            key=str(meta.get(_KEY, "")),
        )
        return CallToolResult(
            content=[TextContent(type="text", text=outcome.content)], is_error=outcome.failed
        )

    server: Any = Server("store", on_list_tools=list_tools, on_call_tool=call_tool)
    return server.streamable_http_app(json_response=True, stateless_http=True)


def main() -> None:
    """Run the service until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8911, help="0 for a free one")
    parser.add_argument("--database", type=Path, default=Path("store.db"))
    parser.add_argument("--mcp", action="store_true", help="an MCP server instead of an HTTP API")
    given = parser.parse_args()
    service = StoreService(open_store(database=given.database))
    listening = socket.create_server(("127.0.0.1", given.port), backlog=1_024)
    port = listening.getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    app = mcp_app(service) if given.mcp else http_app(service)
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
