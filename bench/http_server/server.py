"""One of the servers that are compared: `python server.py NAME PORT`; see README.md."""

import asyncio
import sys

import uvloop
from answers import asgi_answer


async def serve_uvicorn(port: int, parser: str) -> None:
    """Uvicorn with one of its own protocols, and nothing that is not needed."""
    import uvicorn  # noqa: PLC0415 - the others do without

    config = uvicorn.Config(
        asgi_answer,
        port=port,
        http=parser,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve()


async def serve_granian(port: int) -> None:
    """Granian within this event loop."""
    from granian.server.embed import Server  # noqa: PLC0415 - the others do without

    await Server(asgi_answer, port=port, interface="asgi", log_enabled=False).serve()


async def serve_by_hand(port: int) -> None:
    """A protocol on httptools that calls its handler without ASGI."""
    from by_hand import Connection  # noqa: PLC0415 - the others do without

    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


async def serve_ours(port: int, *, host: bool) -> None:
    """Our protocol, with the application of the others or with our own."""
    from ours import serve  # noqa: PLC0415 - the others do without

    await serve(port, None if host else asgi_answer)


SERVERS = {
    "by-hand": serve_by_hand,
    "uvicorn": lambda port: serve_uvicorn(port, "httptools"),
    "uvicorn-h11": lambda port: serve_uvicorn(port, "h11"),
    "granian": serve_granian,
    "ours": lambda port: serve_ours(port, host=False),
    "ours-host": lambda port: serve_ours(port, host=True),
}

if __name__ == "__main__":
    uvloop.run(SERVERS[sys.argv[1]](int(sys.argv[2])))
