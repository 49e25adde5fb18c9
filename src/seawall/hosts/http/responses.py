"""`POST /v1/responses`: turns in the format of OpenAI's Responses API.

`model` is an agent or "auto". `previous_response_id` continues the session of a response,
`conversation` the one that it names. A turn that calls tools of the client, or waits for its
approval, is a complete response; the request with results or decisions continues the turn.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from seawall.agents.calls import Emit
from seawall.errors import (
    AlreadyDecided,
    InvalidField,
    Problem,
    ServerStopping,
    SessionConflict,
    TurnNotFound,
    TurnPostponed,
)
from seawall.events import AgentSelected, Event, TurnQueued, TurnStarted
from seawall.hosts.http.bodies import decode, idempotency_key, identifier
from seawall.hosts.http.chat_body import (
    answer_options,
    chat_request,
    has_files,
    instructions_field,
    returned_contents,
)
from seawall.hosts.http.client_calls import (
    Result,
    ReturnedResults,
    effect_of,
    events_after_results,
    return_results,
)
from seawall.hosts.http.conversations import (
    Answer,
    Conversation,
    decide_calls,
    decided_before,
    has_key,
    open_conversation,
    still_waiting,
)
from seawall.hosts.http.exchange import Exchange
from seawall.hosts.http.responses_body import Asked, ResponsesBody, asked, echo, renamed
from seawall.hosts.http.responses_ids import ResponseKey, response_key, turn_key
from seawall.hosts.http.responses_input import references
from seawall.hosts.http.responses_stream import SILENT, ResponseStream
from seawall.hosts.http.responses_turns import (
    check_response,
    earlier_calls,
    find_items,
    own_tools,
    response_keys,
)
from seawall.hosts.http.sessions import authenticated_owner, erase_session
from seawall.hosts.http.turns import EVENT_STREAM, check_capacity, run_turn, while_connected
from seawall.pipeline.replay import attempt_offset
from seawall.requests import session_of
from seawall.turn import AnswerOptions, SessionKey, TurnRecord, TurnRequest

if TYPE_CHECKING:
    from seawall.orchestrator import Orchestrator

__all__ = ["answer_response"]

_log = logging.getLogger("seawall.http")
_decoder = msgspec.json.Decoder(ResponsesBody)

_Source = Callable[[Emit], Awaitable[None]]
"""Runs a turn, or follows one, and emits its events."""


async def answer_response(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/responses`: a turn, or what follows results and decisions.

    See `run_turn`, `return_results` and `decide_calls` for what it raises.
    """
    check_capacity(orchestrator, exchange)  # before the body is read and a token verified
    settings = orchestrator.settings.server
    exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    read: Asked | None = None
    try:
        referenced: dict[str, dict[str, Any]] = {}
        if (wanted := references(body.input)) and body.session is None:
            referenced = await find_items(orchestrator, exchange, wanted)
        read = asked(body, settings, referenced)
        await _Answer(orchestrator, exchange, body, read).give(key)
    except Problem as problem:
        if exchange.started:
            raise
        raise renamed(problem, read) from problem.__cause__


class _Answer:
    """The answer to one request."""

    def __init__(
        self, orchestrator: "Orchestrator", exchange: Exchange, body: ResponsesBody, read: Asked
    ) -> None:
        self._orchestrator = orchestrator
        self._exchange = exchange
        self._body = body
        self._asked = read
        self._instructed = instructions_field(read.chat) is not None
        self._instructions = ""  # what becomes of them
        self._keyed = False  # whether it may be that of an earlier request
        self._background = bool(body.background)
        self._stream: ResponseStream | None = None
        self._pending = b""  # frames that are not sent

    async def give(self, key: str | None) -> None:
        """Run or continue the turn, and respond.

        Args:
            key: The idempotency key.
        """
        agents = self._orchestrator.engine.agents.values()
        instructed = any(each.client_instructions != "ignore" for each in agents)
        chat, settings = self._asked.chat, self._orchestrator.settings.server
        returned = returned_contents(chat, settings) if chat.messages else []
        if returned or self._asked.answers:
            results = []
            for each in returned:
                effect, named = effect_of(each.call), f"{each.field}.tool_call_id"
                if not effect:
                    raise TurnNotFound("No call of this id was made for this caller.", field=named)
                results.append(Result(effect, each.content, f"{each.field}.content", named=named))
            source = await self._continue(results, instructed=instructed)
        else:
            source = await self._begin(key, instructed=instructed)
        if self._body.stream:
            await self._respond_stream(source)
        else:
            await self._respond_json(source)

    async def _begin(self, key: str | None, *, instructed: bool) -> _Source:
        """A new turn."""
        orchestrator, exchange, body = self._orchestrator, self._exchange, self._body
        session, conversation = body.conversation_id, None
        if body.previous_response_id is not None:
            previous = response_key(body.previous_response_id, "previous_response_id")
            session = previous.session
            conversation = await open_conversation(orchestrator, exchange, session)
            try:
                _check_newest(conversation, previous)
            except SessionConflict:  # unless it was the newest when this came for the first time
                if key is None or not await has_key(orchestrator, conversation, key):
                    raise
        elif session is not None:
            identifier(session, "conversation")
            conversation = await open_conversation(orchestrator, exchange, session)
        request = chat_request(
            self._asked.chat,
            session=session,
            key=key,
            settings=orchestrator.settings.server,
            instructed=instructed,
        )
        opens = conversation is None or not conversation.exists
        named = body.conversation is not None
        request = structs.replace(
            request,
            opens=opens,
            named=named,
            background=self._background,
            stored=body.store is not False,
        )
        request = exchange.hosted(request)
        if any(map(has_files, self._asked.chat.messages)):
            from seawall.hosts.http.attachments import with_attachments  # noqa: PLC0415 - seldom
            from seawall.hosts.http.chat_files import chat_files  # noqa: PLC0415 - likewise

            sent = chat_files(self._asked.chat, request)
            request = await with_attachments(orchestrator, exchange, request, sent)
        self._keyed = key is not None
        self._stream = self._new_stream(ResponseKey(request.id), {})

        async def run(emit: Emit) -> None:
            if self._background and not body.stream:
                await self._accept(request, emit)
            else:
                await run_turn(orchestrator, exchange, request, exchange.credential(), emit)

        return run

    async def _accept(self, request: TurnRequest, emit: Emit) -> None:
        """Start a turn in the background, and wait until it is stored."""
        live = self._orchestrator.engine.start(request, self._exchange.credential())
        async with aclosing(live.follow()) as events:
            async for _, event in events:
                if type(event) is TurnStarted:
                    await emit(event)
                    return

    async def _continue(self, results: list[Result], *, instructed: bool) -> _Source:
        """Return results and decide about calls; what the turn does then."""
        orchestrator, body, answers = self._orchestrator, self._body, self._asked.answers
        options = (
            answer_options(self._asked.chat, orchestrator.settings.server, instructed=instructed)
            or AnswerOptions()
        )
        turn = results[0].effect.rpartition(".")[0] if results else answers[0].wait.split("/")[0]
        session = session_of(turn) or ""
        conversation = await open_conversation(orchestrator, self._exchange, session)
        last = conversation.last if conversation.last and conversation.last.id == turn else None
        self._check_continued(turn, conversation, last)
        returned: ReturnedResults | None = None
        if results:
            returned = await return_results(
                orchestrator, conversation.owner, results, options=options, all_at_once=True
            )
        decided = {each.wait.partition("/")[2] for each in answers}
        if answers:
            decisions = await self._decide(conversation, answers)
            returned = returned or decisions
        assert returned is not None  # noqa: S101 - there are results or answers
        followed = structs.replace(returned, calls=returned.calls | decided)
        calls = earlier_calls(last) if last is not None else {}
        key = ResponseKey(turn, followed.attempt)
        self._stream = stream = self._new_stream(key, calls, returned=followed)
        self._instruct(followed.agent)
        self._pending = stream.begin()

        async def follow(emit: Emit) -> None:
            if self._background and not body.stream:
                return
            happened = False
            async with aclosing(
                events_after_results(orchestrator, conversation.owner, followed)
            ) as events:
                async for event in events:
                    happened = True
                    await emit(event)
            if not happened:
                for event in still_waiting(conversation, followed.calls):
                    await emit(event)

        async def run(emit: Emit) -> None:
            await while_connected(self._exchange, follow(emit))

        return run

    async def _decide(
        self, conversation: Conversation, answers: tuple[Answer, ...]
    ) -> ReturnedResults:
        """Decide about calls, or find where the turn continued after the same decisions."""
        try:
            turn, after = await decide_calls(self._orchestrator, conversation, answers)
        except (AlreadyDecided, TurnNotFound) as problem:
            resumed, last = decided_before(conversation, answers), conversation.last
            if resumed is None or last is None:
                raise type(problem)(problem.detail, field=answers[0].field) from problem
            turn, after, before = last.id, attempt_offset(resumed.attempt), resumed.usage
        else:
            last = conversation.last
            assert last is not None  # noqa: S101 - or there was nothing to decide
            before = last.usage
        return ReturnedResults(
            turn=turn,
            session=conversation.session,
            attempt=turn_key(turn, after).attempt,
            agent=last.agent,
            after=after,
            before=before,
            calls=frozenset(),
        )

    def _check_continued(
        self, turn: str, conversation: Conversation, last: TurnRecord | None
    ) -> None:
        """Check that results and decisions are of the conversation that the request names."""
        body, session = self._body, session_of(turn)
        for each in self._asked.answers:
            if each.wait.partition("/")[0] != turn:
                raise InvalidField("This is a call of another turn.", field=each.field)
        named = body.previous_response_id
        if named is not None and response_key(named, "previous_response_id").turn != turn:
            raise InvalidField(
                "The results are not of this response.", field="previous_response_id"
            )
        if body.conversation_id not in (None, session):
            raise InvalidField("The results are of another conversation.", field="conversation")
        if body.store is False and conversation.exists and (last is None or last.number != 1):
            raise InvalidField("The conversation of these results is stored.", field="store")

    def _new_stream(
        self,
        key: ResponseKey,
        calls: Mapping[str, dict[str, str]],
        returned: ReturnedResults | None = None,
    ) -> ResponseStream:
        base: dict[str, Any] = echo(self._body) | {"created_at": int(time.time())}
        if returned is not None:
            base["model"] = returned.agent
        return ResponseStream(
            key,
            base,
            own=own_tools(self._orchestrator),
            calls=calls,
            before=returned.before if returned is not None else None,
            after=-1 if self._body.stream else SILENT,
            reasoning=not self._background,
            approves=self._asked.approves,
        )

    def _instruct(self, agent: str) -> None:
        if not self._instructed or self._stream is None:
            return
        policy = self._orchestrator.engine.agents[agent].client_instructions
        self._instructions = "appended" if policy == "append" else "ignored"
        self._stream.instruct(self._instructions, self._body.instructions)

    def _take(self, event: Event) -> bytes:
        """The frames of an event."""
        stream = self._stream
        assert stream is not None  # noqa: S101 - see `give`
        if type(event) is TurnQueued:
            # With a key, the response to name may be that of an earlier request.
            return b"" if self._keyed and not stream.begun else stream.queue(event)
        if type(event) is TurnStarted:
            return stream.begin(None if stream.key.attempt else ResponseKey(event.turn))
        if type(event) is AgentSelected and event.reason != "handoff":
            self._instruct(event.agent)
        return stream.take(event)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        assert self._stream is not None  # noqa: S101 - see `give`
        named = [(b"seawall-session", self._stream.key.session.encode())]
        if self._instructions:
            named.append((b"seawall-client-instructions", self._instructions.encode()))
        return named

    async def _respond_json(self, source: _Source) -> None:
        stream = self._stream
        assert stream is not None  # noqa: S101 - see `give`

        async def emit(*events: Event) -> None:
            for event in events:
                self._take(event)

        await source(emit)
        if not self._background:
            await self._finish()
            stream.end()
        await self._exchange.answer(stream.response(), headers=self._headers())

    async def _respond_stream(self, source: _Source) -> None:
        exchange, stream = self._exchange, self._stream
        assert stream is not None  # noqa: S101 - see `give`

        async def emit(*events: Event) -> None:
            self._pending += b"".join(map(self._take, events))
            if not exchange.started:
                if not self._pending or (self._instructed and not self._instructions):
                    return  # the headers are not known yet
                await exchange.start(200, [*EVENT_STREAM, *self._headers()])
            if self._pending:
                data, self._pending = self._pending, b""
                await exchange.write(data)

        if self._pending:  # the turn continues
            await exchange.start(200, [*EVENT_STREAM, *self._headers()])
            await emit()
        try:
            await source(emit)
            await self._finish()
        except Problem as problem:
            if not exchange.started:
                raise
            # A background turn is continued by another server: its stream breaks off.
            broken = self._background and isinstance(problem, ServerStopping | TurnPostponed)
            await exchange.end(b"" if broken else self._pending + stream.fail(problem))
            return
        if not exchange.started:
            await exchange.start(200, [*EVENT_STREAM, *self._headers()])
        await exchange.end(self._pending + stream.end())

    async def _finish(self) -> None:
        """What is done between the end of the turn and that of the response."""
        stream = self._stream
        assert stream is not None  # noqa: S101 - see `give`
        stream.complete_at(time.time())
        if self._body.store is not False or stream.paused or self._keyed:
            return  # with a key it is kept for repetitions, until it expires
        try:
            owner = await authenticated_owner(self._orchestrator, self._exchange)
            key = SessionKey(owner.tenant, owner.subject, stream.key.session)
            await erase_session(self._orchestrator, key)
        except Problem as problem:
            _log.warning("session %s is not deleted: %s", stream.key.session, problem)


def _check_newest(conversation: Conversation, previous: ResponseKey) -> None:
    """Check that a response is the newest of its conversation.

    Raises:
        TurnNotFound: There is no such response.
        SessionConflict: There is a newer one.
    """
    last = conversation.last
    if conversation.running == previous.turn:
        return  # it is waited for, as of any session
    if last is None:
        raise TurnNotFound(
            "There is no response of this id for this caller.", field="previous_response_id"
        )
    *_, newest = response_keys(last)
    if last.id == previous.turn:
        check_response(last, previous, "previous_response_id")
    if last.id != previous.turn or previous.attempt < newest.attempt:
        raise SessionConflict(
            "This is not the newest response of its conversation, and conversations have no "
            "branches: continue the newest one, or send the history as input.",
            field="previous_response_id",
        )
