"""Turn endpoints: `POST /v1/turns`, and `GET /v1/turns/{id}/events` to resume a stream."""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from seawall.agents.calls import Emit
from seawall.errors import (
    InternalError,
    InvalidField,
    Problem,
    ServerStopping,
    TurnPostponed,
    Unauthenticated,
)
from seawall.events import (
    AgentSelected,
    ApprovalRequested,
    Event,
    IntentDetected,
    TextDelta,
    ToolReturned,
    TurnCompleted,
    TurnFailed,
    TurnPaused,
    TurnResumed,
    TurnStarted,
    UsageReported,
)
from seawall.hosts.http.bodies import TurnBody, decode, idempotency_key, turn_request
from seawall.hosts.http.exchange import (
    Client,
    ClientDisconnected,
    Exchange,
    encode,
    read_credential,
)
from seawall.identity import Credential
from seawall.models import TextSink
from seawall.pipeline.replay import advance, width
from seawall.turn import AnswerOptions, Principal, TurnRequest

if TYPE_CHECKING:
    from seawall.config import ServerSettings
    from seawall.orchestrator import Orchestrator
    from seawall.pipeline.live import LiveTurn

__all__ = [
    "EVENT_STREAM",
    "Pause",
    "Reply",
    "answer_turn",
    "answer_turn_events",
    "check_capacity",
    "claimed_tenant",
    "instructions_header",
    "run_turn",
    "while_connected",
]

EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx would buffer the first token
]

_log = logging.getLogger("seawall.http")
_decoder = msgspec.json.Decoder(TurnBody)
_names: dict[type[Event], bytes] = {
    kind: str(kind.__struct_config__.tag).encode() for kind in Event.__args__
}


class Pause:
    """Whether a turn has paused, and for what; from its events.

    Attributes:
        paused: The event; None if it goes on or is done.
    """

    __slots__ = ("_requested", "paused")

    def __init__(self) -> None:
        self.paused: TurnPaused | None = None
        self._requested: dict[str, ApprovalRequested] = {}

    def take(self, event: Event) -> None:
        """Take an event into account."""
        if type(event) is ApprovalRequested:
            self._requested[event.id] = event
        elif type(event) is TurnPaused:
            self.paused = event
        elif type(event) is TurnResumed:
            self.paused = None

    def waits(self) -> list[ApprovalRequested]:
        """What the turn waits for; empty if it has not paused."""
        return [self._requested[each] for each in self.paused.waits] if self.paused else []

    def kinds(self) -> set[str]:
        """Of what it waits for; as in `ApprovalRequest`."""
        waits = self.paused.waits if self.paused is not None else ()
        return {self._requested[each].kind for each in waits}

    def approvals(self) -> list[dict[str, object]]:
        """What waits for a decision or an answer, and where it is taken."""
        from seawall.hosts.http.effects import requested_approval  # noqa: PLC0415 - seldom

        kinds = ("approval", "input")
        return [requested_approval(each) for each in self.waits() if each.kind in kinds]

    def explanation(self) -> str:
        """What the turn waits for, and where that is decided, for a client that shows only texts.

        Empty if it has not paused.
        """
        if self.paused is None:
            return ""
        waits = ", ".join(
            f"{each['tool']} (decide at {each['decide']})" for each in self.approvals()
        )
        if waits:
            waited = "an answer" if "input" in self.kinds() else "approval"
            return f"This waits for {waited}: {waits}."
        return "A person has this conversation now."

    def client_calls(self) -> list[dict[str, object]]:
        """Calls that the client runs, and where their results are returned."""
        from seawall.hosts.http.effects import requested_result  # noqa: PLC0415 - seldom

        return [requested_result(each) for each in self.waits() if each.kind == "client"]


async def answer_turn(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """`POST /v1/turns`: one turn, as server-sent events or as one JSON object.

    See `run_turn` for what it raises.
    """
    check_capacity(orchestrator, exchange)  # before the body is read and a token verified
    settings = orchestrator.settings.server
    credential = exchange.credential()
    key = idempotency_key(exchange.headers.get(b"idempotency-key"))
    raw = await exchange.body(limit=settings.max_body_bytes, seconds=settings.body_seconds)
    body = decode(_decoder, raw)
    options = _client_options(body, settings)
    request = exchange.hosted(turn_request(body, key=key, settings=settings, options=options))
    if body.attachments:
        from seawall.hosts.http.attachments import with_turn_files  # noqa: PLC0415 - if there are

        request = await with_turn_files(orchestrator, exchange, request, body.attachments)
    accepts = b"text/event-stream" in exchange.headers.get(b"accept", b"")
    stream = accepts if body.stream is None else body.stream
    answer = _respond_stream if stream else _respond_json
    if request.background and not stream:
        answer = _respond_accepted
    exchange.forget_head()
    del raw, body  # nor is this to be kept by thousands of turns that wait for their model
    await answer(orchestrator, exchange, request, credential)


def _client_options(body: TurnBody, settings: "ServerSettings") -> AnswerOptions | None:
    """What the client brings to the turn; None for nothing."""
    if (
        not body.tools
        and not body.instructions
        and body.tool_choice in (None, "auto")
        and body.parallel_tool_calls is not False
    ):
        return None
    from seawall.hosts.http.client_tools import client_options  # noqa: PLC0415 - seldom

    return client_options(
        body.tools,
        body.tool_choice,
        parallel=body.parallel_tool_calls,
        instructions=body.instructions,
        settings=settings,
    )


async def answer_turn_events(orchestrator: "Orchestrator", exchange: Exchange, turn: str) -> None:
    """`GET /v1/turns/{id}/events`: the events after the header `Last-Event-ID`, as they happen.

    Raises:
        TurnNotFound: The turn does not exist, or not for this caller.
        InvalidField: The header is not the id of an event.
    """
    from seawall.hosts.http.sessions import authenticated_owner  # noqa: PLC0415 - seldom asked

    after = _position(exchange.headers.get(b"last-event-id", b"0"))
    owner = await authenticated_owner(orchestrator, exchange)
    await exchange.body(limit=0, seconds=orchestrator.settings.server.body_seconds)
    try:
        await while_connected(exchange, _forward_events(orchestrator, exchange, owner, turn, after))
    except ServerStopping:  # the stream breaks off; another server can resume it
        if not exchange.started:
            raise
        await exchange.end()


def check_capacity(orchestrator: "Orchestrator", exchange: Exchange) -> None:
    """The check of `PreAdmissionCheck` within the application, for servers that do not use it.

    Raises:
        Overloaded: Admission would refuse the turn.
    """
    client = exchange.scope.get("client")
    orchestrator.engine.gate.check(lambda: claimed_tenant(orchestrator, exchange.headers, client))


def claimed_tenant(
    orchestrator: "Orchestrator", headers: Mapping[bytes, bytes], client: Client
) -> str | None:
    """The tenant that the credential of a request claims; not verified.

    Args:
        orchestrator: Whose authenticator reads tokens.
        headers: Names in lower case.
        client: Address of the peer.
    """
    try:
        principal = orchestrator.engine.authenticator.unverified_principal(
            read_credential(headers, client)
        )
    except Unauthenticated:
        return None
    return None if principal is None else principal.tenant


async def run_turn(
    orchestrator: "Orchestrator",
    exchange: Exchange,
    request: TurnRequest,
    credential: Credential,
    emit: Emit,
    *,
    sink: TextSink | None = None,
) -> None:
    """Run a turn; cancel it, down to the model's socket, when the client disconnects.

    It is not cancelled if it runs in the background, or another client waits for it as well.

    Args:
        orchestrator: Runs the turn.
        exchange: Of the client.
        request: The turn.
        credential: Of the client.
        emit: Receives the events.
        sink: See `Exchange.text_sink`.

    Raises:
        Problem: The turn failed; InternalError for a defect, which is logged, and ServerStopping
            at the end of the drain period.
        ClientDisconnected: The client disconnected.
    """
    running: Awaitable[object]
    if request.background or request.idempotency_key is not None:
        running = _emit_live(orchestrator.engine.start(request, credential), emit)
    else:
        running = orchestrator.engine.execute(request, credential, emit, sink=sink)
    try:
        with exchange.shutdown.translate_cancellation():  # not by `while_connected`: a frame less
            await exchange.while_connected(running)
    except (Problem, ClientDisconnected):
        raise
    except Exception as error:
        _log.exception("turn %s failed", request.id)
        raise InternalError("Internal error; the details are in the log of the server.") from error


async def while_connected(exchange: Exchange, work: Awaitable[object]) -> None:
    """Await the work; cancel it when the client disconnects.

    Raises:
        ClientDisconnected: The client disconnected.
        ServerStopping: The shutdown has cancelled the work.
        Exception: Any that the work raises.
    """
    with exchange.shutdown.translate_cancellation():
        await exchange.while_connected(work)


async def _emit_live(live: "LiveTurn", emit: Emit) -> None:
    async with aclosing(live.follow()) as events:
        async for _, event in events:
            await emit(event)


async def _respond_stream(
    orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    """Stream the events; a turn that fails before its first event is answered with a problem."""
    stream = _EventStream(orchestrator, exchange, request)
    sink = exchange.text_sink(stream.frames.text_frame)
    try:
        await run_turn(orchestrator, exchange, request, credential, stream.emit, sink=sink)
    except Problem as problem:
        if not exchange.started:
            raise
        # A background turn is continued by another server: its stream breaks off.
        if not (request.background and isinstance(problem, ServerStopping | TurnPostponed)):
            stream.last += stream.frames.frame(TurnFailed(stream.turn, problem.as_dict()))
    await exchange.end(stream.last)


class _EventStream:
    """The events of one turn as the body of a response; a closure would take more memory.

    Attributes:
        frames: Encodes the events.
        last: To be sent with the end of the body.
        turn: Id of the turn; another, if the turn with its key is replayed or continued.
    """

    __slots__ = ("_early", "_exchange", "_orchestrator", "_request", "frames", "last", "turn")

    def __init__(
        self, orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest
    ) -> None:
        self._orchestrator = orchestrator
        self._exchange = exchange
        self._request = request
        self._early: tuple[Event, ...] = ()  # until it is known what the headers say
        self.frames = _EventFrames()
        self.last = b""
        self.turn = request.id

    async def emit(self, *events: Event) -> None:
        """Send events; see `Emit`."""
        exchange, frames = self._exchange, self.frames
        if type(events[0]) is TurnStarted:
            self.turn = events[0].turn
        if type(events[-1]) in (UsageReported, TurnCompleted) and exchange.started:
            self.last += b"".join(map(frames.frame, events))
            return
        if not exchange.started:
            named = _instruction_headers(self._orchestrator, self._request, events)
            events = self._early + events
            if named is None:
                self._early = events
                return
            await exchange.start(200, [*EVENT_STREAM, *named])
            self._early = ()
        data, self.last = self.last + b"".join(map(frames.frame, events)), b""
        await exchange.write(data)


async def _respond_accepted(
    orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    """Respond with 202 once the background turn is stored and its events are available."""
    live = orchestrator.engine.start(request, credential)
    async with aclosing(live.follow()) as events:
        async for _, event in events:
            if type(event) is TurnStarted:
                location = f"/v1/turns/{event.turn}/events"
                await exchange.answer(
                    {"turn": event.turn, "session": event.session, "events": location},
                    status=202,
                    headers=[(b"location", location.encode())],
                )
                return


async def _respond_json(
    orchestrator: "Orchestrator", exchange: Exchange, request: TurnRequest, credential: Credential
) -> None:
    """Respond with one JSON object once the turn is durable; timings in `Server-Timing`.

    With 202 if it has paused.
    """
    reply = Reply()
    headers: list[tuple[bytes, bytes]] = []

    async def emit(*events: Event) -> None:
        for event in events:
            reply.take(event)
        if not headers:
            headers.extend(_instruction_headers(orchestrator, request, events) or ())

    await run_turn(orchestrator, exchange, request, credential, emit)
    if reply.pause.paused is not None:
        await _respond_paused(exchange, reply.pause, "".join(reply.text), headers)
        return
    answer = reply.answer | {"text": "".join(reply.text), "tool_calls": reply.calls}
    timing = ", ".join(f"{stage};dur={spent:g}" for stage, spent in reply.timings.items())
    await exchange.answer(answer, headers=[(b"server-timing", timing.encode()), *headers])


def _instruction_headers(
    orchestrator: "Orchestrator", request: TurnRequest, events: Sequence[Event]
) -> Sequence[tuple[bytes, bytes]] | None:
    """What became of the client's instructions; empty without any, None while it is not known.

    Args:
        orchestrator: Whose agents decide.
        request: Of the client.
        events: The next of the turn.
    """
    if request.options is None or not request.options.instructions:
        return ()
    for event in events:
        if type(event) is AgentSelected and event.reason != "handoff":
            return [instructions_header(orchestrator, event.agent)]
    return None


def instructions_header(orchestrator: "Orchestrator", agent: str) -> tuple[bytes, bytes]:
    """The header that says what an agent has made of the client's instructions.

    Args:
        orchestrator: Whose agent it is.
        agent: Its name.
    """
    policy = orchestrator.engine.agents[agent].client_instructions
    return (b"seawall-client-instructions", b"appended" if policy == "append" else b"ignored")


class Reply:
    """What the events of a turn add up to.

    Attributes:
        answer: Members of the answer.
        calls: Tool calls.
        pause: Whether the turn has paused.
        text: Pieces of the text.
        timings: Milliseconds by stage.
    """

    __slots__ = ("answer", "calls", "pause", "text", "timings")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.answer: dict[str, object] = {"intent": None, "tool_calls": []}
        self.calls: list[dict[str, object]] = []
        self.timings: dict[str, float] = {}
        self.pause = Pause()

    def take(self, event: Event) -> None:
        """Add an event."""
        if type(event) is TextDelta:
            self.text.append(event.text)
        elif type(event) is IntentDetected:
            self.answer["intent"] = event.intent
        elif type(event) is ToolReturned:
            call: dict[str, object] = {"name": event.name, "failed": event.failed}
            if event.sources:
                call["sources"] = event.sources
            self.calls.append(call)
        elif type(event) is UsageReported:
            self.answer["usage"] = event.usage
            if event.cost is not None:
                self.answer["cost"] = event.cost
        elif type(event) is TurnCompleted:
            self._complete(event)
        else:
            self.pause.take(event)

    def _complete(self, event: TurnCompleted) -> None:
        self.answer.update(
            turn=event.turn,
            session=event.session,
            version=event.version,
            agent=event.agent,
            replayed=event.replayed,
            finish_reason=event.finish_reason or "stop",
        )
        if event.cached:
            self.answer["cached"] = True
        self.timings.update(event.timings)


async def _respond_paused(
    exchange: Exchange, pause: Pause, text: str, headers: list[tuple[bytes, bytes]]
) -> None:
    paused = pause.paused
    assert paused is not None  # noqa: S101 - see its only caller
    location = f"/v1/turns/{paused.turn}/events"
    await exchange.answer(
        {
            "turn": paused.turn,
            "session": paused.session,
            "version": paused.version,
            "status": "paused",
            "text": text,
            "approvals": pause.approvals(),
            "client_calls": pause.client_calls(),
            "events": location,
        },
        status=202,
        headers=[(b"location", location.encode()), *headers],
    )


async def _forward_events(
    orchestrator: "Orchestrator", exchange: Exchange, owner: Principal, turn: str, after: int
) -> None:
    frames = _EventFrames(after)
    last = b""
    try:
        async with aclosing(orchestrator.engine.events(owner, turn, after=after)) as events:
            async for position, event in events:
                if not exchange.started:
                    await exchange.start(200, EVENT_STREAM)
                await exchange.write(frames.frame_at(position, event))
    except TurnPostponed:  # the stream breaks off; it can be resumed later
        if not exchange.started:
            raise
    except Problem as problem:
        if not exchange.started:
            raise
        last = frames.frame(TurnFailed(turn, problem.as_dict()))
    if not exchange.started:  # there are no events after this position
        await exchange.start(200, EVENT_STREAM)
    await exchange.end(last)


def _position(header: bytes) -> int:
    if not (header.isdigit() and len(header) <= 12):
        raise InvalidField("Must be the id of an event of this stream.", field="Last-Event-ID")
    return int(header)


class _EventFrames:
    """Encodes the events of one stream as server-sent events, with their position as id."""

    __slots__ = ("_position",)

    def __init__(self, position: int = 0) -> None:
        self._position = position

    def frame_at(self, position: int, event: Event) -> bytes:
        """The frame of an event whose position is known."""
        self._position = position - width(event)
        return self.frame(event)

    def frame(self, event: Event) -> bytes:
        """The frame of the next event."""
        position = self._position = advance(self._position, event)
        return b"event: %b\nid: %d\ndata: %b\n\n" % (_names[type(event)], position, encode(event))

    def text_frame(self, text: str) -> bytes:
        """The frame of a piece of text that comes next."""
        self._position += len(text)
        return b'event: text.delta\nid: %d\ndata: {"type":"text.delta","text":%b}\n\n' % (
            self._position,
            encode(text),
        )
