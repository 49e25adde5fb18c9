"""Our protocol with an ASGI application; or with our own, whose turns are answered at once."""

import asyncio
import functools
from types import SimpleNamespace

import uvicorn
from answers import PIECES
from msgspec import structs

from seawall.config import ServerSettings
from seawall.events import (
    AgentSelected,
    IntentDetected,
    TextDelta,
    TurnCompleted,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.app import HttpApplication
from seawall.hosts.http.connection_limits import ConnectionLimits
from seawall.hosts.http.non_turn_limiter import NonTurnLimiter
from seawall.hosts.http.pre_admission import PreAdmissionCheck
from seawall.hosts.http.protocol import HttpServerProtocol
from seawall.hosts.http.shutdown import Shutdown
from seawall.timers import TimingWheel
from seawall.turn import Usage


class Engine:
    """Answers turns at once, with the events of a turn and nothing behind them."""

    gate = SimpleNamespace(check=lambda _: None, busy=False, behind=False, in_flight=0)
    recorder = None
    agents: dict[str, object] = {}  # noqa: RUF012 - not changed

    async def execute(self, request, credential, emit, *, sink) -> None:  # noqa: ANN001 - a double
        """See `Pipeline.execute`."""
        del credential
        await emit(
            TurnStarted(request.id, request.session, new=True),
            IntentDetected("order", 0.9, "rules"),
            AgentSelected("shop", "intent"),
        )
        await asyncio.sleep(0)
        await emit(TextDelta("word"))
        for _ in range(PIECES - 1):
            await asyncio.sleep(0)
            assert sink("word")
        await emit(UsageReported(Usage(100, 40, 1)))
        await asyncio.sleep(0)
        timings = {"authenticate": 1.0, "load": 1.0, "detect": 1.0, "model": 1.0, "commit": 1.0}
        await emit(TurnCompleted(request.id, request.session, 1, "shop", False, timings))


async def serve(port: int, application) -> None:  # noqa: ANN001 - of ASGI
    """Serve an ASGI application, or our own if there is none."""
    settings = structs.replace(ServerSettings(), flush_delay_seconds=0.0)
    orchestrator = SimpleNamespace(
        engine=Engine(), ready=True, settings=SimpleNamespace(server=settings, mcp=None)
    )
    shutdown = Shutdown()
    config = uvicorn.Config(
        application or HttpApplication(orchestrator, manage_lifespan=False, shutdown=shutdown),
        http=functools.partial(
            HttpServerProtocol,
            limits=settings,
            wheel=TimingWheel(0.05),
            shutdown=shutdown,
            pre_admission=PreAdmissionCheck(orchestrator),
            connection_limits=ConnectionLimits(settings, 65_536),
            non_turn_limiter=NonTurnLimiter(lambda: False),
        ),
        port=port,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve()
