"""The pipeline: one turn from admission to the durable end, over ports only."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager

import msgspec
from msgspec import UNSET, Struct

from seawall.admission.gate import Gate
from seawall.agents.definition import Agent
from seawall.agents.loop import AgentTurn, Answer, Emit, run_agent
from seawall.budgets.spending import Spending
from seawall.caches.answers import AnswerCache
from seawall.errors import (
    InternalError,
    Overloaded,
    Problem,
    SessionBusy,
    SessionConflict,
    StoreUnavailable,
    TurnLimitReached,
    TurnPostponed,
)
from seawall.events import (
    AgentSelected,
    Event,
    IntentDetected,
    TurnCompleted,
    TurnStarted,
    UsageReported,
)
from seawall.identity.port import Authenticator, Credential, Trusted
from seawall.intents.cascade import IntentDetector
from seawall.pipeline.holding import attempted, fail_promise
from seawall.pipeline.live import LiveTurn, LiveTurns
from seawall.pipeline.opening import Opened, Opening
from seawall.pipeline.replay import replay
from seawall.pipeline.report import Observe, TurnReport
from seawall.pipeline.routing import Route, Routing, choose_agent
from seawall.pipeline.stages import Stage, StageLimits, StageTimings
from seawall.pipeline.stored import stored_events
from seawall.sessions.port import Commit, Hold, Pending, Replay, SessionStore, turn_of
from seawall.sessions.settings import SessionSettings
from seawall.sessions.window import history_window
from seawall.spans import (
    Span,
    Tracer,
    current_span,
    error_type,
    incoming_trace,
    note_span,
    within_span,
)
from seawall.turn import (
    Message,
    Principal,
    ToolMessage,
    TurnRecord,
    TurnRequest,
    Usage,
    UserMessage,
)

__all__ = ["Pipeline", "Ports"]

_LOOKS = 3  # for what came of a turn that was to be joined
_MAX_NOTES = 32
_MAX_NOTE_CHARACTERS = 1_024


class Ports(Struct, frozen=True, kw_only=True):
    """What the pipeline stands on; composed once at start."""

    authenticator: Authenticator
    store: SessionStore
    detector: IntentDetector
    agents: Mapping[str, Agent]
    routing: Routing
    gate: Gate
    limits: StageLimits
    sessions: SessionSettings
    observe: Observe
    answers: AnswerCache | None = None
    spending: Callable[[], Spending] = Spending
    tracer: Tracer | None = None


class _Running(Struct):
    """One turn while it runs; nobody else's."""

    request: TurnRequest
    credential: Credential
    emit: Emit
    deadline: float
    timings: StageTimings
    report: TurnReport
    spending: Spending
    resumed: Pending | None = None


class Pipeline:
    """Runs turns. Everything of a turn travels with it; only those in `live` can be looked up."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.live = LiveTurns()
        self._store_in_doubt = False

    async def execute(
        self,
        request: TurnRequest,
        credential: Credential,
        emit: Emit,
        resumed: Pending | None = None,
    ) -> TurnReport:
        """Run one turn and emit its events as they happen, `turn.completed` last.

        Cancelling the caller's task cancels the turn down to the model's socket. Whatever ends
        the turn early leaves the session as it was. resumed: the promise that this keeps.

        Raises:
            Problem: the turn has failed; nothing of it is stored.
        """
        if self.ports.tracer is None:
            return await self._execute(request, credential, emit, resumed)
        with _traced(self.ports.tracer, request) as span:
            try:
                report = await self._execute(request, credential, emit, resumed)
            except BaseException as failure:
                span.end(error_type(failure))
                raise
            _describe(span, report)
            return report

    async def _execute(
        self,
        request: TurnRequest,
        credential: Credential,
        emit: Emit,
        resumed: Pending | None,
    ) -> TurnReport:
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + self.ports.limits.turn
        if request.deadline is not None:
            deadline = min(deadline, request.deadline)
        timings = StageTimings(started)
        report = TurnReport(request.id)
        spending = self.ports.spending()
        running = _Running(request, credential, emit, deadline, timings, report, spending, resumed)
        try:
            principal = self.ports.authenticator.known(credential)
            if principal is None:
                principal = await self._identify(running)
            else:
                timings.record("authenticate", took := clock() - started)
                note_span("authenticate", took)
            entered = clock()
            async with self.ports.gate.place(
                principal.tenant, background=request.background, deadline=deadline
            ):
                timings.record("admission", took := clock() - entered)
                note_span("admission", took)
                await self._run(running, principal)
            self._store_in_doubt = False
        except Problem as problem:
            report.outcome = problem.code
            if isinstance(problem, StoreUnavailable):
                self._store_in_doubt = True
            raise
        except Exception:
            report.outcome = InternalError.code
            raise
        finally:
            spending.close()
            report.spent, report.currency = spending.by_model, spending.currency
            timings.since_start("total", clock())
            report.timings = timings.as_dict()
            self.ports.observe(report)
        return report

    def start(self, request: TurnRequest, credential: Credential) -> LiveTurn:
        """Run a turn that can be followed, and that outlives whoever asked for it if need be."""
        return self.live.start(request, lambda live: self.execute(request, credential, live.emit))

    def resume(self, pending: Pending) -> LiveTurn:
        """Run a turn that was promised, perhaps by another process; it has been claimed."""
        owner = Principal(pending.key.tenant, pending.key.subject)
        left = pending.ends_at - time.time()
        deadline = asyncio.get_running_loop().time() + left
        request = msgspec.structs.replace(pending.request, deadline=deadline)

        async def execute(live: LiveTurn) -> None:
            try:
                await self.execute(request, Trusted(owner), live.emit, pending)
            except Overloaded as problem:  # it did not even get in
                await attempted(self.ports.store.hand_over(pending))
                raise TurnPostponed(str(problem), retry_after=problem.retry_after) from problem

        live = self.live.start(request, execute, pending.attempt)
        live.owner = owner
        return live

    async def events(
        self, owner: Principal, turn: str, *, after: int
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """The events of a turn beyond position `after`, wherever it runs or ran.

        Of one that runs in another process they come when it is durable.

        Raises:
            TurnNotFound: it is not the owner's, or nobody knows it (any more).
            Problem: the turn failed.
        """
        live = self.live.find(turn, owner)
        source = (
            live.follow(after)
            if live is not None
            else stored_events(
                self.ports.store,
                owner,
                turn,
                after=after,
                seconds=self.ports.limits.turn,
                look_seconds=self.ports.limits.session,
            )
        )
        async with aclosing(source):
            async for position, event in source:
                yield position, event

    async def _identify(self, running: _Running) -> Principal:
        """Wait for the identity provider, with as many others as may run and wait at most."""
        limit = self.ports.limits.authenticate
        with self.ports.gate.unidentified():
            async with Stage("authenticate", limit, running.deadline, running.timings):
                return await self.ports.authenticator.authenticate(running.credential)

    async def _run(self, running: _Running, principal: Principal) -> None:
        ports, request = self.ports, running.request
        clock = asyncio.get_running_loop().time
        keyed = request.idempotency_key is not None
        opening = Opening(
            request=request,
            principal=principal,
            fingerprint=_fingerprint(request) if keyed else None,
            joinable=lambda turn: self.live.running(turn) is not None,
            store_in_doubt=self._store_in_doubt,
            store=ports.store,
            detector=ports.detector,
            sessions=ports.sessions,
            limits=ports.limits,
            deadline=running.deadline,
            timings=running.timings,
            spending=running.spending,
            resumed=running.resumed,
        )
        with within_span("opening"):
            opened = await opening.run()
        await self._check_superseded(running, opened)
        for _ in range(_LOOKS):
            hold = opened.snapshot.running
            if hold is None or self.live.running(turn_of(hold.turn)) is not None:
                break
            opened = await opening.again(opened)  # it ended while the opening did other things
        running.timings.since_start("opening", clock())
        if (live := self.live.running(request.id)) is not None:
            live.owner = opened.principal
        async with opened.holding.kept():
            if opened.snapshot.replay is not None:
                await _replay(running, opened.snapshot.replay)
            elif opened.snapshot.running is not None:
                await self._join(running, opened.snapshot.running)
            else:
                await self._answer(running, opened)

    async def _check_superseded(self, running: _Running, opened: Opened) -> None:
        """A promised turn has nothing to do where another request with its key was quicker."""
        taken = opened.snapshot.replay or opened.snapshot.running
        if running.resumed is None or taken is None:
            return
        conflict = SessionConflict("Another request with the same key was done in its place.")
        await fail_promise(self.ports.store, running.resumed, conflict)
        raise conflict

    async def _join(self, running: _Running, hold: Hold) -> None:
        """Pass on what another turn under the same key brings about."""
        live = self.live.running(turn_of(hold.turn))
        if live is None:
            raise SessionBusy("The turn with this key has just ended.", retry_after=1.0)
        async with aclosing(live.follow()) as events:
            async for _, event in events:
                if isinstance(event, TurnCompleted):
                    event = msgspec.structs.replace(event, replayed=True)  # noqa: PLW2901
                    running.report.outcome, running.report.agent = "replayed", event.agent
                await running.emit(event)

    async def _answer(self, running: _Running, opened: Opened) -> None:
        ports, request, emit = self.ports, running.request, running.emit
        session, detection = opened.snapshot.session, opened.detection
        route = choose_agent(
            ports.routing,
            ports.agents,
            requested=request.agent,
            intent=detection.intent,
            current=session.agent if session else None,
        )
        running.report.agent = route.agent
        running.report.intent, running.report.intent_by = detection.intent, detection.by
        if (span := current_span.get()) is not None:
            span.put("gen_ai.conversation.id", opened.key.session)
        await emit(
            TurnStarted(request.id, opened.key.session, session is None),
            IntentDetected(detection.intent, detection.confidence, detection.by),
            AgentSelected(route.agent, route.reason),
        )
        notes = dict(session.state) if session else {}
        turn = self._agent_turn(running, opened, notes)
        if ports.answers is not None and session is None:
            answer = await ports.answers.answer(route.agent, turn, emit)
        else:
            answer = await run_agent(ports.agents, route.agent, turn, emit)
        _report_answer(running, answer, detection.usage)
        await emit(UsageReported(running.report.usage, running.spending.told()))
        commit = _commit(
            running, opened, route, answer, notes=notes, ttl_seconds=ports.sessions.ttl_seconds
        )
        async with Stage("commit", ports.limits.commit, running.deadline, running.timings):
            await ports.store.commit(commit)
        running.report.outcome = "completed"
        running.timings.since_start("total", asyncio.get_running_loop().time())
        await emit(
            TurnCompleted(
                turn=request.id,
                session=opened.key.session,
                version=commit.turn.number,
                agent=answer.agent,
                replayed=False,
                timings=running.timings.as_dict(),
                cached=answer.cached,
            )
        )

    def _agent_turn(self, running: _Running, opened: Opened, notes: dict[str, str]) -> AgentTurn:
        request, principal = running.request, opened.principal
        settings = self.ports.sessions
        history: tuple[Message, ...] = request.history or history_window(
            opened.snapshot.turns,
            max_turns=settings.history_turns,
            max_tokens=settings.history_tokens,
        )
        retry = request.idempotency_key or request.id
        return AgentTurn(
            turn=request.id,
            session=opened.key.session,
            principal=principal,
            history=(*history, UserMessage(request.text)),
            effect_key=f"{principal.tenant}\0{principal.subject}\0{retry}",
            deadline=running.deadline,
            state=notes,
            meter=running.spending if running.spending.metered else None,
        )


@contextmanager
def _traced(tracer: Tracer, request: TurnRequest) -> Generator[Span, None, None]:
    """The span of a turn, current while the block runs."""
    span = tracer.begin(incoming_trace.get())
    span.put("seawall.turn", request.id)
    span.put("seawall.background", request.background)
    token = current_span.set(span)
    try:
        yield span
    finally:
        current_span.reset(token)
        span.end()


def _describe(span: Span, report: TurnReport) -> None:
    """What came of a turn, without anything that was said in it."""
    span.put("seawall.outcome", report.outcome)
    span.put("seawall.agent", report.agent)
    span.put("seawall.intent", report.intent or "none")
    span.put("seawall.intent_by", report.intent_by)
    span.put("seawall.cached", report.cached)
    span.put("gen_ai.usage.input_tokens", report.usage.prompt_tokens)
    span.put("gen_ai.usage.output_tokens", report.usage.completion_tokens)
    if "first_text" in report.timings:
        span.put("seawall.first_text", report.timings["first_text"] / 1e3)


def _fingerprint(request: TurnRequest) -> str:
    """Digest of what a request asks for; the same key with another digest is a mistake."""
    session = None if request.opens else request.session
    asked = msgspec.json.encode((request.text, session, request.agent, request.history))
    return hashlib.sha256(asked).hexdigest()


async def _replay(running: _Running, stored: Replay) -> None:
    """Give the stored answer; nothing is spent."""
    turn = stored.turn
    running.report.agent, running.report.intent = turn.agent, turn.intent
    running.report.outcome = "replayed"
    *events, completed = replay(turn, stored.session)
    await running.emit(*events)
    await running.emit(completed)


def _report_answer(running: _Running, answer: Answer, routing_usage: Usage) -> None:
    report, timings = running.report, running.timings
    report.agent = answer.agent
    report.usage = answer.usage + routing_usage
    report.cached = answer.cached
    made = () if answer.cached else answer.messages
    tools = [message for message in made if isinstance(message, ToolMessage)]
    report.tool_calls = len(tools)
    report.failed_tool_calls = sum(message.failed for message in tools)
    timings.record("model", answer.model_seconds)
    if tools:
        timings.record("tools", answer.tool_seconds)
    if answer.first_text_at is not None:
        timings.since_start("first_text", answer.first_text_at)


def _commit(
    running: _Running,
    opened: Opened,
    route: Route,
    answer: Answer,
    *,
    notes: dict[str, str],
    ttl_seconds: float,
) -> Commit:
    request, session = running.request, opened.snapshot.session
    if len(notes) > _MAX_NOTES or any(
        len(name) + len(text) > _MAX_NOTE_CHARACTERS for name, text in notes.items()
    ):
        raise TurnLimitReached(
            f"The tools keep more notes than a session may hold: {_MAX_NOTES} of "
            f"{_MAX_NOTE_CHARACTERS} characters."
        )
    version = session.version if session else 0
    pending = opened.holding.begin.pending
    attempt = pending.attempt if pending is not None else 0
    now = time.time()
    keyed = request.idempotency_key is not None
    return Commit(
        key=opened.key,
        expected_version=version,
        turn=TurnRecord(
            id=request.id,
            number=version + 1,
            created_at=now,
            agent=answer.agent,
            intent=opened.detection.intent,
            messages=(UserMessage(request.text), *answer.messages),
            usage=running.report.usage,
            confidence=opened.detection.confidence,
            by=opened.detection.by,
            first_agent=route.agent,
            reason=route.reason,
            cost=running.spending.told() or UNSET,
            attempt=max(1, attempt),
        ),
        agent=answer.agent,
        state=notes,
        expires_at=now + ttl_seconds,
        idempotency_key=request.idempotency_key,
        fingerprint=_fingerprint(request) if keyed else None,
        opened_at=session.created_at if session else None,
        attempt=attempt,
    )
