"""`/v1/ui/chat`: turns for user interfaces that are made with the AI SDK.

Its default transport posts a chat to this address, and resumes it at `/v1/ui/chat/{id}/stream`. The
chat's id is that of the session; the id of the user's message makes a retry return the first
answer. See `ui_stream` for the format.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from seawall.errors import InvalidField, Problem, ServerStopping, TurnNotFound, TurnPostponed
from seawall.events import Event, TurnQueued, TurnStarted
from seawall.hosts.http.bodies import decode, idempotency_key, identifier
from seawall.hosts.http.conversations import (
    Conversation,
    call_of,
    decide_calls,
    open_conversation,
)
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.turns import EVENT_STREAM, check_capacity, run_turn, while_connected
from seawall.hosts.http.ui_body import UiBody, answers_of, newest_message, results_of, text_of
from seawall.hosts.http.ui_stream import UiStream
from seawall.requests import session_of
from seawall.turn import TurnRequest

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["answer_ui_chat", "resume_ui_chat"]

_VERSION = (b"x-vercel-ai-ui-message-stream", b"v1")
_decoder = msgspec.json.Decoder(UiBody)


async def answer_ui_chat(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/ui/chat`: a turn, or the continuation of one that waited for a decision.

    See `run_turn` and `decide_calls` for what it raises.
    """
    check_capacity(orchestrator, exchange)  # before the body is read and a token verified
    settings = orchestrator.settings.server
    exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    index, message = newest_message(body, settings)
    if message.role == "assistant":
        await _continue(orchestrator, exchange, body, index)
        return
    text, own, files = text_of(message, index, settings)
    conversation = await open_conversation(orchestrator, exchange, body.id)
    request = conversation.request(
        text,
        agent=body.agent,
        key=key or f"ui.{body.id}.{own}",
        background=bool(body.background),
        options=body.options(settings),
    )
    if files:
        from seawall.hosts.http.attachments import (  # noqa: PLC0415 - only if there are
            file_at,
            with_attachments,
        )

        sent = [file_at(each.url, each.field, name=each.name) for each in files]
        request = await with_attachments(orchestrator, exchange, request, sent)
    await _run(orchestrator, exchange, exchange.hosted(request))


async def _continue(
    orchestrator: "Orchestrator", exchange: Exchange, body: UiBody, index: int
) -> None:
    """Take the decisions and results in an answer; stream what the turn does then.

    Raises:
        InvalidField: There are none.
    """
    message = body.messages[index]
    answers, results = answers_of(message, index), results_of(message, index)
    if not answers and not results:
        raise InvalidField(
            "The last message must be the user's, or have a decision about a call, or a result.",
            field=f"messages[{index}].role",
        )
    options = body.options(orchestrator.settings.server)
    conversation = await open_conversation(orchestrator, exchange, body.id)
    rejected = frozenset(
        call_of(each.wait, body.id, each.field)[1]
        for each in answers
        if each.verdict.decision == "reject"
    )
    stream = UiStream(rejected, frozenset(results))
    owner, returned = conversation.owner, None
    if results:
        from seawall.hosts.http.client_calls import return_call_results  # noqa: PLC0415 - seldom

        named = f"messages[{index}].id"
        if session_of(message.id) != body.id:
            raise InvalidField("There is no turn of this id.", field=named)
        returned = await return_call_results(
            orchestrator,
            owner,
            message.id,
            results,
            options=options,
            wake=not answers,
            named=named,
        )
    turn, after = message.id, returned.after if returned is not None else 0
    if answers:
        turn, decided = await decide_calls(orchestrator, conversation, answers)
        after = min(after or decided, decided)
    events = _events(orchestrator, conversation, turn, after=after)
    if returned is not None:
        from seawall.hosts.http.client_calls import events_after_results  # noqa: PLC0415 - seldom

        returned = structs.replace(returned, after=after)
        events = events_after_results(orchestrator, owner, returned)
    await _follow(exchange, conversation, turn, events, stream=stream)


async def _events(
    orchestrator: "Orchestrator", conversation: Conversation, turn: str, *, after: int
) -> AsyncGenerator[Event, None]:
    """The events of a turn beyond a position."""
    found = orchestrator.engine.events(conversation.owner, turn, after=after)
    async with aclosing(found):
        async for _, event in found:
            yield event


async def resume_ui_chat(orchestrator: "Orchestrator", exchange: Exchange, chat: str) -> None:
    """`GET /v1/ui/chat/{id}/stream`: all of the turn in progress, as it happens.

    Or of the turn that waits for a decision; 204 if there is none.
    """
    identifier(chat, "id")
    conversation = await open_conversation(orchestrator, exchange, chat)
    await exchange.body(limit=0, seconds=orchestrator.settings.server.body_seconds)
    if not conversation.active:
        await exchange.no_content()
        return
    turn = conversation.active
    try:
        events = _events(orchestrator, conversation, turn, after=0)
        await _follow(exchange, conversation, turn, events, stream=UiStream())
    except TurnNotFound:  # it has ended meanwhile, and nothing of it is stored
        await exchange.no_content()


async def _run(orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest) -> None:
    stream = UiStream()

    async def emit(*events: Event) -> None:
        frames = b"".join(map(stream.take, events))
        if not exchange.started and isinstance(events[0], TurnQueued | TurnStarted):
            await _open(exchange, request.session)
        if frames:
            await exchange.write(frames)

    try:
        await run_turn(orchestrator, exchange, request, exchange.credential(), emit)
    except Problem as problem:
        if not exchange.started:
            raise
        # A background turn is continued by another server: its stream breaks off.
        broken = request.background and isinstance(problem, ServerStopping | TurnPostponed)
        await exchange.end(b"" if broken else stream.fail(problem))
        return
    await exchange.end(stream.end())


async def _follow(
    exchange: Exchange,
    conversation: Conversation,
    turn: str,
    events: AsyncGenerator[Event, None],
    *,
    stream: UiStream,
) -> None:
    """Stream the events of a turn."""

    async def forward() -> None:
        begun = stream.start(turn, conversation.session)
        async with aclosing(events):
            async for event in events:
                frames = b"" if isinstance(event, TurnStarted) else stream.take(event)
                if not exchange.started:
                    await _open(exchange, conversation.session)
                    frames = begun + frames
                if frames:
                    await exchange.write(frames)
        if not exchange.started:  # it waits for further decisions
            await _open(exchange, conversation.session)
            stream.wait()
            await exchange.write(begun)

    try:
        await while_connected(exchange, forward())
    except Problem as problem:
        if not exchange.started:
            raise
        broken = isinstance(problem, ServerStopping | TurnPostponed)
        await exchange.end(b"" if broken else stream.fail(problem))
        return
    await exchange.end(stream.end())


async def _open(exchange: Exchange, session: str) -> None:
    await exchange.start(200, [*EVENT_STREAM, _VERSION, (b"seawall-session", session.encode())])
