"""Turns that were left: continued from their journal, or settled when a later turn has come.

A turn is left when its process is gone, when it was interrupted, or when it has paused.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
from msgspec import UNSET

from seawall.agents import Route
from seawall.agents.calls import AgentTurn, Answer, Step
from seawall.agents.effects import settle_step
from seawall.agents.interludes import Interludes, interludes
from seawall.agents.window import estimate_tokens, stored_notes
from seawall.errors import InternalError, Problem, ServerStopping, TurnInterrupted
from seawall.events import Event, TurnResumed
from seawall.intents import Detection
from seawall.pipeline.context import Ports, TurnContext
from seawall.pipeline.journal import JournalOrigin, TurnJournal
from seawall.pipeline.leases import TurnLease, describe_effects, is_retried_later
from seawall.pipeline.opening import Opened
from seawall.pipeline.replay import (
    advance,
    attempt_offset,
    call_limit,
    paused,
    replay,
    reported_outcomes,
)
from seawall.requests import fingerprint
from seawall.tools.port import ToolOutcome
from seawall.turn import AnswerOptions, AssistantMessage, SessionKey, TurnRecord, UserMessage

__all__ = [
    "continued_events",
    "continued_options",
    "emit_pause",
    "interrupt",
    "left_answer",
    "open_journal",
    "pending_step",
    "said_meanwhile",
    "settle_left_turn",
]

_log = logging.getLogger("seawall.turns")

_MAX_WAITS = 1_000


def left_answer(left: TurnRecord) -> tuple[Route, Detection, Answer, dict[str, str]]:
    """The beginning of a turn that was left: route, intent, answer so far, and tools' state."""
    assert left.journal is not UNSET  # noqa: S101 - it was left
    return (
        Route(left.first_agent, left.reason),
        Detection(left.intent, left.confidence, left.by),  # type: ignore[arg-type]
        Answer(left.agent, left.messages[1:], left.usage, steps=left.journal.steps),
        dict(left.journal.state),
    )


async def continued_options(
    ports: Ports, key: SessionKey, left: TurnRecord, options: AnswerOptions | None
) -> AnswerOptions | None:
    """The options with which a turn that was left goes on: of the newest request that continued it.

    Args:
        ports: The pipeline's.
        key: The session.
        left: The turn.
        options: Of the request that began it.

    Raises:
        Problem: The store did not answer.
    """
    assert left.journal is not UNSET  # noqa: S101 - it was left
    journal = left.journal
    if journal.options is not None:
        options = journal.options
    if all(
        each.status != "waiting" or each.request is None or each.request.kind != "client"
        for each in journal.effects
    ):
        return options
    async with call_limit(ports.limits.session):
        page = await ports.store.waits(key.tenant, turn=left.id, limit=_MAX_WAITS)
    taken = [each.decision for each in page.waits if each.decision is not None]
    newer = [each for each in taken if each.options is not None]
    return max(newer, key=lambda each: each.at).options if newer else options


def pending_step(left: TurnRecord) -> Step:
    """The step with which a turn that was left continues."""
    assert left.journal is not UNSET  # noqa: S101 - it was left
    journal, message = left.journal, left.messages[-1]
    assert isinstance(message, AssistantMessage)  # noqa: S101 - see `Journal`
    return Step(
        number=journal.steps,
        calls=message.tool_calls,
        outcomes={
            each.call_id: ToolOutcome(each.content, each.failed, sources=each.sources)
            for each in journal.outcomes
        },
        effects=[each for each in journal.effects if each.step == journal.steps],
        reported=len(reported_outcomes(left)),
        resumed=True,
    )


def said_meanwhile(
    left: TurnRecord, turns: Sequence[TurnRecord], *, max_tokens: int
) -> tuple[Interludes, int]:
    """What was said while a person had the conversation of a turn that was left.

    Args:
        left: The turn.
        turns: Of its session, oldest first.
        max_tokens: Estimated tokens at most; what was said last is kept.

    Returns:
        By the index of the result among the messages of the answer, and its estimated tokens.
    """
    kept: list[TurnRecord] = []
    tokens = 0
    for turn in reversed(turns):
        if turn.during is UNSET or turn.number < left.number:
            continue
        size = sum(map(estimate_tokens, turn.messages))
        if tokens + size > max_tokens:
            break
        tokens += size
        kept.append(turn)
    said = interludes(left, kept[::-1])
    return {index - 1: messages for index, messages in said.items()}, tokens


def continued_events(left: TurnRecord, session: str, attempt: int) -> Iterator[Event]:
    """The events of a turn that was left, and `turn.resumed`.

    Args:
        left: The turn.
        session: Its session's id.
        attempt: Number of the attempt that continues.
    """
    position = attempt_offset(left.attempt)
    for event in replay(left, session):
        position = advance(position, event)
        yield event
    yield TurnResumed(left.id, attempt, position)


def open_journal(
    ports: Ports, context: TurnContext, opened: Opened, route: Route, state: dict[str, str]
) -> TurnJournal:
    """The journal of a turn that begins, or continues one that was left."""
    request, left = context.request, opened.lease.continues
    turn, job = left.id if left is not None else request.id, opened.lease.begin.background_job
    if job is not None and job.request.id != turn:  # of another request with the same key
        job = None
    origin = JournalOrigin(
        turn=turn,
        key=opened.key,
        session=opened.snapshot.session,
        route=route,
        detection=opened.detection,
        fingerprint=fingerprint(request) if request.idempotency_key is not None else None,
        roles=_roles(left) if left is not None else opened.principal.roles,
        stored=left,
        job=job,
    )
    return TurnJournal(ports, context, opened.lease, origin, state)


def _roles(left: TurnRecord) -> tuple[str, ...]:
    return left.journal.roles if left.journal is not UNSET else ()


async def emit_pause(context: TurnContext, opened: Opened, journal: TurnJournal) -> None:
    """Report that the turn has paused, and what it waits for."""
    record = journal.record
    assert record is not None  # noqa: S101 - it was written when it paused
    waited = tuple(each.call for each in journal.effects if each.status == "waiting")
    context.report.usage, context.report.outcome = record.usage, "paused"
    await context.emit(*paused(record, opened.key.session, waited))


async def interrupt(
    journal: TurnJournal, lease: TurnLease, answer: Answer, failure: BaseException
) -> BaseException:
    """Commit a journaled turn that ends without an answer; name its effects in the problem.

    A background turn that will be run again stays open. Cancellation does not cut the write off.

    Returns:
        What the turn ends with: the failure, or the problem in place of a defect.
    """
    problem = failure if isinstance(failure, Problem) else _problem_of(failure)
    problem.effects = describe_effects(journal.effects)
    ending = failure
    if isinstance(failure, Exception) and problem is not failure:
        _log.error("turn %s failed", journal.turn, exc_info=failure)
        ending, problem.__cause__ = problem, failure
    if not journal.writable or (journal.record and journal.record.status == "completed"):
        return ending
    if lease.begin.background_job is not None and is_retried_later(failure):
        return ending
    writing = asyncio.create_task(journal.interrupt(answer, problem))
    while not writing.done():
        with suppress(asyncio.CancelledError):  # the failure is raised again in any case
            await asyncio.wait((writing,))
    if not writing.cancelled() and (error := writing.exception()) is not None:
        if not isinstance(error, Problem):
            raise error
        if isinstance(failure, Problem):
            failure.__context__ = error
    return ending


def _problem_of(failure: BaseException) -> Problem:
    if isinstance(failure, asyncio.CancelledError):
        return ServerStopping("The turn was cancelled: by its client, or by a shutdown.")
    return InternalError("Internal error; the details are in the log of the server.")


async def settle_left_turn(ports: Ports, context: TurnContext, opened: Opened) -> Opened:
    """Settle the newest turn of the session if its process is gone, before another one begins.

    Effects that had begun are settled by what their tools declare; the turn is interrupted.

    Args:
        ports: The pipeline's.
        context: Of the turn that begins.
        opened: The result of its opening stages; it has leased the session.

    Returns:
        The same, with the turn as it was settled.

    Raises:
        Problem: It could not be written.
    """
    turns = opened.snapshot.turns
    left = turns[-1] if turns else None
    if (
        left is None or left.status != "open"
    ):  # the newest may be too large to be loaded with others
        async with call_limit(ports.limits.session):
            page = await ports.store.turns(opened.key, limit=1)
        if page.turns[0].status != "open":
            return opened
        left, turns = page.turns[0], (*turns, page.turns[0])
    route, detection, answer, state = left_answer(left)
    user = left.messages[0]
    assert isinstance(user, UserMessage)  # noqa: S101 - every turn begins with one
    left_context = msgspec.structs.replace(
        context,
        request=msgspec.structs.replace(
            context.request, text=user.text, attachments=user.attachments
        ),
    )
    origin = JournalOrigin(
        turn=left.id,
        key=opened.key,
        session=opened.snapshot.session,
        route=route,
        detection=detection,
        fingerprint=None,
        roles=_roles(left),
        stored=left,
    )
    journal = TurnJournal(ports, left_context, opened.lease, origin, state)
    step = pending_step(left)
    agent = ports.agents.get(left.agent)
    if agent is not None:
        turn = AgentTurn(
            turn=left.id,
            session=opened.key.session,
            principal=opened.principal,
            history=(),
            effect_key=left.id,
            deadline=context.deadline,
            state=state,
            journal=_Opened(journal),
            steps=step.number,
        )
        await settle_step(agent, step, turn, answer)
    problem = TurnInterrupted("The server that ran the turn stopped before there was an answer.")
    problem.effects = describe_effects(journal.effects)
    await journal.interrupt(answer, problem, keep_lease=True)
    assert journal.record is not None  # noqa: S101 - it was written
    snapshot = opened.snapshot
    session = snapshot.session
    if session is not None:
        session = msgspec.structs.replace(session, state=stored_notes(state, journal.window))
    turns = (*turns[:-1], journal.record)
    return msgspec.structs.replace(
        opened, snapshot=msgspec.structs.replace(snapshot, session=session, turns=turns)
    )


class _Opened:
    """A journal that is open already; implements `JournalSource`."""

    begun = True

    def __init__(self, journal: TurnJournal) -> None:
        self._journal = journal

    def open(self) -> TurnJournal:
        """See `JournalSource`."""
        return self._journal
