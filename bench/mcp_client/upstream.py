"""An MCP server of 2026-07-28 that answers at once, as JSON or as a stream; prints its port.

`upstream.py`, or `upstream.py stdio` on standard streams. Written by hand: a client is measured
against the same bytes, and the server is never what it waits for.
"""

import asyncio
import json
import sys
from typing import Any

TOOL = {
    "name": "get_order",
    "description": "Look an order up.",
    "inputSchema": {"type": "object", "properties": {"number": {"type": "string"}}},
    "outputSchema": {
        "type": "object",
        "properties": {"number": {"type": "string"}, "total": {"type": "number"}},
        "required": ["number", "total"],
    },
}
COMPLETE: dict[str, Any] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}


def result_of(message: dict[str, Any]) -> dict[str, Any]:
    """The result of a request."""
    match message["method"]:
        case "server/discover":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return COMPLETE | found
        case "tools/list":
            return COMPLETE | {"tools": [TOOL]}
    value = {"number": message["params"]["arguments"]["number"], "total": 12.5}
    content = [{"type": "text", "text": json.dumps(value)}]
    return {"resultType": "complete", "content": content, "structuredContent": value}


def answer_to(message: dict[str, Any]) -> bytes:
    """The answer to a request."""
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": result_of(message)}
    return json.dumps(answer).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            message = json.loads(await reader.readexactly(length))
            body, kind = answer_to(message), b"application/json"
            if b"post /stream" in head and message["method"] == "tools/call":
                body, kind = b"event: message\ndata: " + body + b"\n\n", b"text/event-stream"
            lines = (
                b"HTTP/1.1 200 OK",
                b"Content-Type: " + kind,
                b"Content-Length: %d" % len(body),
            )
            writer.write(b"\r\n".join((*lines, b"", body)))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if sys.argv[1:] == ["stdio"]:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            sys.stdout.write(answer_to(message).decode() + "\n")
            sys.stdout.flush()
else:
    asyncio.run(main())
