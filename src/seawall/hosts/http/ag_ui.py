"""`/v1/ag-ui`: turns for user interfaces that speak AG-UI.

A thread is a session, a run a turn or its continuation. The id of a run makes a retry return the
first answer. See `ag_ui_stream` for the format.
"""

from collections.abc import Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from seawall.errors import (
    InvalidField,
    Problem,
    ServerStopping,
    TurnIsPaused,
    TurnNotFound,
    TurnPostponed,
)
from seawall.events import Event
from seawall.hosts.http.ag_ui_body import (
    AgUiBody,
    check_run,
    resumed,
    run_options,
    run_results,
    run_text,
)
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
from seawall.turn import AnswerOptions, AssistantMessage, TurnRequest

if TYPE_CHECKING:
    from seawall.hosts.http.client_calls import ReturnedResults
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
    results = run_results(body)
    stream = RunStream(body.thread_id, body.run_id, frozenset(results))
    if body.resume or results:
        options = run_options(body)
        conversation = await open_conversation(orchestrator, exchange, body.thread_id)
        taken = _Results(conversation, results, options)
        if body.resume:
            await _continue(orchestrator, exchange, taken, body, stream)
        else:
            await _return(orchestrator, exchange, taken, stream)
        return
    text, files = run_text(body, settings)
    conversation = await open_conversation(orchestrator, exchange, body.thread_id)
    props = body.forwarded_props
    request = conversation.request(
        text,
        agent=agent,
        key=key or f"ag-ui.{body.thread_id}.{body.run_id}",
        background=bool(props and props.background),
        options=run_options(body),
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
    await _run(orchestrator, exchange, exchange.hosted(request), stream)


class _Results(Struct, frozen=True):
    """Results of calls that the client has run, by their ids; and the options of the run."""

    conversation: Conversation
    results: dict[str, tuple[str, bool, str]]
    options: AnswerOptions | None

    async def record(
        self, orchestrator: "Orchestrator", *, wake: bool = True
    ) -> "ReturnedResults | None":
        """Return them. None if all are of calls that were executed here.

        Args:
            orchestrator: Whose turn it is.
            wake: As of `return_results`.

        Raises:
            TurnNotFound: The newest turn of the conversation has not made such a call.
            Problem: See `return_call_results`.
        """
        from seawall.hosts.http.client_calls import (  # noqa: PLC0415 - only with results
            effect_of_call,
            return_call_results,
        )

        last = self.conversation.last
        if last is None:
            raise TurnNotFound(field="threadId")
        made = {
            call.id
            for each in last.messages
            if isinstance(each, AssistantMessage)
            for call in each.tool_calls
        }
        theirs: dict[str, tuple[str, bool, str]] = {}
        for call, result in self.results.items():
            if call not in made:
                field = f"{result[2].rpartition('.')[0]}.toolCallId"
                raise TurnNotFound("No call of this id was made.", field=field)
            if effect_of_call(last, call):
                theirs[call] = result
        if not theirs:
            return None
        return await return_call_results(
            orchestrator,
            self.conversation.owner,
            last.id,
            theirs,
            options=self.options,
            wake=wake,
            named="threadId",
        )


async def _run(
    orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest, stream: RunStream
) -> None:
    async def emit(*events: Event) -> None:
        frames = b"".join(map(stream.take, events))
        if not exchange.started and frames:
            await exchange.start(200, EVENT_STREAM)
        if frames:
            await exchange.write(frames)

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
    taken: _Results,
    body: AgUiBody,
    stream: RunStream,
) -> None:
    """Take the answers to interrupts, and results beside them; stream what the turn does then."""
    entries, conversation = body.resume or [], taken.conversation

    async def forward() -> None:
        answers = [resumed(each, f"resume[{index}]") for index, each in enumerate(entries)]
        decisions = [each for each in answers if each is not None]
        turn = entries[0].interrupt_id.partition("/")[0]
        call = entries[0].interrupt_id.rpartition("/")[2]
        after = continuation(conversation, turn, call, "resume[0].interruptId")
        if taken.results:
            await taken.record(orchestrator, wake=not decisions)
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

    await _answer(exchange, stream, forward())


async def _answer(exchange: Exchange, stream: RunStream, work: Awaitable[None]) -> None:
    """End the run with what the work has streamed; what is wrong with its answers is an event."""
    try:
        await while_connected(exchange, work)
    except Problem as problem:
        expected = isinstance(problem, InvalidField) or problem.status in (403, 404, 409)
        if not (exchange.started or expected):
            raise
        broken = isinstance(problem, ServerStopping | TurnPostponed)
        await _fail(exchange, stream, None if broken else problem)
        return
    await exchange.end(stream.end())


async def _return(
    orchestrator: "Orchestrator", exchange: Exchange, taken: _Results, stream: RunStream
) -> None:
    """Take the results of calls that the client has run, and stream what the turn does then."""
    from seawall.hosts.http.client_calls import events_after_results  # noqa: PLC0415 - seldom

    async def forward() -> None:
        returned = await taken.record(orchestrator)
        if returned is None:
            raise InvalidField("The last message must be the user's.", field="messages")
        begun = stream.begin(returned.turn)
        await exchange.start(200, EVENT_STREAM)
        await exchange.write(begun)
        events = events_after_results(orchestrator, taken.conversation.owner, returned)
        async with aclosing(events):
            async for event in events:
                if frames := stream.take(event):
                    await exchange.write(frames)

    await _answer(exchange, stream, forward())


async def _fail(exchange: Exchange, stream: RunStream, problem: Problem | None) -> None:
    """End with an error; without one the stream breaks off."""
    begun = stream.begin()
    if not exchange.started:
        await exchange.start(200, EVENT_STREAM)
    await exchange.end(b"" if problem is None else begun + stream.fail(problem))
