"""Journal of a turn with effects: the turn's own record, written before it is done.

The first write adds the turn to its session, under its lease; each later one replaces it. So what
was done is part of the session from the moment at which it may have happened.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from seawall.agents import Route
from seawall.agents.calls import Answer, Step
from seawall.agents.effects import DecidedMeanwhile
from seawall.agents.window import (
    Window,
    notes_of_tools,
    stored_notes,
    stored_window,
    without_images,
)
from seawall.errors import (
    CommitUnknown,
    DeadlineExceeded,
    Problem,
    SessionConflict,
    StoreUnavailable,
)
from seawall.intents import Detection
from seawall.pipeline.context import Ports, Stage, StageTimings, TurnContext
from seawall.pipeline.leases import TurnLease, taken_over
from seawall.pipeline.replay import call_limit, reported_outcomes
from seawall.storage.port import (
    AuditRecord,
    BackgroundJob,
    JournalWrite,
    Notification,
    Session,
    SessionStore,
    Wait,
)
from seawall.tools.policy import without_redacted
from seawall.tools.port import truncate
from seawall.turn import (
    AnswerOptions,
    AssistantMessage,
    Cost,
    Decision,
    Effect,
    Journal,
    Message,
    Question,
    Resumption,
    SessionKey,
    ToolMessage,
    TurnRecord,
)

__all__ = [
    "JournalOrigin",
    "TurnJournal",
    "decision_record",
    "effect_record",
    "resumption",
    "store_journal",
    "wait_of",
]

_MAX_OUTCOME_BYTES = 4_096
_MAX_NOTE_BYTES = 8_192
_PAUSE_SECONDS = 0.1
_MAX_WAITS = 1_000
_UNKNOWN_SECONDS = 400 * 86_400.0
_FINAL = ("done", "failed", "rejected", "unknown")


class JournalOrigin(Struct, frozen=True, kw_only=True):
    """The part of a turn that is known before its first step.

    Attributes:
        turn: Its id: that of the request which began it.
        key: Its session.
        session: As loaded; None if this turn opens it.
        route: The agent that was selected first.
        detection: The intent.
        fingerprint: Digest of the request, if it has an idempotency key.
        roles: Of the caller.
        stored: The turn as an earlier attempt has left it; None for the first.
        job: Of a background turn.
    """

    turn: str
    key: SessionKey
    session: Session | None
    route: Route
    detection: Detection
    fingerprint: str | None
    roles: tuple[str, ...] = ()
    stored: TurnRecord | None = None
    job: BackgroundJob | None = None


class TurnJournal:
    """The journal of one attempt at a turn; implements `StepJournal`.

    Attributes:
        window: Of the session, stored with the turn when it is over.
        options: As `Journal.options`.
    """

    def __init__(
        self,
        ports: Ports,
        context: TurnContext,
        lease: TurnLease,
        origin: JournalOrigin,
        state: Mapping[str, str],
    ) -> None:
        """Begin a journal, or continue that of an earlier attempt.

        Args:
            ports: The pipeline's.
            context: Of the turn.
            lease: The attempt's.
            origin: What is known already.
            state: Notes of the session, as the tools change them.
        """
        self._ports = ports
        self._context = context
        self._lease = lease
        self._origin = origin
        self._state = state
        session = origin.session
        self.window = stored_window(session.state) if session is not None else Window()
        self.options: AnswerOptions | None = None
        self._record = stored = origin.stored
        self._lost = False
        self._effects: dict[str, Effect] = {}
        self._resumptions: tuple[Resumption, ...] = ()
        self._attempt = lease.attempt
        if stored is not None and stored.journal is not UNSET:
            journal = stored.journal
            self._attempt = max(journal.attempt + 1, lease.attempt)
            self._effects = {each.id: each for each in journal.effects}
            self._resumptions = (*journal.resumptions, resumption(stored, self._attempt))
        self._audited = {(each.id, each.status) for each in self._effects.values()}
        self._listed: set[str] = set()  # waits that are in the store

    @property
    def turn(self) -> str:
        """Id of the turn."""
        return self._origin.turn

    @property
    def begun(self) -> bool:
        """See `StepJournal`."""
        return self._record is not None

    @property
    def effects_before(self) -> int:
        """See `StepJournal`."""
        return len(self._effects)

    @property
    def attempt(self) -> int:
        """Number of this attempt."""
        return self._attempt

    @property
    def record(self) -> TurnRecord | None:
        """The turn as it was written last; None if it was not."""
        return self._record

    @property
    def writable(self) -> bool:
        """Whether the turn was journaled, and what was written last is known."""
        return self._record is not None and not self._lost

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All effects of the turn so far."""
        return tuple(self._effects.values())

    async def save(self, step: Step, answer: Answer, *, pausing: bool = False) -> None:
        """See `StepJournal`.

        Raises:
            DecidedMeanwhile: It was to pause, and a decision has just been taken.
            Problem: It is not written, or it is not known whether it is.
        """
        for each in step.effects:
            self._effects[each.id] = each
        outcomes = tuple(
            [
                outcome.message(call.id, call.name)
                for call in step.calls
                if (outcome := step.outcomes.get(call.id)) is not None
            ]
        )
        await self._write(answer, "paused" if pausing else "open", outcomes)

    async def complete(self, answer: Answer) -> TurnRecord:
        """Commit the turn with its answer.

        Raises:
            Problem: It is not written, or it is not known whether it is.
        """
        return await self._write(answer, "completed", ())

    async def interrupt(
        self, answer: Answer, problem: Problem, *, keep_lease: bool = False
    ) -> None:
        """Commit the turn without an answer, so that the session has what was done.

        Args:
            answer: The result so far.
            problem: Why.
            keep_lease: Whether another turn of the session follows at once.

        Raises:
            Problem: It is not written.
        """
        record = self._record
        assert record is not None  # noqa: S101 - it has been journaled
        assert record.journal is not UNSET  # noqa: S101 - as above
        outcomes, messages = record.journal.outcomes, answer.messages
        if messages and isinstance(messages[-1], AssistantMessage) and not messages[-1].tool_calls:
            messages = messages[:-1]  # an answer that could not be stored
        if messages and isinstance(messages[-1], ToolMessage):  # the step is done
            calls = next(i for i in range(len(messages), 0, -1) if not _is_result(messages[i - 1]))
            outcomes = tuple(each for each in messages[calls:] if isinstance(each, ToolMessage))
            messages = messages[:calls]
        answer = msgspec.structs.replace(
            answer, messages=messages, agent=record.agent, steps=record.journal.steps
        )
        await self._write(
            answer,
            "interrupted",
            outcomes,
            problem,
            keep_lease=keep_lease,
            given_up=await self._undecided(),
        )

    async def keep_lease(self) -> None:
        """See `StepJournal`.

        Without a call of the store, unless the lease is over by the clock: then the process was
        stopped, or no renewal has succeeded, and another attempt may have continued the turn.
        """
        if time.time() < self._lease.until:
            return
        try:
            async with call_limit(self._ports.limits.session):
                kept = await self._lease.renew_once()
        except BaseException:
            self._lost = True
            raise
        if not kept:
            self._lost = True
            raise taken_over()

    async def decisions(self, waiting: Sequence[Effect]) -> Mapping[str, Decision]:
        """See `StepJournal`."""
        stored = await self._waits()
        self._listed |= stored.keys()
        found: dict[str, Decision] = {}
        for effect in waiting:
            wait = stored.get(effect.wait)
            if wait is None:
                continue
            if wait.decision is not None:
                found[effect.id] = wait.decision
            elif time.time() >= wait.expires_at:
                expired = Decision("expire", "", time.time())
                audit = decision_record(wait, expired)
                async with call_limit(self._ports.limits.session):
                    if await self._ports.store.decide(wait, expired, audit):
                        found[effect.id] = expired
        return found

    async def _undecided(self) -> tuple[str, ...]:
        """What still waits in this turn, as far as it can be read; an attempt may ask again."""
        if all(each.status != "waiting" for each in self.effects):
            return ()
        try:
            stored = await self._waits()
        except Problem:
            return ()
        self._listed |= stored.keys()
        waiting = {each.wait for each in self.effects if each.status == "waiting"}
        return tuple(
            each.id for each in stored.values() if each.id in waiting and each.decision is None
        )

    async def _write(
        self,
        answer: Answer,
        status: str,
        outcomes: tuple[ToolMessage, ...],
        problem: Problem | None = None,
        *,
        keep_lease: bool = False,
        given_up: tuple[str, ...] = (),
    ) -> TurnRecord:
        write = self._next(answer, status, outcomes, problem)
        if given_up:
            write = msgspec.structs.replace(write, ended=(*write.ended, *given_up))
        if keep_lease and self._lease.seconds:
            until = time.time() + self._lease.seconds
            write = msgspec.structs.replace(write, until=until)
        if self._record is None:
            self._lease.binds = True
        if write.until is None:
            self._lease.stop_renewing()
        try:
            await self._store(write, status)
        except SessionConflict:
            self._lost = True
            if write.undecided and await self._is_decided(write.undecided):
                self._lost = False
                self._lease.renew()
                raise DecidedMeanwhile from None
            raise
        except BaseException:
            self._lost = True
            raise
        self._written(write)
        if write.until is not None:
            self._lease.taken(write.until)
        elif status != "interrupted":  # then the lease's end says what becomes of the job
            self._lease.ended()
        return write.turn

    def _written(self, write: JournalWrite) -> None:
        """Take note of what has been written."""
        self._record = write.turn
        for each in write.audit:
            verdict = each.decision.verdict if each.decision else "none"
            self._context.report.effects.append((each.tool, each.status, verdict))
            self._audited.add((each.effect, each.status))
        if write.waits:
            self._listed |= {each.id for each in write.waits}
        if write.ended:
            self._listed -= {*write.ended}
        if write.notifications and self._ports.notifications is not None:
            self._ports.notifications.offer(write.notifications)

    async def _is_decided(self, undecided: tuple[str, ...]) -> bool:
        try:
            waits = await self._waits()
        except Problem:
            return False
        return any(waits[each].decision is not None for each in undecided if each in waits)

    async def _waits(self) -> dict[str, Wait]:
        """What waits in this turn, by id.

        Raises:
            Problem: The store did not answer.
        """
        tenant = self._origin.key.tenant
        async with call_limit(self._ports.limits.session):
            page = await self._ports.store.waits(tenant, turn=self._origin.turn, limit=_MAX_WAITS)
        return {each.id: each for each in page.waits}

    async def _store(self, write: JournalWrite, status: str) -> None:
        """Write it. What comes after an effect may take longer than the turn."""
        latest = asyncio.get_running_loop().time() + self._ports.limits.commit
        if self._record is None:
            latest = min(latest, self._context.deadline)
        stage = "commit" if status in ("completed", "interrupted") else "journal"
        await store_journal(self._ports.store, write, stage, latest, self._context.timings)

    def _next(
        self,
        answer: Answer,
        status: str,
        outcomes: tuple[ToolMessage, ...],
        problem: Problem | None,
    ) -> JournalWrite:
        """The write of the turn as it is now."""
        origin, now = self._origin, time.time()
        record = self._turn(answer, status, outcomes, problem)
        ends = status != "open"
        waiting: list[Effect] = []
        new: list[Effect] = []
        unknown = False
        for each in self._effects.values():
            if each.status == "waiting":
                waiting.append(each)
            elif each.status in _FINAL:
                unknown = unknown or each.status == "unknown"
                if (each.id, each.status) not in self._audited:
                    new.append(each)
        listed = [each for each in new if each.status == "unknown"] if unknown else []
        pauses = status == "paused"
        if pauses:
            listed += [each for each in waiting if each.wait not in self._listed]
        expiries = [each.request.expires_at for each in waiting if each.request is not None]
        job = origin.job
        kept = self._ports.sessions.ttl_seconds
        if ends and not unknown:
            kept = self._context.request.kept_seconds(kept)
        return JournalWrite(
            key=origin.key,
            turn=record,
            lease_owner=self._lease.begin.turn,
            until=None if ends else now + self._lease.journal_seconds,
            agent=answer.agent,
            state=stored_notes(self._state, self.window)
            if status in ("completed", "interrupted")
            else None,
            expires_at=max(now + kept, *expiries) if expiries else now + kept,
            idempotency_key=self._context.request.idempotency_key,
            fingerprint=origin.fingerprint,
            opened_at=origin.session.created_at if origin.session else None,
            attempt=job.attempt if job is not None else 0,
            ends_job=job is not None and status in ("completed", "paused"),
            sleeps=self._sleeping_job(now, max(expiries)) if pauses else None,
            sleeps_until=min(expiries) if pauses else 0.0,
            waits=tuple([wait_of(each, origin.key, record) for each in listed]),
            undecided=tuple([each.wait for each in waiting if each.wait in self._listed])
            if pauses
            else (),
            ended=self._ended_waits(new, status),
            audit=tuple([effect_record(each, origin.key, record) for each in new]),
            notifications=self._notifications((*new, *listed), record),
        )

    def _ended_waits(self, new: Sequence[Effect], status: str) -> tuple[str, ...]:
        """Waits that are over; that of a hand-over when its turn is, so that it can be repeated.

        That of a question is over when its answer is with the effect: what has the values is
        deleted.
        """
        if self._origin.stored is None and all(
            each.request is None for each in self._effects.values()
        ):
            return ()  # none has ever waited
        ended = [
            each
            for each in new
            if each.status != "unknown"
            and (each.request is not None or self._origin.stored)
            and not _is_handover(each)
        ]
        if status in ("completed", "interrupted"):
            ended += [e for e in self.effects if e.status in _FINAL and _is_handover(e)]
        answered = (
            f"{effect.id}.{each.question.number}"
            for effect in self.effects
            for each in effect.requests
            if each.question is not None and each.decision is not None
        )
        return (
            *(each.id for each in ended),
            *(each for each in answered if each in self._listed),
        )

    def _notifications(
        self, changed: Sequence[Effect], record: TurnRecord
    ) -> tuple[Notification, ...]:
        """Of hand-overs that begin or have ended with this write."""
        if self._ports.notifications is None:
            return ()
        handed_over = [each for each in changed if _is_handover(each)]
        if not handed_over:
            return ()
        from seawall.pipeline.notifications import handover_notification  # noqa: PLC0415 - seldom

        key = self._origin.key
        return tuple(handover_notification(each, key, record) for each in handed_over)

    def _turn(
        self,
        answer: Answer,
        status: str,
        outcomes: tuple[ToolMessage, ...],
        problem: Problem | None,
    ) -> TurnRecord:
        origin, stored = self._origin, self._record
        revision = 1
        if stored is not None and stored.journal is not UNSET:
            revision = stored.journal.revision + 1
        number = (origin.session.version if origin.session is not None else 0) + 1
        done = status == "completed"
        # A retry has stored the files of its message under other ids.
        message = stored.messages[0] if stored is not None else self._context.request.message
        return TurnRecord(
            id=origin.turn,
            number=stored.number if stored is not None else number,
            created_at=stored.created_at if stored is not None else time.time(),
            agent=answer.agent,
            intent=origin.detection.intent,
            messages=(message, *without_images(answer.messages)),
            usage=answer.usage + origin.detection.usage,
            confidence=origin.detection.confidence,
            by=origin.detection.by,
            first_agent=origin.route.agent,
            reason=origin.route.reason,
            cost=_cost(origin.stored, self._context.spending.reported_cost()),
            attempt=stored.attempt if stored is not None else self._attempt,
            finish_reason=answer.finish_reason,
            journal=Journal(
                status=status,
                revision=revision,
                writer=self._lease.begin.turn,
                attempt=self._attempt,
                effects=self.effects,
                outcomes=() if done else without_images(outcomes),
                steps=answer.steps,
                resumptions=self._resumptions,
                state={} if done else notes_of_tools(self._state),
                roles=() if done else origin.roles,
                problem=problem.as_dict() if problem is not None else {},
                options=None if done else self.options,
            ),
        )

    def _sleeping_job(self, now: float, expires_at: float) -> BackgroundJob:
        """The job that continues the turn after its pause."""
        origin = self._origin
        return BackgroundJob(
            key=origin.key,
            request=msgspec.structs.replace(
                self._context.request,
                id=origin.turn,
                session=origin.key.session,
                opens=False,
                deadline=None,
                background=True,
            ),
            accepted_at=now,
            ends_at=expires_at + self._ports.sessions.background_seconds,
            attempt=self._attempt,
            handovers=self._attempt,
            roles=origin.roles,
        )


async def store_journal(
    store: SessionStore, write: JournalWrite, stage: str, latest: float, timings: StageTimings
) -> None:
    """Write a journal; repeat it while the store does not say whether it is applied.

    Args:
        store: The session store.
        write: What is written; it is idempotent.
        stage: The name of the stage.
        latest: When it must have succeeded, on the event loop's clock.
        timings: Of the turn.

    Raises:
        CommitUnknown: It may be applied or not.
        Problem: It is not applied.
    """
    clock = asyncio.get_running_loop().time
    while True:
        try:
            async with Stage(stage, latest - clock(), latest, timings):
                return await store.journal(write)
        except (CommitUnknown, StoreUnavailable, DeadlineExceeded) as failure:
            if clock() + _PAUSE_SECONDS >= latest:
                if isinstance(failure, StoreUnavailable):
                    raise
                raise CommitUnknown(
                    "The session store did not report in time whether the turn is stored. "
                    "Send the same request again with its Idempotency-Key; without one, check "
                    f"whether the session {write.key.session} has the turn {write.turn.id}.",
                    field="session",
                    retry_after=1.0,
                ) from failure
        await asyncio.sleep(_PAUSE_SECONDS)


def resumption(stored: TurnRecord, attempt: int) -> Resumption:
    """Where an attempt continues a turn: after the results that are stored in order.

    Args:
        stored: The turn as it was left.
        attempt: Number of the attempt.
    """
    assert stored.journal is not UNSET  # noqa: S101 - it was left
    reported = len(stored.messages) + len(reported_outcomes(stored))
    if stored.status != "paused":
        return Resumption(attempt, reported, usage=stored.usage)
    waiting = [each for each in stored.journal.effects if each.status == "waiting"]
    asked = [each.request.question if each.request is not None else None for each in waiting]
    numbers = tuple(each.number if each is not None else 0 for each in asked)
    waited = tuple(each.call for each in waiting)
    return Resumption(
        attempt, reported, waited, numbers if any(numbers) else (), usage=stored.usage
    )


def wait_of(effect: Effect, key: SessionKey, turn: TurnRecord) -> Wait:
    """The entry of an effect in the list of what waits.

    Args:
        effect: Waiting, or of unknown outcome.
        key: The session.
        turn: The turn.
    """
    now = time.time()
    request = effect.request if effect.status == "waiting" else None
    return Wait(
        id=effect.wait if request is not None else effect.id,
        key=key,
        turn=turn.id,
        number=turn.number,
        call=effect.call,
        kind=request.kind if request is not None else "unknown",
        tool=effect.tool,
        agent=effect.agent,
        arguments=effect.shown or effect.arguments,
        role=request.role if request is not None else None,
        own=request.own if request is not None else False,
        created_at=now,
        expires_at=request.expires_at if request is not None else now + _UNKNOWN_SECONDS,
        question=request.question if request is not None else None,
    )


def effect_record(effect: Effect, key: SessionKey, turn: TurnRecord) -> AuditRecord:
    """The audit record of an effect that has ended.

    Args:
        effect: The effect.
        key: The session.
        turn: The turn, with the outcome.
    """
    outcome = ""
    for each in (*turn.messages, *(turn.journal.outcomes if turn.journal is not UNSET else ())):
        if isinstance(each, ToolMessage) and each.call_id == effect.call:
            outcome = each.content
    return AuditRecord(
        key=key,
        turn=turn.id,
        kind="effect",
        effect=effect.id,
        call=effect.call,
        tool=effect.tool,
        agent=effect.agent,
        arguments=effect.shown or effect.arguments,
        status=effect.status,
        outcome=truncate(
            without_redacted(outcome, effect.arguments, effect.shown), _MAX_OUTCOME_BYTES
        ),
        idempotency_key=effect.key,
        began_at=effect.began_at,
        at=effect.ended_at,
        decision=_shown_decision(effect),
    )


def _shown_decision(effect: Effect) -> Decision | None:
    """The decision about an effect as it is recorded, with arguments redacted.

    That of an approval, if there was one; answers to questions have records of their own.
    """
    requests = [each for each in effect.requests if each.question is None] or effect.requests
    decision = requests[-1].decision if requests else None
    if decision is None:
        return None
    if decision.arguments and effect.shown:
        decision = msgspec.structs.replace(decision, arguments=effect.shown)
    return _bounded(decision)


def _bounded(decision: Decision) -> Decision:
    """A decision with as much of its texts as a record has; the turn has the whole result."""
    return msgspec.structs.replace(
        decision,
        options=None,
        note=truncate(decision.note, _MAX_NOTE_BYTES),
        result=truncate(decision.result, _MAX_OUTCOME_BYTES),
    )


def decision_record(wait: Wait, decision: Decision) -> AuditRecord:
    """The audit record of a decision about a wait; of an answer, without redacted values."""
    question = wait.question
    if question is not None:
        decision = without_redacted_values(question, decision)
    return AuditRecord(
        key=wait.key,
        turn=wait.turn,
        kind="decision",
        effect=wait.id if question is None else wait.id.rpartition(".")[0],
        call=wait.call,
        tool=wait.tool,
        agent=wait.agent,
        arguments=wait.arguments,
        status=decision.verdict,
        at=decision.at,
        decision=_bounded(decision),
        question=question.message if question is not None else "",
    )


def without_redacted_values(question: Question, decision: Decision) -> Decision:
    """An answer as it is recorded.

    Args:
        question: Names the fields whose values are not shown.
        decision: With the values of the form.
    """
    if not decision.arguments or not question.redact:
        return decision
    values = msgspec.json.decode(decision.arguments)
    hidden = values.keys() if "*" in question.redact else set(question.redact)
    shown = {name: "[redacted]" if name in hidden else each for name, each in values.items()}
    return msgspec.structs.replace(decision, arguments=msgspec.json.encode(shown).decode())


def _is_handover(effect: Effect) -> bool:
    return effect.request is not None and effect.request.kind == "person"


def _is_result(message: Message) -> bool:
    return isinstance(message, ToolMessage)


def _cost(stored: TurnRecord | None, cost: Cost | None) -> Cost | UnsetType:
    """The cost of all attempts."""
    before = stored.cost if stored is not None else UNSET
    if before is UNSET:
        return cost or UNSET
    if cost is None:
        return before
    estimated = before.estimated or cost.estimated
    return Cost(before.amount + cost.amount, cost.currency, estimated)
