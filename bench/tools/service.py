"""Six services behind an HTTP API, and an MCP server: `service.py http` or `service.py mcp`.

Prints its ports as JSON. The first HTTP service hangs once /hang has been asked for, until /heal.
"""

import asyncio
import json
import sys

SECONDS = 0.05  # until an answer
SERVICES = 6


async def serve_http() -> None:
    """Serve six ports."""
    hanging = asyncio.Event()
    healed = asyncio.Event()
    healed.set()

    def respond(writer: asyncio.StreamWriter, value: object) -> None:
        body = json.dumps(value).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)

    async def serve(
        number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                if path == b"/hang":
                    healed.clear()
                    hanging.set()
                elif path == b"/heal":
                    hanging.clear()
                    healed.set()
                elif path != b"/now":
                    await asyncio.sleep(SECONDS)
                    if number == 0 and hanging.is_set():
                        await healed.wait()
                respond(writer, {"id": "A-7", "total": 12.5, "items": ["tent", "mat"]})
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    servers = [
        await asyncio.start_server(
            lambda reader, writer, number=number: serve(number, reader, writer),
            "127.0.0.1",
            0,
            backlog=1_024,
        )
        for number in range(SERVICES)
    ]
    print(json.dumps([each.sockets[0].getsockname()[1] for each in servers]), flush=True)
    await asyncio.Event().wait()


def serve_mcp() -> None:
    """Serve the same as an MCP tool, with the official SDK."""
    import socket  # noqa: PLC0415 - only of this form

    import uvicorn  # noqa: PLC0415 - likewise
    from mcp.server.mcpserver import MCPServer  # noqa: PLC0415 - likewise

    server = MCPServer("bench")

    @server.tool()
    def get_order(order: str) -> dict[str, object]:
        """Look an order up."""
        return {"id": order, "total": 12.5, "items": ["tent", "mat"]}

    listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    print(json.dumps([listening.getsockname()[1]]), flush=True)
    app = server.streamable_http_app(json_response=True, stateless_http=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(
        sockets=[listening]
    )


if __name__ == "__main__":
    if sys.argv[1] == "mcp":
        serve_mcp()
    else:
        asyncio.run(serve_http())
