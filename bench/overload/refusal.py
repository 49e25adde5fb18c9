"""Cost of a refusal without system calls: bytes in, bytes out, no socket.

.venv/bin/python bench/overload/refusal.py

A real protocol object, gate and authenticator; the transport only counts. Each refusal includes a
pass of the event loop.
"""

import asyncio
import socket
import sys
import tempfile
import time
from pathlib import Path

import uvicorn
from uvicorn.server import ServerState

from seawall.config import parse_settings
from seawall.hosts.http.app import HttpApplication
from seawall.hosts.http.connection_limits import ConnectionLimits
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import PreAdmissionCheck
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown
from seawall.lab.demo import DemoIssuer
from seawall.lab.surge.connection import request_bytes
from seawall.orchestrator import Orchestrator
from seawall.timers import TimingWheel
from seawall.transport.http_client import Endpoint

TIMES = 20_000


class Sink(asyncio.Transport):
    """A transport that counts refusals and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self._socket = socket.socket()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """See asyncio."""
        return self._socket if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        self.written += bytes(data[:12]) == b"HTTP/1.1 503"

    def is_closing(self) -> bool:
        """See asyncio."""
        return False

    def pause_reading(self) -> None:
        """See asyncio."""

    def resume_reading(self) -> None:
        """See asyncio."""


async def measure(folder: Path) -> None:
    """Print the microseconds of one refusal."""
    issuer = DemoIssuer(folder / "jwks.json")
    settings = parse_settings(f"""
        [admission]
        in_flight = 1
        queued = 0
        [sessions]
        path = "{folder}/sessions.db"
        [identity.jwt]
        issuer = "https://demo.seawall.example"
        audience = "seawall-demo"
        jwks_file = "{folder}/jwks.json"
        [models.default]
        base_url = "http://127.0.0.1:9/v1"
        model = "none"
        [agents.one]
        instructions = "Answer."
    """)
    async with Orchestrator(settings) as orchestrator:
        config = uvicorn.Config(
            HttpApplication(orchestrator, manage_lifespan=False), ws="none", log_config=None
        )
        config.load()
        sink = Sink()
        protocol = HttpServerProtocol(
            config=config,
            server_state=ServerState(),
            app_state={},
            limits=settings.server,
            wheel=TimingWheel(),
            shutdown=Shutdown(),
            pre_admission=PreAdmissionCheck(orchestrator),
            connection_limits=ConnectionLimits(settings.server, 1_024),
            non_turn_limiter=NonTurnLimiter(lambda: False),
        )
        protocol.connection_made(sink)
        token = issuer.token("ada")
        request = request_bytes(
            Endpoint.parse("http://127.0.0.1:1/v1/turns"), "turns", "Where is my order?", token
        )
        deadline = asyncio.get_running_loop().time() + 60
        async with orchestrator.engine.gate.slot("demo", background=False, deadline=deadline):
            began = time.perf_counter()
            for _ in range(TIMES):
                protocol.get_buffer(-1)[: len(request)] = request
                protocol.buffer_updated(len(request))
                await asyncio.sleep(0)  # the rest of the body is read in the next pass
            spent = time.perf_counter() - began
        assert sink.written == TIMES
        sys.stdout.write(f'{{"refusal_us": {spent / TIMES * 1e6:.1f}}}\n')


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name)))
