"""Running a turn for a client that may go away."""

import asyncio
import logging
from contextlib import aclosing

from seawall.agents.loop import Emit
from seawall.errors import InternalError, Problem
from seawall.hosts.http.exchange import ClientDisconnected, Exchange
from seawall.identity.port import Credential
from seawall.orchestrator import Orchestrator
from seawall.pipeline.live import LiveTurn
from seawall.turn import TurnRequest

__all__ = ["run_turn"]

_log = logging.getLogger("seawall.http")


async def run_turn(
    orchestrator: Orchestrator,
    exchange: Exchange,
    request: TurnRequest,
    credential: Credential,
    emit: Emit,
) -> None:
    """Run the turn; cancel it, down to the model's socket, when the client goes away.

    Unless it is to be completed in the background, or another client waits for it as well.

    Raises:
        Problem: the turn failed; a defect is logged and comes as InternalError, the end of the
            server as ServerStopping.
        ClientDisconnected: nobody is there any more.
    """

    async def watch() -> None:
        await exchange.wait_disconnected()
        raise ClientDisconnected

    try:
        with exchange.stop.translate_cancellation():
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(watch())
                if request.background or request.idempotency_key is not None:
                    await _emit_live(orchestrator.engine.start(request, credential), emit)
                else:
                    await orchestrator.engine.execute(request, credential, emit)
                watcher.cancel()
    except ExceptionGroup as group:
        error = _first(group)
        if isinstance(error, Problem | ClientDisconnected):
            raise error from None
        _log.error("turn %s failed", request.id, exc_info=error)
        raise InternalError("Something went wrong here; it is logged.") from error


async def _emit_live(live: LiveTurn, emit: Emit) -> None:
    async with aclosing(live.follow()) as events:
        async for _, event in events:
            await emit(event)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
