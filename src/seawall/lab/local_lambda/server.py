"""The server of the local Lambda: Function URL, Invoke API and counters at one address."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from seawall.lab.local_lambda.function import LocalFunction
from seawall.lab.local_lambda.function_url import answer_url
from seawall.lab.local_lambda.http_server import Request, ResponseWriter, serve
from seawall.lab.local_lambda.invoke_api import answer_invoke

__all__ = ["STATS_PATH", "front"]

STATS_PATH = "/.lambda/stats"


@asynccontextmanager
async def front(
    function: LocalFunction, host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[str, None]:
    """Serve the function over HTTP until the block ends; yields the URL."""

    async def handle(request: Request, writer: ResponseWriter) -> None:
        if request.target == STATS_PATH:
            body = msgspec.json.encode(function.stats())
            await writer.answer(200, body, [("content-type", "application/json")])
        elif not await answer_invoke(function, request, writer):
            await answer_url(function, request, writer)

    serving = await serve(handle, host, port)
    try:
        yield f"http://{host}:{serving.port}"
    finally:
        await serving.close()
