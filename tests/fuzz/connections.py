"""The server's protocol class on an in-memory transport: bytes in, responses and requests out."""

import asyncio
import random
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from seawall.config import ServerSettings, Settings
from seawall.errors import Problem
from seawall.hosts.http.connection_limits import READ_BUFFER_BYTES, ConnectionLimits
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import PreAdmissionCheck
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown
from seawall.orchestrator import Orchestrator
from seawall.timers import TimingWheel

LIMITS = ServerSettings(max_header_bytes=2_048, max_body_bytes=4_096)
_ROUNDS = 400
_MAX_BUFFERED = READ_BUFFER_BYTES + 2 * LIMITS.max_header_bytes + 4_096


@dataclass
class Exchange:
    """What happened on a connection.

    Attributes:
        written: Bytes that the server wrote.
        requests: Method, path and body of the requests that the application received completely.
        closed: Whether the server closed the connection.
        peak_buffered: Most bytes buffered at once.
    """

    written: bytearray = field(default_factory=bytearray)
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    closed: bool = False
    peak_buffered: int = 0


class MemoryTransport(asyncio.Transport):
    """A transport that keeps the written bytes."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2)})
        self.exchange = exchange
        self.reading = True
        self.protocol: HttpServerProtocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self
        return super().get_extra_info(name, default)

    def fileno(self) -> int:
        return 3

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.exchange.closed, "written after the end"
        self.exchange.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        return

    def is_closing(self) -> bool:
        return self.exchange.closed

    def close(self) -> None:
        if not self.exchange.closed:
            self.exchange.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


@lru_cache(maxsize=1)
def event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@lru_cache(maxsize=1)
def timing_wheel() -> TimingWheel:
    """One for all inputs, as in a process: each ticks for as long as a timer could be in it."""
    return TimingWheel(0.02)


def serve_segments(segments: list[bytes]) -> Exchange:
    """Serve a connection that receives these segments."""
    return event_loop().run_until_complete(_run(segments))


def cut(data: bytes, seed: int) -> list[bytes]:
    """Split into segments: single bytes for seed 0, random lengths otherwise."""
    if seed == 0:
        return [data[at : at + 1] for at in range(len(data))]
    chance = random.Random(seed)
    segments, at = [], 0
    while at < len(data):
        size = chance.choice((1, 2, 3, 7, 30, 200, 5_000))
        segments.append(data[at : at + size])
        at += size
    return segments


async def _run(segments: list[bytes]) -> Exchange:
    exchange = Exchange()
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))

    state = ServerState()
    config = uvicorn.Config(_application(exchange), lifespan="off", log_config=None)
    config.load()
    protocol = HttpServerProtocol(
        limits=LIMITS,
        wheel=timing_wheel(),
        shutdown=Shutdown(),
        pre_admission=PreAdmissionCheck(cast("Orchestrator", _Unready())),
        connection_limits=ConnectionLimits(LIMITS, 1_024),
        non_turn_limiter=NonTurnLimiter(lambda: False),
        config=config,
        server_state=state,
    )
    transport = MemoryTransport(exchange)
    transport.protocol = protocol
    protocol.connection_made(transport)
    for segment in segments:
        if not await _feed(protocol, transport, exchange, segment):
            break
        if len(segments) < 200:
            await asyncio.sleep(0)
    await _settle(protocol, exchange)
    transport.close()
    await asyncio.sleep(0)
    for task in list(state.tasks):
        await task
    assert not failures, failures
    assert exchange.peak_buffered <= _MAX_BUFFERED, exchange.peak_buffered
    assert protocol._connection_limits._buffered_total == 0
    return exchange


def _application(exchange: Exchange) -> Any:
    """Responds with path and length of the body; for `/early` before it is read."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        status = 200
        body = b""
        try:
            if scope["path"] != "/early":
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message["body"]
                    more = message["more_body"]
                exchange.requests.append((scope["method"], scope["raw_path"].decode(), body))
        except Problem as problem:
            status = problem.status
        body_sent = b"%s %d" % (scope["path"].encode(errors="replace"), len(body) * (status == 200))
        length = (b"content-length", b"%d" % len(body_sent))
        await send({"type": "http.response.start", "status": status, "headers": [length]})
        await send({"type": "http.response.body", "body": body_sent})

    return application


async def _feed(
    protocol: HttpServerProtocol, transport: MemoryTransport, exchange: Exchange, segment: bytes
) -> bool:
    """Feed a segment as an event loop does: within the buffer, and not while reading is paused.

    Returns:
        Whether all of it was read; if not, nothing that follows is either.
    """
    left = memoryview(segment)
    while left:
        for _ in range(_ROUNDS):
            if transport.reading or exchange.closed:
                break
            await asyncio.sleep(0)
        if not transport.reading or exchange.closed:
            return False
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(left))
        buffer[:size] = left[:size]
        left = left[size:]
        protocol.buffer_updated(size)
        exchange.peak_buffered = max(exchange.peak_buffered, protocol._reader.buffered)
    return True


async def _settle(protocol: HttpServerProtocol, exchange: Exchange) -> None:
    """Wait until the connection is idle."""
    quiet = 0
    for _ in range(_ROUNDS):
        before = len(exchange.written)
        is_delayed = protocol._non_turn_limiter.is_delayed(protocol)
        await asyncio.sleep(0.002 if is_delayed else 0)
        idle = not (is_delayed or protocol._scheduled) and len(exchange.written) == before
        quiet = quiet + 1 if idle else 0
        if exchange.closed or quiet > 5:
            return


class _Unready:
    settings = Settings()
    ready = False
