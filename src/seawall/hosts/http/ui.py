"""`/v1/ui/chat`: turns for user interfaces that are made with the AI SDK.

Its default transport posts a chat to this address, and resumes it at `/v1/ui/chat/{id}/stream`. The
chat's id is that of the session; the id of the user's message makes a retry return the first
answer. See `ui_stream` for the format.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from seawall.errors import Problem, ServerStopping, TurnNotFound, TurnPostponed
from seawall.events import Event, TextDelta, TurnQueued, TurnStarted
from seawall.hosts.http.bodies import decode, idempotency_key, identifier
from seawall.hosts.http.conversations import (
    Conversation,
    call_of,
    decide_calls,
    open_conversation,
)
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.turns import EVENT_STREAM, check_capacity, run_turn, while_connected
from seawall.hosts.http.ui_body import UiBody, answers_of, newest_message, text_of
from seawall.hosts.http.ui_stream import UiStream
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
        answers = answers_of(message, index)
        conversation = await open_conversation(orchestrator, exchange, body.id)
        turn, after = await decide_calls(orchestrator, conversation, answers)
        rejected = frozenset(
            call_of(each.wait, body.id, each.field)[1]
            for each in answers
            if each.verdict.decision == "reject"
        )
        stream = UiStream(rejected)
        await _follow(orchestrator, exchange, conversation, turn, after=after, stream=stream)
        return
    text, own, files = text_of(message, index, settings)
    conversation = await open_conversation(orchestrator, exchange, body.id)
    request = conversation.request(
        text,
        agent=body.agent,
        key=key or f"ui.{body.id}.{own}",
        background=bool(body.background),
    )
    if files:
        from seawall.hosts.http.attachments import (  # noqa: PLC0415 - only if there are
            file_at,
            with_attachments,
        )

        sent = [file_at(each.url, each.field, name=each.name) for each in files]
        request = await with_attachments(orchestrator, exchange, request, sent)
    await _run(orchestrator, exchange, exchange.with_deadline(request))


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
        await _follow(orchestrator, exchange, conversation, turn, after=0, stream=UiStream())
    except TurnNotFound:  # it has ended meanwhile, and nothing of it is stored
        await exchange.no_content()


async def _run(orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest) -> None:
    stream = UiStream()

    async def emit(*events: Event) -> None:
        frames = b"".join(map(stream.take, events))
        if not exchange.started and isinstance(events[0], TurnQueued | TurnStarted):
            await _open(exchange, request.session)
        if frames:
            is_text = type(events[0]) is TextDelta
            await (exchange.write_text(frames) if is_text else exchange.write(frames))

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
    orchestrator: "Orchestrator",
    exchange: Exchange,
    conversation: Conversation,
    turn: str,
    *,
    after: int,
    stream: UiStream,
) -> None:
    """Stream the events of a turn beyond a position."""

    async def forward() -> None:
        events: AsyncGenerator[tuple[int, Event], None] = orchestrator.engine.events(
            conversation.owner, turn, after=after
        )
        begun = stream.start(turn, conversation.session)
        async with aclosing(events):
            async for _, event in events:
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
