"""One connection on which a turn is refused and another request follows."""

import asyncio
import functools
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn

from seawall.admission.gate import AdmissionGate
from seawall.config import ServerSettings, Settings
from seawall.hosts.http.connection_limits import ConnectionLimits
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import PreAdmissionCheck
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown
from seawall.orchestrator import Orchestrator
from seawall.settings import AdmissionSettings
from seawall.timers import TimingWheel

TURN = b"POST /v1/turns HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
SLOW = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"

Send = Callable[[dict[str, object]], Awaitable[None]]


async def slow(scope: dict[str, Any], receive: object, send: Send) -> None:
    """Responds to `/slow` after a second and a half, to others at once without a body."""
    del receive
    if scope["path"] != "/slow":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
    )
    await asyncio.sleep(1.5)
    await send({"type": "http.response.body", "body": b"whole"})


@asynccontextmanager
async def served(
    limiter: NonTurnLimiter | None = None, **limits: float
) -> AsyncGenerator[tuple[uvicorn.Server, int]]:
    """A server whose only slot is taken; it closes connections that are idle for half a second."""
    gate = AdmissionGate(AdmissionSettings(in_flight=1, queued=0))
    pre_admission = PreAdmissionCheck(
        cast(
            "Orchestrator",
            SimpleNamespace(ready=True, engine=SimpleNamespace(gate=gate), settings=Settings()),
        )
    )
    settings = ServerSettings(**limits)  # type: ignore[arg-type]
    config = uvicorn.Config(
        slow,
        http=functools.partial(  # type: ignore[arg-type]
            HttpServerProtocol,
            limits=settings,
            connection_limits=ConnectionLimits(settings, 1_024),
            non_turn_limiter=limiter or NonTurnLimiter(lambda: True),
            wheel=TimingWheel(0.02),
            shutdown=Shutdown(),
            pre_admission=pre_admission,
        ),
        lifespan="off",
        log_config=None,
        timeout_keep_alive=cast("int", 0.5),
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        deadline = asyncio.get_running_loop().time() + 100.0
        async with gate.slot("acme", background=False, deadline=deadline):
            serving = asyncio.create_task(server._serve([listening]))
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            yield server, listening.getsockname()[1]
            server.should_exit = True
            await serving


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The status line and the body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head.split(b"\r\n")[0], await reader.readexactly(length)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/turns", "/v1/turns?a=b", "/v1/chat/completions", "/v1/responses", "/v1/ui/chat"),
        *("/v1/ag-ui", "/v1/ag-ui/orders", "/mcp"),
    ],
)
async def test_every_kind_of_turn_is_refused_before_its_task(path: str) -> None:
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(TURN.replace(b"/v1/turns", path.encode()))
        assert b"503" in (await answer(reader))[0]
        writer.close()


@pytest.mark.parametrize("before", [TURN, TURN + TURN], ids=["once", "twice"])
async def test_a_request_in_the_same_segment_is_not_closed_as_idle(before: bytes) -> None:
    async with served() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(before + SLOW)
        for _ in range(len(before) // len(TURN)):
            assert b"503" in (await answer(reader))[0]
        await asyncio.sleep(0.1)
        (connection,) = server.server_state.connections
        assert cast("HttpServerProtocol", connection).idle_since is None
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"whole")
        writer.close()


@pytest.mark.parametrize(("following", "status"), [(b"GET /x", b"408"), (b"?\r\n\r\n", b"400")])
async def test_a_malformed_head_after_a_refusal_is_answered(
    following: bytes, status: bytes
) -> None:
    async with served(header_seconds=0.3) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(TURN)
        assert b"503" in (await answer(reader))[0]
        writer.write(following)
        assert status in (await asyncio.wait_for(answer(reader), 5.0))[0]
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"408" in (await asyncio.wait_for(answer(reader), 5.0))[0]
        writer.close()


async def test_input_during_a_response_does_not_interrupt_it() -> None:
    """Some clients begin to ask again."""
    async with served(header_seconds=0.3) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SLOW)
        await asyncio.sleep(0.1)
        writer.write(b"GET /sl")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"whole")
        assert b"408" in (await asyncio.wait_for(answer(reader), 5.0))[0]
        writer.close()


@pytest.mark.parametrize("request_bytes", [TURN, SLOW])
@pytest.mark.parametrize("when", ["with it", "during the answer", "after the answer"])
async def test_an_empty_line_after_a_request_does_not_begin_another(
    request_bytes: bytes, when: str
) -> None:
    """Some clients send one after a body (RFC 9112 §2.2); the connection is idle all the same."""
    async with served(header_seconds=0.3) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes + b"\r\n" if when == "with it" else request_bytes)
        if when == "during the answer":
            await asyncio.sleep(0.1)
            writer.write(b"\r\n")
        await answer(reader)
        if when == "after the answer":
            writer.write(b"\r\n")
        await asyncio.sleep(0.1)
        (connection,) = server.server_state.connections
        assert cast("HttpServerProtocol", connection).idle_since is not None
        assert await asyncio.wait_for(reader.read(), 5.0) == b""  # for it is idle, without 408
        writer.close()


@pytest.mark.parametrize(
    "target", [b"GET /livez", b"HEAD /%6civez", b"GET /%72eadyz?a=b", b"OPTIONS /v1/turns"]
)
async def test_requests_without_a_credential_are_delayed(target: bytes) -> None:
    """However the target is written, so that a flood does not take the time that turns need.

    The first request of a connection is not delayed, so that probes are answered during a flood.
    """
    limiter = NonTurnLimiter(lambda: True)
    for _ in range(5_000):  # more than the idle time of this test makes up for
        limiter.charge(application=True)
    async with served(limiter) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = target + b" HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5.0)
        assert head[9:11] == b"20"
        if target == b"GET /livez":
            await reader.readexactly(len(b'{"status":"alive"}'))
        writer.write(request)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        writer.close()
