"""Model servers that never stop sending: each ends in a clear failure, within bounds."""

import asyncio
import itertools
import json
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from seawall.errors import DeadlineExceeded, UpstreamFailed, UpstreamThrottled
from seawall.transport.http_client import HttpClient
from tests.models.test_contract import ask
from tests.models.wire import WIRES

OPENAI = WIRES[2]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MIB = 1 << 20
_BLOCK = 1 << 16  # bytes that a server writes at once: it fills megabytes of buffers in vain


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    return (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def events(*deltas: object) -> Iterator[bytes]:
    """Repeat these deltas for ever, many in each chunk."""
    encoded = [json.dumps({"choices": [{"delta": delta}]}).encode() for delta in deltas]
    block = b"".join([b"data: %b\n\n" % each for each in encoded]) * 200
    return chunked(itertools.repeat(block))


def head(line: bytes) -> Iterator[bytes]:
    return itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(line * 500))


def arguments(piece: str) -> dict[str, object]:
    return {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}}]}


def calls() -> Iterator[bytes]:
    """A call at each index up to a billion."""
    for start in itertools.count(0, 100):
        at = [
            {"tool_calls": [{"index": index * 9_999_991, "function": {"name": "f"}}]}
            for index in range(start, start + 100)
        ]
        yield next(events(*at))


ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "headers": lambda: itertools.chain(
        [b"HTTP/1.1 200 OK\r\n"], (b"x-%d: 1\r\n" % n for n in itertools.count())
    ),
    "one header": lambda: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nx: "], itertools.repeat(b"y" * 999)
    ),
    "a repeated header": lambda: head(b"x: 1\r\n"),
    "interim answers": lambda: itertools.repeat(b"HTTP/1.1 102 Processing\r\nx: 1\r\n\r\n" * 99),
    "trailers": lambda: itertools.chain([OK, b"0\r\n"], itertools.repeat(b"x: 1\r\n" * 500)),
    "one trailer": lambda: itertools.chain([OK, b"0\r\nx: "], itertools.repeat(b"y" * 999)),
    "a chunk's extension": lambda: itertools.chain([OK, b"1;"], itertools.repeat(b"y" * 999)),
    "a line": lambda: itertools.chain([OK], chunked(itertools.repeat(b"data: " + b"x" * 9_999))),
    "lines of one event": lambda: itertools.chain(
        [OK], chunked(itertools.repeat(b"data: x\n" * 999))
    ),
    "text": lambda: itertools.chain([OK], events({"content": "x"})),
    "reasoning": lambda: itertools.chain([OK], events({"reasoning_content": "x" * 500})),
    "arguments": lambda: itertools.chain([OK], events(arguments("x" * 500))),
    "arguments of no length": lambda: itertools.chain([OK], events(arguments(""))),
    "calls": lambda: itertools.chain([OK], calls()),
    "events that say nothing": lambda: itertools.chain([OK], events({})),
    "comments": lambda: itertools.chain([OK], chunked(itertools.repeat(b": x\n\n" * 5_000))),
    "what is no JSON": lambda: itertools.chain(
        [OK], chunked(itertools.repeat(b"data: x\n\n" * 3_000))
    ),
}


@asynccontextmanager
async def flooding(pieces: Callable[[], Iterator[bytes]]) -> AsyncGenerator[str, None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            block = bytearray()
            for piece in pieces():
                block += piece
                if len(block) >= _BLOCK:
                    writer.write(bytes(block))
                    block.clear()
                    await writer.drain()
            writer.write(bytes(block))
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(
            lambda r, w: tasks.append(group.create_task(serve(r, w))), "127.0.0.1", 0
        )
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()


@pytest.mark.parametrize("what", ENDLESS)
async def test_endless_responses_fail_within_bounds(what: str) -> None:
    async with flooding(ENDLESS[what]) as url:
        client = HttpClient()
        model = OPENAI.model(url, client)
        began = time.monotonic()
        tracemalloc.start()
        try:
            with pytest.raises((UpstreamFailed, DeadlineExceeded)):
                await ask(model, seconds=0.3)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert time.monotonic() - began < 30
        assert peak < 12 * MIB
        assert client.open_streams == 0
        await client.close()


@pytest.mark.parametrize("ends", [True, False])
async def test_the_body_of_a_refusal_is_read_within_bounds(ends: bool) -> None:
    """The status decides, whatever the length of the body, and also if it hangs."""
    answer = b"HTTP/1.1 429 No\r\nretry-after: 7\r\ntransfer-encoding: chunked\r\n\r\n"

    def pieces() -> Iterator[bytes]:
        body = itertools.repeat(b"x" * 9_999) if ends else iter([b'{"err'])
        return itertools.chain([answer], chunked(body))

    async with flooding(pieces) as url:
        client = HttpClient()
        with pytest.raises(UpstreamThrottled) as raised:
            await ask(OPENAI.model(url, client), seconds=8)
        assert raised.value.retry_after == 7
        await client.close()
