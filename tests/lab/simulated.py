"""A simulated model on loopback, in the test's own process, and its client."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import msgspec

from seawall.lab.sim_model.faults import parse_faults
from seawall.lab.sim_model.limits import SimLimits
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.sim_model.script import Script
from seawall.lab.sim_model.server import SimModel
from seawall.transport.http_client import BufferedResponse, Endpoint, HttpClient

T = TypeVar("T")

TIMES = SimTimes(first_token=(0.02, 0.02), duration=(0.06, 0.06), chunks=5)


class Simulated:
    """A model that listens on `port`, and a client of it."""

    def __init__(self, model: SimModel, port: int) -> None:
        self.model = model
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.client = HttpClient()

    async def stats(self) -> dict[str, Any]:
        """Its counters, over HTTP."""
        found: dict[str, Any] = msgspec.json.decode((await self.get("/sim/stats")).body)
        return found

    async def get(self, target: str, body: bytes = b"") -> BufferedResponse:
        endpoint = Endpoint.parse(f"http://127.0.0.1:{self.port}{target}")
        deadline = asyncio.get_running_loop().time() + 20
        return await self.client.request(
            "POST" if body else "GET", endpoint, body=body, deadline=deadline
        )

    async def ask(
        self,
        message: str = "hello",
        *,
        model: str = "sim",
        stream: bool = True,
        seconds: float = 20,
    ) -> BufferedResponse:
        """A completion through the pooled client."""
        endpoint = Endpoint.parse(f"{self.base_url}/chat/completions")
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.client.request(
            "POST", endpoint, body=question(message, model, stream=stream), deadline=deadline
        )

    async def raw(self, message: str = "hello", *, stream: bool = True) -> bytes:
        """A completion through a socket: all bytes until the server closes.

        Raises:
            ConnectionResetError: it reset the connection; `args` has the bytes before that.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request(message, stream=stream))
            received = bytearray()
            async with asyncio.timeout(20):
                while True:
                    try:
                        data = await reader.read(65_536)
                    except ConnectionResetError:
                        raise ConnectionResetError(bytes(received)) from None
                    if not data:
                        return bytes(received)
                    received += data
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def stats_when_idle(self) -> dict[str, Any]:
        """The counters once no stream is open."""
        await until(lambda: not self.model.stats.open_streams)
        return await self.stats()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.005)


def question(message: str, model: str = "sim", *, stream: bool = True) -> bytes:
    messages = [{"role": "user", "content": message}]
    return msgspec.json.encode({"model": model, "messages": messages, "stream": stream})


def request(message: str, *, stream: bool = True) -> bytes:
    body = question(message, stream=stream)
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: sim\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


@asynccontextmanager
async def simulating(
    *rules: dict[str, object],
    times: SimTimes = TIMES,
    limits: SimLimits | None = None,
    models: tuple[str, ...] = ("simulated",),
    seed: int = 7,
) -> AsyncGenerator[Simulated, None]:
    script = parse_faults(msgspec.json.encode({"rules": rules}))
    model = SimModel(
        seed=seed, times=times, script=Script(), faults=script, limits=limits, models=models
    )
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(model.serve("127.0.0.1", 0, port.set_result))
    try:
        simulated = Simulated(model, await port)
        try:
            yield simulated
        finally:
            await simulated.client.close()
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        async with asyncio.timeout(20):
            while model.stats.connections:
                for each in tuple(model.connections):
                    each.interrupt()
                await asyncio.sleep(0)


def play(
    scene: Callable[[Simulated], Awaitable[T]], *rules: dict[str, object], **options: Any
) -> T:
    """Run a scene with a simulated model."""

    async def whole() -> T:
        async with simulating(*rules, **options) as simulated:
            return await scene(simulated)

    return asyncio.run(whole())
