"""One client: `python client.py NAME exchange PORT COUNT CONCURRENCY`, or `NAME import`.

Prints the CPU microseconds of one streamed exchange, or, for `import`, nothing: the process's own
life is what is measured then, from start to a client that is ready.
"""

# Peers are imported where they are measured, and have their own idea of types.
# mypy: ignore-errors
# ruff: noqa: D103, PLC0415

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

BODY = b'{"model":"gpt-x","stream":true,"messages":[{"role":"user","content":"%b"}]}' % (b"x" * 800)
HEADERS = {
    "content-type": "application/json",
    "accept": "text/event-stream",
    "authorization": "Bearer sk-0123456789abcdef0123456789abcdef",
}
Exchange = Callable[[], AsyncGenerator[bytes, None]]


@asynccontextmanager
async def seawall(url: str) -> AsyncGenerator[Exchange, None]:
    from seawall.transport.http_client import Endpoint, HttpClient

    client, endpoint = HttpClient(), Endpoint.parse(url)
    headers = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())
    clock = asyncio.get_running_loop().time

    async def exchange() -> AsyncGenerator[bytes, None]:
        async with client.stream(
            "POST", endpoint, headers=headers, body=BODY, deadline=clock() + 30
        ) as response:
            assert response.status == 200
            while data := await response.read_some():
                yield data

    yield exchange
    await client.close()


@asynccontextmanager
async def aiohttp(url: str) -> AsyncGenerator[Exchange, None]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=30)
    connector = aiohttp.TCPConnector(limit=1_024)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as client:

        async def exchange() -> AsyncGenerator[bytes, None]:
            async with client.post(url, data=BODY, headers=HEADERS) as response:
                assert response.status == 200
                async for data in response.content.iter_any():
                    yield data

        yield exchange


@asynccontextmanager
async def httpx(url: str) -> AsyncGenerator[Exchange, None]:
    import httpx

    limits = httpx.Limits(max_connections=1_024, max_keepalive_connections=1_024)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:

        async def exchange() -> AsyncGenerator[bytes, None]:
            async with client.stream("POST", url, content=BODY, headers=HEADERS) as response:
                assert response.status_code == 200
                async for data in response.aiter_raw():
                    yield data

        yield exchange


CLIENTS = {"seawall": seawall, "aiohttp": aiohttp, "httpx": httpx}


async def measure(name: str, port: int, count: int, concurrency: int) -> float:
    from answer import SIZE

    async with CLIENTS[name](f"http://127.0.0.1:{port}/v1/chat/completions") as exchange:

        async def worker(times: int) -> None:
            for _ in range(times):
                size = 0
                async for data in exchange():
                    size += len(data)
                assert size == SIZE, size

        async def crowd(times: int) -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker(times))

        await crowd(2)  # connections, caches
        before = time.process_time()
        each = count // concurrency
        await crowd(each)
        return (time.process_time() - before) / (each * concurrency) * 1e6


async def ready(name: str) -> None:
    async with CLIENTS[name]("http://127.0.0.1:9/"):
        pass


def main(name: str, what: str, *arguments: str) -> None:
    if what == "import":
        asyncio.run(ready(name))
        return
    import uvloop

    port, count, concurrency = map(int, arguments)
    sys.stdout.write(f"{uvloop.run(measure(name, port, count, concurrency))}\n")


main(*sys.argv[1:])
