"""The answer of a turn: choose the agent, run it, commit the result."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct

from seawall.agents import Route, choose_agent
from seawall.agents.calls import AgentTurn, Answer, TurnPausing
from seawall.agents.loop import run_agent
from seawall.agents.window import (
    MAX_NOTE_CHARACTERS,
    MAX_NOTES,
    Window,
    WindowBound,
    can_be_stored,
    history_window,
    moved,
    notes_of_tools,
    stored_notes,
    stored_window,
    summary_messages,
    without_images,
)
from seawall.errors import (
    CommitUnknown,
    DeadlineExceeded,
    Problem,
    SessionConflict,
    TurnCancelled,
    TurnLimitReached,
    UnknownAgent,
)
from seawall.events import (
    AgentSelected,
    IntentDetected,
    TurnCompleted,
    TurnStarted,
    UsageReported,
)
from seawall.identity import API_KEY_PREFIX, Authenticator, Bearer, Credential
from seawall.models import ModelRequest
from seawall.pipeline.context import Ports, Stage, TurnContext
from seawall.pipeline.opening import Opened
from seawall.requests import fingerprint
from seawall.spans import current_span
from seawall.storage.port import Commit, SessionStore
from seawall.turn import (
    AnswerOptions,
    Message,
    Principal,
    ToolMessage,
    TurnRecord,
    Usage,
    UserMessage,
)

if TYPE_CHECKING:
    from seawall.agents.interludes import Interludes
    from seawall.pipeline.journal import TurnJournal

__all__ = ["answer_turn"]

_NEWEST_TURNS = 8  # the session may have newer turns already
_FIRST_POLL_SECONDS = 0.05
_MAX_POLL_SECONDS = 1.0


async def answer_turn(ports: Ports, context: TurnContext, opened: Opened) -> None:
    """Choose the agent, run it, and commit the turn; or continue a turn that was left.

    Args:
        ports: The pipeline's.
        context: Of the turn.
        opened: The result of its opening stages.

    Raises:
        CommitUnknown: it may be stored or not.
        Problem: the turn has failed. Nothing of it is stored, unless the problem names effects.
    """
    emit, left = context.emit, opened.lease.continues
    session, detection = opened.snapshot.session, opened.detection
    options = context.request.options
    if left is None:
        route = _route(ports, context, opened)
        answer = Answer(route.agent)
        state = notes_of_tools(session.state) if session else {}
    else:
        from seawall.pipeline.continuation import (  # noqa: PLC0415 - seldom
            continued_options,
            left_answer,
        )

        route, detection, answer, state = left_answer(left)
        options = await continued_options(ports, opened.key, left, options)
        for each in (route.agent, answer.agent):
            if each not in ports.agents:
                raise UnknownAgent(f"The agent {each} of this turn is not configured any more.")
        opened = msgspec.structs.replace(opened, detection=detection)
    _report_route(context, opened, route)
    window = stored_window(session.state) if session else Window()
    source = _JournalSource(ports, context, opened, route, state, window, options)
    if left is None:
        await _open_turn(source)
    else:
        from seawall.pipeline.continuation import continued_events  # noqa: PLC0415 - seldom

        await emit(*continued_events(left, opened.key.session, source.open().attempt))
    turn = _agent_turn(source)
    if context.memory is not None:
        turn = await _with_memory(source, turn)
    try:
        answer = await _run(source, turn, answer)
        await _finish(source, answer)
    except TurnPausing:
        from seawall.pipeline.continuation import emit_pause  # noqa: PLC0415 - seldom

        await emit_pause(context, opened, source.open())
    except BaseException as failure:
        ending = _ending(context, failure)
        if source.begun:
            from seawall.pipeline.continuation import interrupt  # noqa: PLC0415 - seldom

            ending = await interrupt(source.open(), opened.lease, answer, ending)
        if ending is not failure:
            raise ending from ending.__cause__  # `from None` would remove it
        raise


def _route(ports: Ports, context: TurnContext, opened: Opened) -> Route:
    """The agent of a new turn.

    Raises:
        UnknownAgent: There is none of the name that the request has.
        InvalidField: It does not take what the request has.
    """
    session, options = opened.snapshot.session, context.request.options
    route = choose_agent(
        ports.routing,
        ports.agents,
        requested=context.request.agent,
        intent=opened.detection.intent,
        current=session.agent if session else None,
    )
    if options is not None:
        from seawall.agents.options import check_client_options  # noqa: PLC0415 - seldom used

        check_client_options(ports.agents, route.agent, options)
    return route


def _report_route(context: TurnContext, opened: Opened, route: Route) -> None:
    context.report.agent = route.agent
    context.report.intent = opened.detection.intent
    context.report.intent_by = opened.detection.by
    if (span := current_span.get()) is not None:
        span.put("gen_ai.conversation.id", opened.key.session)


def _ending(context: TurnContext, failure: BaseException) -> BaseException:
    """What ended the turn: a problem, where its caller has cancelled it."""
    live = context.live
    if live is None or not live.cancelled:
        return failure
    from seawall.cancellation import is_own_cancellation  # noqa: PLC0415 - only here

    if not is_own_cancellation(failure):
        return failure
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    return TurnCancelled("The turn was cancelled.")


class _JournalSource(Struct):
    """A turn that runs, and its journal, which is made when the first effect needs it.

    `state`: notes of the tools. `window`: of the session, as it is stored with the turn. `options`:
    of the request that began it, or continued it last.
    """

    ports: Ports
    context: TurnContext
    opened: Opened
    route: Route
    state: dict[str, str]
    window: Window
    options: AnswerOptions | None = None
    journal: "TurnJournal | None" = None

    @property
    def begun(self) -> bool:
        """See `JournalSource`."""
        if self.journal is None:
            return self.opened.lease.continues is not None
        return self.journal.record is not None

    def open(self) -> "TurnJournal":
        """See `JournalSource`."""
        if self.journal is None:
            from seawall.pipeline.continuation import open_journal  # noqa: PLC0415 - seldom

            self.journal = open_journal(
                self.ports, self.context, self.opened, self.route, self.state
            )
            self.journal.window = self.window
            if self.options != self.context.request.options:
                self.journal.options = self.options
        return self.journal


async def _open_turn(source: _JournalSource) -> None:
    """Emit the first events, unless the first model call would surely wait beyond the deadline.

    Raises:
        QuotaExhausted: Nothing was done for the turn.
    """
    ports, context, opened, route = source.ports, source.context, source.opened, source.route
    session, detection = opened.snapshot.session, opened.detection
    if ports.check_quota is not None and (ports.answers is None or session is not None):
        agent, message = ports.agents[route.agent], context.request.message
        options = context.request.options
        tokens = agent.limits.call_tokens or agent.limits.completion_tokens
        if options is not None and options.max_tokens is not None:
            tokens = min(tokens, options.max_tokens)
        smallest = ModelRequest(agent.prompt, (message,), tokens)
        ports.check_quota(agent.name, smallest, context.deadline, opened.principal.tenant)
    await context.emit(
        TurnStarted(context.request.id, opened.key.session, session is None),
        IntentDetected(detection.intent, detection.confidence, detection.by),
        AgentSelected(route.agent, route.reason),
    )


def _run(source: _JournalSource, turn: AgentTurn, answer: Answer) -> Coroutine[Any, Any, Answer]:
    ports, context, opened, route = source.ports, source.context, source.opened, source.route
    emit = context.emit
    if source.options is not None:
        from seawall.agents.options import apply_answer_options  # noqa: PLC0415 - seldom used

        agents = apply_answer_options(
            ports.agents, source.options, client_seconds=ports.client_seconds
        )
        return run_agent(agents, route.agent, turn, emit, answer)
    first = opened.snapshot.session is None and opened.lease.continues is None
    if ports.answers is not None and first and not context.request.attachments:
        return ports.answers.answer(route.agent, turn, emit, answer)
    return run_agent(ports.agents, route.agent, turn, emit, answer)


async def _finish(source: _JournalSource, answer: Answer) -> None:
    """Commit the answer and report it."""
    ports, context, opened, state = source.ports, source.context, source.opened, source.state
    _report_answer(context, answer, opened.detection.usage)
    await context.emit(UsageReported(context.report.usage, context.spending.reported_cost()))
    session, compactions = opened.snapshot.session, ports.compactions
    if compactions is not None and session is not None:
        source.window = compactions.adopt(session, source.window)
    _check_state(state)
    if source.begun:
        source.open().window = source.window
        record = await source.open().complete(answer)
    else:
        commit = _commit(
            context,
            opened,
            source.route,
            answer,
            state=stored_notes(state, source.window),
            ttl_seconds=context.request.kept_seconds(ports.sessions.ttl_seconds),
        )
        opened.lease.stop_renewing()
        await _store(ports, context, commit)
        record = commit.turn
    if compactions is not None and session is not None:
        ended = compactions.report(session, source.window)
        if ended is not None:
            context.report.compaction = ended.outcome
            context.spending.include(ended.spent)
    context.report.outcome = "completed"
    context.timings.since_start("total", asyncio.get_running_loop().time())
    await context.emit(
        TurnCompleted(
            turn=record.id,
            session=opened.key.session,
            version=record.number,
            agent=answer.agent,
            replayed=False,
            timings=context.timings.as_dict(),
            cached=answer.cached,
            finish_reason=answer.finish_reason,
        )
    )


async def _store(ports: Ports, context: TurnContext, commit: Commit) -> None:
    """Commit the turn; if the store does not say whether it is stored, read the session.

    Raises:
        CommitUnknown: it is not found in time.
        Problem: it is not stored.
    """
    try:
        async with Stage("commit", ports.limits.commit, context.deadline, context.timings):
            await ports.store.commit(commit)
    except (CommitUnknown, DeadlineExceeded) as failure:
        latest = min(context.deadline, asyncio.get_running_loop().time() + ports.limits.session)
        if not await _is_stored(ports.store, commit, latest):
            raise CommitUnknown(
                "The session store did not report in time whether the turn is stored. Send the "
                "same request again with its Idempotency-Key; without one, check whether the "
                f"session {commit.key.session} has the turn {commit.turn.id}.",
                field="session",
                retry_after=1.0,
            ) from failure


async def _is_stored(store: SessionStore, commit: Commit, latest: float) -> bool:
    """Whether the turn is found in its session until `latest`, on the event loop's clock.

    Raises:
        SessionConflict: another turn has its number.
    """
    clock = asyncio.get_running_loop().time
    turn, pause = commit.turn, _FIRST_POLL_SECONDS
    while True:
        found: tuple[TurnRecord, ...] = ()
        with suppress(Problem, TimeoutError):
            async with asyncio.timeout_at(latest):
                found = (await store.turns(commit.key, limit=_NEWEST_TURNS)).turns
        for each in found:
            if (each.id, each.attempt) == (turn.id, turn.attempt):
                return True
            if each.number == turn.number:
                raise SessionConflict("Another turn of this session was committed first.")
        if clock() + pause >= latest:
            return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, _MAX_POLL_SECONDS)


def _agent_turn(source: _JournalSource) -> AgentTurn:
    ports, context, opened = source.ports, source.context, source.opened
    request, principal, left = context.request, opened.principal, opened.lease.continues
    settings = ports.sessions
    earlier = opened.snapshot.turns
    said: Interludes = {}
    tokens = settings.history_tokens
    if left is not None:
        from seawall.pipeline.continuation import said_meanwhile  # noqa: PLC0415 - seldom

        said, spent = said_meanwhile(left, earlier, max_tokens=tokens)
        tokens -= spent
        earlier = tuple(each for each in earlier if each.number < left.number)
    history = request.history or _window_messages(
        source, earlier, WindowBound(settings.history_turns, max(0, tokens))
    )
    retry = request.idempotency_key or (left.id if left is not None else request.id)
    pending = None
    if left is not None and left.journal is not UNSET:
        from seawall.pipeline.continuation import pending_step  # noqa: PLC0415 - seldom

        pending = pending_step(left)
        if opened.lease.begin.background_job is not None:  # its caller is not here
            principal = msgspec.structs.replace(principal, roles=left.journal.roles)
    asked = left.messages[0] if left is not None else request.message
    messages: tuple[Message, ...] = (*history, asked)
    contents = None
    if any(type(each) is UserMessage and each.attachments for each in messages):
        from seawall.agents.attachments import attached  # noqa: PLC0415 - only where there are

        messages, contents = attached(messages, ports.attachments, principal)
    return AgentTurn(
        turn=left.id if left is not None else request.id,
        session=opened.key.session,
        principal=principal,
        history=messages,
        effect_key=f"{principal.tenant}\0{principal.subject}\0{retry}",
        deadline=context.deadline,
        state=source.state,
        meter=context.spending if context.spending.metered else None,
        journal=source,
        pending=pending,
        steps=pending.number if pending is not None else 0,
        interludes=said,
        approval_seconds=ports.approval_seconds,
        contents=contents,
        caller_token=_caller_token(ports.authenticator, context.credential, principal),
        sink=context.sink,
    )


async def _with_memory(source: _JournalSource, turn: AgentTurn) -> AgentTurn:
    """The turn with what is remembered of its user, if its agent has a memory."""
    context, window, snapshot = source.context, source.window, source.opened.snapshot
    assert context.memory is not None  # noqa: S101 - its caller has checked
    first = snapshot.session is None or context.request.history
    shown = None if first else window.memory
    visible = {each.id for each in snapshot.turns if each.number >= window.start} | {turn.turn}
    remembered = await context.memory.shown(context, source.route.agent, shown, visible)
    if remembered is None:
        return turn
    if remembered.revision != window.memory:
        source.window = msgspec.structs.replace(window, memory=remembered.revision)
    return msgspec.structs.replace(turn, memory=remembered.messages)


def _window_messages(
    source: _JournalSource, earlier: Sequence[TurnRecord], bound: WindowBound
) -> tuple[Message, ...]:
    """What the model sees of the session: the summary, and the turns of the window.

    Args:
        source: Its window becomes that of this turn.
        earlier: The newest turns, oldest first.
        bound: Of the window.
    """
    session, compactions = source.opened.snapshot.session, source.ports.compactions
    if session is None:
        return ()
    if compactions is None or source.opened.lease.continues is not None:
        window = source.window = moved(source.window, earlier, bound)
    else:
        window = source.window = moved(compactions.adopt(session, source.window), earlier, bound)
        compaction = source.ports.agents[source.route.agent].compaction
        if compaction is not None:
            compactions.begin(session, compaction, window, earlier, bound)
    return (*summary_messages(window), *history_window(earlier, window.start))


def _caller_token(
    authenticator: Authenticator, credential: Credential, principal: Principal
) -> str:
    """The identity provider's token that the caller presented; empty for none.

    An API key of this server is not one: with it, a tool could act as the caller here. Beside an
    API key that counts, a token has not been verified: one of another principal is not the
    caller's.
    """
    if not isinstance(credential, Bearer) or credential.secret.startswith(API_KEY_PREFIX):
        return ""
    secret = credential.secret
    if credential.api_key and authenticator.unverified_principal(Bearer(secret)) != principal:
        return ""
    return secret


def _report_answer(context: TurnContext, answer: Answer, routing_usage: Usage) -> None:
    report, timings = context.report, context.timings
    report.agent = answer.agent
    report.usage = answer.usage + routing_usage
    report.cached = answer.cached
    messages = () if answer.cached else answer.messages
    tools = [message for message in messages if isinstance(message, ToolMessage)]
    report.tool_calls = len(tools)
    report.failed_tool_calls = sum(message.failed for message in tools)
    timings.record("model", answer.model_seconds)
    if tools:
        timings.record("tools", answer.tool_seconds)
    if answer.first_text_at is not None:
        timings.since_start("first_text", answer.first_text_at)


def _check_state(state: dict[str, str]) -> None:
    if not can_be_stored(state):
        raise TurnLimitReached(
            "The tools' state is larger than a session allows, or not text: "
            f"{MAX_NOTES} entries of {MAX_NOTE_CHARACTERS} characters."
        )


def _commit(
    context: TurnContext,
    opened: Opened,
    route: Route,
    answer: Answer,
    *,
    state: dict[str, str],
    ttl_seconds: float,
) -> Commit:
    request, session = context.request, opened.snapshot.session
    version = session.version if session else 0
    job = opened.lease.begin.background_job
    attempt = job.attempt if job is not None else 0
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
            messages=(request.message, *without_images(answer.messages)),
            usage=context.report.usage,
            confidence=opened.detection.confidence,
            by=opened.detection.by,
            first_agent=route.agent,
            reason=route.reason,
            cost=context.spending.reported_cost() or UNSET,
            attempt=max(1, attempt),
            finish_reason=answer.finish_reason,
        ),
        agent=answer.agent,
        state=state,
        expires_at=now + ttl_seconds,
        idempotency_key=request.idempotency_key,
        fingerprint=fingerprint(request) if keyed else None,
        opened_at=session.created_at if session else None,
        attempt=attempt,
    )
