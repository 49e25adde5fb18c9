"""OpenAI-compatible endpoints: chat completions and models.

Format: https://platform.openai.com/docs/api-reference/chat/create. `model` is an agent or "auto".
The response header `Seawall-Session` names the session; sent back as that header or as
`metadata.session`, it continues the session.

A turn that calls tools of the client is answered with the calls; the request with their results
continues it. A turn that pauses for anything else is answered as if it had stopped: its text so
far, or a sentence that says what it waits for; the member `seawall` has what a program needs to
decide.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from seawall.agents.calls import Emit
from seawall.errors import InvalidField, Problem, TurnNotFound, UnknownAgent
from seawall.events import (
    AgentSelected,
    Event,
    TextDelta,
    TurnQueued,
    TurnResumed,
)
from seawall.hosts.http.bodies import decode, idempotency_key
from seawall.hosts.http.chat_body import (
    ChatBody,
    ReturnedContent,
    answer_options,
    chat_request,
    has_files,
    instructions_field,
    returned_contents,
)
from seawall.hosts.http.chat_reply import ChatReply
from seawall.hosts.http.exchange import Exchange, encode, problem_body
from seawall.hosts.http.sessions import authenticated_owner
from seawall.hosts.http.turns import (
    EVENT_STREAM,
    check_capacity,
    run_turn,
    while_connected,
)
from seawall.models import TextSink
from seawall.requests import session_of
from seawall.turn import AnswerOptions

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["answer_chat", "answer_model", "answer_models"]

_decoder = msgspec.json.Decoder(ChatBody)

_Source = Callable[[Emit, TextSink | None], Awaitable[None]]
"""Runs a turn, or follows one, and emits its events; text goes to the sink where it can."""


async def answer_chat(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/chat/completions`: one turn, or what follows the results of a client's tools.

    See `run_turn` and `return_results` for what it raises.
    """
    check_capacity(orchestrator, exchange)  # before the body is read and a token verified
    settings = orchestrator.settings.server
    exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    instructed = instructions_field(body)
    try:
        reply = ChatReply(orchestrator, instructed=instructed is not None)
        answer = await _source(orchestrator, exchange, body, reply, key)
        await (_respond_stream if body.stream else _respond_json)(exchange, body, reply, answer)
    except (UnknownAgent, InvalidField) as problem:
        if exchange.started:
            raise
        raise _renamed(problem, instructed) from problem


def _renamed(problem: UnknownAgent | InvalidField, instructed: str | None) -> Problem:
    """A problem whose field has another name in this format."""
    if isinstance(problem, UnknownAgent):
        return UnknownAgent(problem.detail, field="model")
    field = problem.field or ""
    if field == "instructions":
        return InvalidField(problem.detail, field=instructed)
    if field.startswith("tools[") and field.endswith("].name"):
        field = field.removesuffix("name") + "function.name"
    return InvalidField(problem.detail, field=field or None)


async def _source(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    body: ChatBody,
    reply: ChatReply,
    key: str | None,
) -> "_Source":
    """What the request asks for: a new turn, or more of one that waits for results."""
    settings = orchestrator.settings.server
    session = exchange.headers.get(b"seawall-session", b"").decode("latin-1") or None
    agents = orchestrator.engine.agents.values()
    instructed = any(each.client_instructions != "ignore" for each in agents)
    returned = returned_contents(body, settings)
    if returned:
        options = answer_options(body, settings, instructed=instructed) or AnswerOptions()
        _check_session(returned, session or (body.metadata or {}).get("session"))
        return await _continue(orchestrator, exchange, returned, reply, options, model=body.model)
    request = exchange.hosted(
        chat_request(body, session=session, key=key, settings=settings, instructed=instructed)
    )
    if any(map(has_files, body.messages)):
        from seawall.hosts.http.attachments import with_attachments  # noqa: PLC0415 - if there are
        from seawall.hosts.http.chat_files import chat_files  # noqa: PLC0415 - likewise

        sent = chat_files(body, request)
        request = await with_attachments(orchestrator, exchange, request, sent)
    reply.begin(request)

    async def run(emit: Emit, sink: TextSink | None) -> None:
        credential = exchange.credential()
        exchange.forget_head()
        await run_turn(orchestrator, exchange, request, credential, emit, sink=sink)

    return run


def _check_session(returned: list[ReturnedContent], session: str | None) -> None:
    """Check that results are of the session that the request names."""
    from seawall.hosts.http.client_calls import effect_of  # noqa: PLC0415 - only with results

    for each in returned:
        of = session_of(effect_of(each.call).rpartition(".")[0])
        if session is not None and of not in (None, session):
            raise InvalidField(
                "This is a call of another session.", field=f"{each.field}.tool_call_id"
            )


async def _continue(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    returned: list[ReturnedContent],
    reply: ChatReply,
    options: AnswerOptions,
    *,
    model: str,
) -> "_Source":
    """Return the results; what the turn does then.

    It stays with its agent, whichever agent `model` is.
    """
    from seawall.hosts.http.client_calls import (  # noqa: PLC0415 - only with results
        Result,
        effect_of,
        events_after_results,
        return_results,
    )

    owner = await authenticated_owner(orchestrator, exchange)
    if model != "auto":
        _check_agent(orchestrator, model)
    results = []
    for each in returned:
        effect, named = effect_of(each.call), f"{each.field}.tool_call_id"
        if not effect:
            raise TurnNotFound("No call of this id was made for this caller.", field=named)
        results.append(Result(effect, each.content, f"{each.field}.content", named=named))
    taken = await return_results(orchestrator, owner, results, options=options, all_at_once=True)
    reply.resume(taken)

    async def run(emit: Emit, sink: TextSink | None) -> None:  # noqa: ARG001 - of stored events
        async def forward() -> None:
            events = events_after_results(orchestrator, owner, taken, past_decisions=True)
            async with aclosing(events):
                async for event in events:
                    await emit(event)

        await while_connected(exchange, forward())

    return run


async def answer_models(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`GET /v1/models`: the agents, and "auto", as a list of models."""
    await authenticated_owner(orchestrator, exchange)
    entries = [_model(name) for name in ("auto", *orchestrator.engine.agents)]
    await exchange.answer({"object": "list", "data": entries})


async def answer_model(orchestrator: "Orchestrator", exchange: Exchange, name: str) -> None:
    """`GET /v1/models/{id}`: an agent as a model.

    Raises:
        UnknownAgent: There is no such agent.
    """
    await authenticated_owner(orchestrator, exchange)
    if name != "auto":
        _check_agent(orchestrator, name)
    await exchange.answer(_model(name))


def _check_agent(orchestrator: "Orchestrator", name: str) -> None:
    if name not in orchestrator.engine.agents:
        raise UnknownAgent(f"There is no agent {name[:64]!r}.", field="model")


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "seawall"}


async def _respond_stream(
    exchange: Exchange, body: ChatBody, reply: ChatReply, answer: "_Source"
) -> None:
    async def emit(*events: Event) -> None:
        for event in events:
            if not reply.called:  # what a turn did later is the answer to the results
                reply.take(event)
                await _stream_event(exchange, reply, event)

    try:
        await answer(emit, exchange.text_sink(lambda text: reply.delta({"content": text})))
    except Problem as problem:
        if not exchange.started:
            raise
        await exchange.end(b"data: %b\n\n" % encode(problem_body(problem, exchange.request.id)))
        return
    await _open_stream(exchange, reply)
    with_usage = bool(body.stream_options and body.stream_options.include_usage)
    await exchange.end(reply.end(with_usage=with_usage))


async def _stream_event(exchange: Exchange, reply: ChatReply, event: Event) -> None:
    if type(event) is TextDelta:
        await _open_stream(exchange, reply)
        await exchange.write(reply.delta({"content": event.text}))
    elif type(event) is TurnQueued:
        await _show_queue(exchange, reply, event)
    elif type(event) is TurnResumed or (type(event) is AgentSelected and event.reason != "handoff"):
        await _open_stream(exchange, reply)


async def _open_stream(exchange: Exchange, reply: ChatReply) -> None:
    """Send the headers, and the beginning of the message, once its agent is known."""
    if not exchange.started:
        await exchange.start(200, [*EVENT_STREAM, *reply.headers()])
    if not reply.opened:
        reply.opened = True
        await exchange.write(reply.delta({"role": "assistant", "content": ""}))


async def _show_queue(exchange: Exchange, reply: ChatReply, event: TurnQueued) -> None:
    """Send a comment, which clients ignore, if the headers are known while the turn waits."""
    if not exchange.started:
        if not reply.headers_known:
            return
        await exchange.start(200, [*EVENT_STREAM, *reply.headers()])
    await exchange.write(b": turn.queued %b\n\n" % encode(event))


async def _respond_json(
    exchange: Exchange,
    body: ChatBody,  # noqa: ARG001 - as of `_respond_stream`
    reply: ChatReply,
    answer: "_Source",
) -> None:
    text: list[str] = []

    async def emit(*events: Event) -> None:
        for event in events:
            if reply.called:
                return
            reply.take(event)
            if type(event) is TextDelta:
                text.append(event.text)

    await answer(emit, None)
    content = "".join(text) or reply.explanation()
    message: dict[str, object] = {"role": "assistant", "content": content}
    if reply.called:
        message |= {"content": content or None, "tool_calls": reply.called}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    answered = reply.body("chat.completion", [choice]) | {"usage": reply.usage()}
    answered |= reply.extension()
    await exchange.answer(answered, headers=reply.headers())
