"""`POST /v1/turns`: a turn, streamed as server-sent events or answered as one JSON object."""

from contextlib import aclosing

import msgspec

from seawall.errors import Problem, ServerStopping, TurnPostponed
from seawall.events import (
    Event,
    IntentDetected,
    TextDelta,
    ToolReturned,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.bodies import TurnBody, decode, idempotency_key, turn_request
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.frames import EVENT_STREAM, EventFrames
from seawall.hosts.http.pre_admission import check_capacity
from seawall.hosts.http.running import run_turn
from seawall.identity.port import Credential
from seawall.orchestrator import Orchestrator
from seawall.turn import TurnRequest

__all__ = ["answer_turn"]

_decoder = msgspec.json.Decoder(TurnBody)


async def answer_turn(orchestrator: Orchestrator, exchange: Exchange) -> None:
    """Answer the exchange. See `run_turn` for what it raises."""
    check_capacity(
        orchestrator, exchange
    )  # a refusal costs nothing: no body read, no token verified
    settings = orchestrator.settings.server
    credential = exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    request = exchange.with_deadline(turn_request(body, key=key, settings=settings))
    accepts = b"text/event-stream" in exchange.headers.get(b"accept", b"")
    stream = accepts if body.stream is None else body.stream
    answer = (
        _respond_stream if stream else _respond_accepted if request.background else _respond_json
    )
    await answer(orchestrator, exchange, request, credential)


async def _respond_stream(
    orchestrator: Orchestrator, exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    """Events as they happen; a turn that fails before its first event gets a plain problem."""
    frames = EventFrames()
    last = b""

    async def emit(*events: Event) -> None:
        nonlocal last
        if type(events[-1]) is TurnCompleted:
            last = frames.frame(events[-1])  # goes out together with the end of the body
            return
        if not exchange.started:
            await exchange.start(200, EVENT_STREAM)
        if type(events[0]) is TextDelta:
            await exchange.write_text(b"".join(map(frames.frame, events)))
        else:
            await exchange.write(b"".join(map(frames.frame, events)))

    try:
        await run_turn(orchestrator, exchange, request, credential, emit)
    except Problem as problem:
        if not exchange.started:
            raise
        # A turn in the background goes on elsewhere: its stream breaks off.
        if not (request.background and isinstance(problem, ServerStopping | TurnPostponed)):
            last = frames.frame(TurnFailed(request.id, problem.as_dict()))
    await exchange.end(last)


async def _respond_accepted(
    orchestrator: Orchestrator, exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    """202 as soon as the turn is open; its events can be had from then on."""
    live = orchestrator.engine.start(request, credential)
    async with aclosing(live.follow()) as events:
        async for _, event in events:
            if type(event) is TurnStarted:
                where = f"/v1/turns/{event.turn}/events"
                await exchange.answer(
                    {"turn": event.turn, "session": event.session, "events": where},
                    status=202,
                    headers=[(b"location", where.encode())],
                )
                return


async def _respond_json(
    orchestrator: Orchestrator, exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    """One JSON object when the turn is durable, with the stage timings in `Server-Timing`."""
    text: list[str] = []
    answer: dict[str, object] = {"intent": None, "tool_calls": []}
    calls: list[dict[str, object]] = []
    timings: dict[str, float] = {}

    async def emit(*events: Event) -> None:
        for event in events:
            if type(event) is TextDelta:
                text.append(event.text)
            elif type(event) is IntentDetected:
                answer["intent"] = event.intent
            elif type(event) is ToolReturned:
                calls.append({"name": event.name, "failed": event.failed})
            elif type(event) is UsageReported:
                answer["usage"] = event.usage
                if event.cost is not None:
                    answer["cost"] = event.cost
            elif type(event) is TurnCompleted:
                answer.update(
                    turn=event.turn,
                    session=event.session,
                    version=event.version,
                    agent=event.agent,
                    replayed=event.replayed,
                    finish_reason=event.finish_reason or "stop",
                )
                if event.cached:
                    answer["cached"] = True
                timings.update(event.timings)

    await run_turn(orchestrator, exchange, request, credential, emit)
    answer["text"] = "".join(text)
    answer["tool_calls"] = calls
    spent = ", ".join(f"{stage};dur={spent:g}" for stage, spent in timings.items())
    await exchange.answer(answer, headers=[(b"server-timing", spent.encode())])
