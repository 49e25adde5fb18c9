"""`GET /v1/turns/{id}/events`: the events of a turn, from where a stream of them broke off."""

import asyncio
from contextlib import aclosing

from seawall.errors import InvalidField, Problem, ServerStopping, TurnPostponed
from seawall.events import TurnFailed
from seawall.hosts.http.exchange import ClientDisconnected, Exchange
from seawall.hosts.http.frames import EVENT_STREAM, EventFrames
from seawall.hosts.http.sessions import authenticated_owner
from seawall.orchestrator import Orchestrator
from seawall.turn import Principal

__all__ = ["answer_turn_events"]


async def answer_turn_events(orchestrator: Orchestrator, exchange: Exchange, turn: str) -> None:
    """Answer the exchange with those behind the header `Last-Event-ID`, as they happen.

    Raises:
        TurnNotFound: the turn is not the caller's, or nobody knows it.
        InvalidField: the header is not the id of an event.
    """
    after = _after(exchange.headers.get(b"last-event-id", b"0"))
    owner = await authenticated_owner(orchestrator, exchange)
    await exchange.body(limit=0, seconds=orchestrator.settings.server.body_seconds)

    async def watch() -> None:
        await exchange.wait_disconnected()
        raise ClientDisconnected

    try:
        with exchange.stop.translate_cancellation():
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(watch())
                await _forward_events(orchestrator, exchange, owner, turn, after)
                watcher.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    except ServerStopping:  # the stream breaks off; it can be had elsewhere
        if not exchange.started:
            raise
        await exchange.end()


async def _forward_events(
    orchestrator: Orchestrator, exchange: Exchange, owner: Principal, turn: str, after: int
) -> None:
    frames = EventFrames(after)
    last = b""
    try:
        async with aclosing(orchestrator.engine.events(owner, turn, after=after)) as events:
            async for position, event in events:
                if not exchange.started:
                    await exchange.start(200, EVENT_STREAM)
                await exchange.write(frames.at(position, event))
    except TurnPostponed:  # the stream breaks off; it can be had again
        if not exchange.started:
            raise
    except Problem as problem:
        if not exchange.started:
            raise
        last = frames.frame(TurnFailed(turn, problem.as_dict()))
    if not exchange.started:  # the stream had been read to its end before
        await exchange.start(200, EVENT_STREAM)
    await exchange.end(last)


def _after(header: bytes) -> int:
    if not (header.isdigit() and len(header) <= 12):
        raise InvalidField("Must be the id of an event of this stream.", field="Last-Event-ID")
    return int(header)
