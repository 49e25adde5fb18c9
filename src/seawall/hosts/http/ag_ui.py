"""`/v1/ag-ui`: turns for user interfaces that speak AG-UI.

A thread is a session, a run a turn or its continuation. The id of a run makes a retry return the
first answer. See `ag_ui_stream` for the format.
"""

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from seawall.errors import InvalidField, Problem, ServerStopping, TurnIsPaused, TurnPostponed
from seawall.events import Event, TextDelta
from seawall.hosts.http.ag_ui_body import AgUiBody, check_run, resumed, run_text
from seawall.hosts.http.ag_ui_stream import RunStream
from seawall.hosts.http.bodies import decode, idempotency_key, identifier
from seawall.hosts.http.conversations import (
    Conversation,
    continuation,
    decide_calls,
    open_conversation,
    still_waiting,
)
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.turns import EVENT_STREAM, check_capacity, run_turn, while_connected
from seawall.turn import TurnRequest

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["answer_run"]

_decoder = msgspec.json.Decoder(AgUiBody)


async def answer_run(
    orchestrator: "Orchestrator", exchange: Exchange, agent: str | None = None
) -> None:
    """`POST /v1/ag-ui` and `POST /v1/ag-ui/{agent}`: a run.

    What is wrong with the answer to an interrupt is an event, as AG-UI wants it. See `run_turn` for
    what it raises.
    """
    check_capacity(orchestrator, exchange)  # before the body is read and a token verified
    settings = orchestrator.settings.server
    identifier(agent, "agent")
    exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    check_run(body, settings)
    stream = RunStream(body.thread_id, body.run_id)
    if body.resume:
        conversation = await open_conversation(orchestrator, exchange, body.thread_id)
        await _continue(orchestrator, exchange, conversation, body, stream)
        return
    text, files = run_text(body, settings)
    conversation = await open_conversation(orchestrator, exchange, body.thread_id)
    props = body.forwarded_props
    request = conversation.request(
        text,
        agent=agent,
        key=key or f"ag-ui.{body.thread_id}.{body.run_id}",
        background=bool(props and props.background),
    )
    if files:
        from seawall.hosts.http.attachments import (  # noqa: PLC0415 - only if there are
            SentFile,
            sent_file,
            with_attachments,
        )

        sent = [
            sent_file(each.url, each.field, name=each.name)
            if each.url
            else SentFile(each.field, each.data, each.file, each.name)
            for each in files
        ]
        request = await with_attachments(orchestrator, exchange, request, sent)
    await _run(orchestrator, exchange, exchange.with_deadline(request), stream)


async def _run(
    orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest, stream: RunStream
) -> None:
    async def emit(*events: Event) -> None:
        frames = b"".join(map(stream.take, events))
        if not exchange.started and frames:
            await exchange.start(200, EVENT_STREAM)
        if frames:
            is_text = type(events[0]) is TextDelta
            await (exchange.write_text(frames) if is_text else exchange.write(frames))

    try:
        await run_turn(orchestrator, exchange, request, exchange.credential(), emit)
    except Problem as problem:
        if not (exchange.started or isinstance(problem, TurnIsPaused)):
            raise
        # A background turn is continued by another server: its stream breaks off.
        broken = request.background and isinstance(problem, ServerStopping | TurnPostponed)
        await _fail(exchange, stream, None if broken else problem)
        return
    await exchange.end(stream.end())


async def _continue(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    conversation: Conversation,
    body: AgUiBody,
    stream: RunStream,
) -> None:
    """Take the answers to interrupts, and stream what the turn does then."""
    entries = body.resume or []

    async def forward() -> None:
        answers = [resumed(each, f"resume[{index}]") for index, each in enumerate(entries)]
        decisions = [each for each in answers if each is not None]
        turn = entries[0].interrupt_id.partition("/")[0]
        after = continuation(conversation, turn, entries[0].interrupt_id.rpartition("/")[2])
        if decisions:
            turn, after = await decide_calls(orchestrator, conversation, decisions)
        begun = stream.begin(turn)
        await exchange.start(200, EVENT_STREAM)
        await exchange.write(begun)
        events = orchestrator.engine.events(conversation.owner, turn, after=after)
        happened = False
        async with aclosing(events):
            async for _, event in events:
                happened = True
                if frames := stream.take(event):
                    await exchange.write(frames)
        if not happened:
            decided = {each.wait.partition("/")[2] for each in decisions}
            for event in still_waiting(conversation, decided):
                stream.take(event)

    try:
        await while_connected(exchange, forward())
    except Problem as problem:
        expected = isinstance(problem, InvalidField) or problem.status in (403, 404, 409)
        if not (exchange.started or expected):
            raise
        broken = isinstance(problem, ServerStopping | TurnPostponed)
        await _fail(exchange, stream, None if broken else problem)
        return
    await exchange.end(stream.end())


async def _fail(exchange: Exchange, stream: RunStream, problem: Problem | None) -> None:
    """End with an error; without one the stream breaks off."""
    begun = stream.begin()
    if not exchange.started:
        await exchange.start(200, EVENT_STREAM)
    await exchange.end(b"" if problem is None else begun + stream.fail(problem))
