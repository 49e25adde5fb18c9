"""The pipeline: one turn from authentication and admission to its commit, over ports only."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from seawall.agents.calls import Emit
from seawall.errors import (
    CommitUnknown,
    InternalError,
    Overloaded,
    Problem,
    SessionBusy,
    SessionConflict,
    StoreUnavailable,
    TurnPostponed,
)
from seawall.events import Event, TurnCompleted
from seawall.identity import Credential, Trusted
from seawall.pipeline.answering import answer_turn
from seawall.pipeline.context import (
    Ports,
    Recorder,
    Stage,
    StageTimings,
    TurnContext,
    describe_outcome,
    log_failed_turn,
    turn_span,
)
from seawall.pipeline.leases import best_effort, record_job_failure
from seawall.pipeline.live import FailedTurn, LiveTurn, LiveTurns
from seawall.pipeline.opening import Opened, Opening
from seawall.pipeline.replay import replay, stored_events
from seawall.requests import current_request, fingerprint
from seawall.spans import Tracer, error_type, record_span, within_span
from seawall.storage.port import BackgroundJob, Lease, Replay, turn_of_lease_owner
from seawall.turn import Principal, TurnReport, TurnRequest

if TYPE_CHECKING:
    from seawall.models import TextSink
    from seawall.pipeline.decisions import Verdict
    from seawall.storage.port import Wait

__all__ = ["Pipeline"]

_log = logging.getLogger("seawall.turns")
_MAX_RELOADS = 3  # when a turn that was to be joined has ended


class Pipeline:
    """Runs turns. A turn's state is in its context; only those in `live` can be found by id.

    Attributes:
        ports: What it runs turns with.
        live: Turns that can be followed.
        recorder: Records turns for the console; None without one.
    """

    def __init__(self, ports: Ports, recorder: Recorder | None = None) -> None:
        self.ports = ports
        self.recorder = recorder
        self.live = LiveTurns()
        self._store_in_doubt = False

    def execute(
        self,
        request: TurnRequest,
        credential: Credential,
        emit: Emit,
        recovered_job: BackgroundJob | None = None,
        *,
        sink: "TextSink | None" = None,
    ) -> Coroutine[Any, Any, TurnReport]:
        """Run one turn and emit its events as they happen, `turn.completed` last.

        Cancelling the caller's task cancels the turn down to the model's socket. A turn that does
        not complete leaves the session as it was.

        Args:
            request: The validated request.
            credential: Proves the identity of the sender.
            emit: Called with each event, or several.
            recovered_job: The background job that this turn continues; it has been claimed.
            sink: Takes text at once, in place of `emit`, where nothing has to be waited for.

        Raises:
            CommitUnknown: it may be stored or not.
            Problem: the turn has failed; nothing of it is stored.
        """
        tracer = self.ports.tracer
        if self.recorder is not None:
            course = self.recorder.begin(request, tracer)
            if course is not None:
                tracer, emit = course, course.recording(emit)
                sink = course.recording_text(sink) if sink is not None else None
        running = self._execute(request, credential, emit, recovered_job, sink)
        return running if tracer is None else _traced(tracer, request, running)

    async def _execute(
        self,
        request: TurnRequest,
        credential: Credential,
        emit: Emit,
        recovered_job: BackgroundJob | None,
        sink: "TextSink | None",
    ) -> TurnReport:
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + self.ports.limits.turn
        if request.deadline is not None:
            deadline = min(deadline, request.deadline)
        timings = StageTimings(started, self.ports.wheel)
        report = TurnReport(request.id, session=request.session)
        spending = self.ports.spending()
        context = TurnContext(
            request,
            credential,
            emit,
            deadline,
            timings,
            report,
            spending,
            recovered_job,
            self.live.get(request.id),
            sink=sink,
        )
        answered = current_request.get()
        try:
            principal = self.ports.authenticator.authenticate_now(credential)
            if principal is None:
                principal = await self._identify(context)
            else:
                timings.record("authenticate", took := loop.time() - started)
                record_span("authenticate", took)
            report.tenant, report.subject = principal.tenant, principal.subject
            if answered is not None:
                answered.tenant = principal.tenant
            await self._admit(context, principal)
            self._store_in_doubt = False
        except Problem as problem:
            self._record_failure(context, problem, loop.time() - started)
            raise
        except Exception as defect:
            report.outcome = InternalError.code
            failure = InternalError("A defect, which the host logs.")
            failure.__cause__ = defect
            log_failed_turn(report, request, failure, loop.time() - started)
            raise
        except BaseException as defect:
            from seawall.cancellation import is_own_cancellation  # noqa: PLC0415 - only here

            if isinstance(defect, GeneratorExit) or is_own_cancellation(defect):
                raise
            report.outcome = InternalError.code
            _log.error("turn %s failed", request.id, exc_info=defect)
            raise InternalError(
                "Internal error; the details are in the log of the server."
            ) from defect
        finally:
            spending.close()
            report.spent, report.currency = spending.by_model, spending.currency
            timings.since_start("total", loop.time())
            report.timings = timings.as_dict()
            self.ports.observe(report)
        return report

    async def _admit(self, context: TurnContext, principal: Principal) -> None:
        """Run the turn once it has a slot; tell its client while it waits for one."""
        loop = asyncio.get_running_loop()
        entered = loop.time()
        async with self.ports.gate.slot(
            principal.tenant,
            background=context.request.background,
            deadline=context.deadline,
            report=context.report_queued,
        ):
            context.timings.record("admission", took := loop.time() - entered)
            record_span("admission", took)
            if self.ports.memory is None:
                await self._answer(context, principal)
            else:
                async with self.ports.memory.reading(context, principal):
                    await self._answer(context, principal)

    def _record_failure(self, context: TurnContext, problem: Problem, seconds: float) -> None:
        context.report.outcome = problem.code
        if isinstance(problem, StoreUnavailable | CommitUnknown):
            self._store_in_doubt = True
        # The gate counts and logs those that it refuses; a stream that has begun has status 200.
        if context.queued or not isinstance(problem, Overloaded):
            log_failed_turn(context.report, context.request, problem, seconds)

    def start(self, request: TurnRequest, credential: Credential) -> LiveTurn:
        """Run a turn that can be followed, and that may outlive the request it came with."""
        return self.live.start(
            request, lambda live: self.execute(request, credential, live.emit, sink=live.take)
        )

    def run_job(self, job: BackgroundJob) -> LiveTurn:
        """Run a background turn that was claimed, perhaps from another process."""
        owner = Principal(job.key.tenant, job.key.subject, job.roles)
        left = job.ends_at - time.time()
        deadline = asyncio.get_running_loop().time() + left
        request = msgspec.structs.replace(job.request, deadline=deadline)

        async def execute(live: LiveTurn) -> None:
            try:
                await self.execute(request, Trusted(owner), live.emit, job, sink=live.take)
            except Overloaded as problem:  # it was not admitted
                await best_effort(self.ports.store.hand_over_job(job))
                raise TurnPostponed(str(problem), retry_after=problem.retry_after) from problem

        live = self.live.start(request, execute, job.attempt)
        live.owner = owner
        return live

    async def decide(
        self, caller: Principal, turn: str, call: str, verdict: "Verdict"
    ) -> tuple["Wait", LiveTurn | None]:
        """Decide about a call of a paused turn, and continue the turn.

        Args:
            caller: Who decides.
            turn: Id of the turn.
            call: Id of the tool call.
            verdict: The decision.

        Returns:
            The call, and the turn if it continues here.

        Raises:
            Problem: The decision is not accepted.
        """
        from seawall.pipeline.decisions import decide_call  # noqa: PLC0415 - seldom

        wait = await decide_call(self.ports, caller, turn, call, verdict)
        return wait, await self.wake(wait)

    async def wake(self, wait: "Wait") -> LiveTurn | None:
        """Continue the turn of a wait that was decided; None if it is not continued here."""
        from seawall.pipeline.decisions import claim_woken  # noqa: PLC0415 - seldom

        try:
            job = await claim_woken(self.ports, wait)
        except Problem as problem:  # a server that scans for such turns continues it
            _log.warning("turn %s was decided and is not continued here: %s", wait.turn, problem)
            return None
        return self.run_job(job) if job is not None else None

    async def events(
        self, owner: Principal, turn: str, *, after: int
    ) -> AsyncGenerator[tuple[int, Event], None]:
        """The events of a turn beyond position `after`, in whichever process it is or was.

        Those of a turn in progress in another process arrive when it is committed.

        Args:
            owner: Whose turn it must be.
            turn: Its id.
            after: The position of the last event that is known; 0 for none.

        Raises:
            TurnNotFound: it is not the owner's, or is not known (any more).
            Problem: the turn failed.
        """

        def follow() -> AsyncGenerator[tuple[int, Event], None] | None:
            live = self.live.find(turn, owner)
            if isinstance(live, FailedTurn) and live.problem.effects:
                return None  # the session has it, with the events before its failure
            return live.follow(after) if live is not None else None

        source = follow() or stored_events(
            self.ports.store,
            owner,
            turn,
            after=after,
            seconds=self.ports.limits.turn,
            call_seconds=self.ports.limits.session,
            follow=follow,
        )
        async with aclosing(source):
            async for position, event in source:
                yield position, event

    async def _identify(self, context: TurnContext) -> Principal:
        """Wait for the identity provider, together with a bounded number of others."""
        limit = self.ports.limits.authenticate
        with self.ports.gate.awaiting_identity():
            async with Stage("authenticate", limit, context.deadline, context.timings):
                return await self.ports.authenticator.authenticate(context.credential)

    async def _open(self, context: TurnContext, principal: Principal) -> Opened:
        request = context.request
        opening = Opening(
            ports=self.ports,
            context=context,
            principal=principal,
            fingerprint=fingerprint(request) if request.idempotency_key is not None else None,
            joinable=lambda turn: turn != request.id and self.live.get(turn) is not None,
            store_in_doubt=self._store_in_doubt,
        )
        with within_span("opening"):
            opened = await opening.run()
        if context.recovered_job is not None:
            await self._check_superseded(context.recovered_job, opened)
        for _ in range(_MAX_RELOADS):
            lease = opened.snapshot.key_lease
            if lease is None or self.live.get(turn_of_lease_owner(lease.owner)) is not None:
                break
            opened = await opening.reload(opened)  # that turn ended during the opening
        context.timings.since_start("opening", asyncio.get_running_loop().time())
        left = opened.lease.continues
        if (live := self.live.get(request.id)) is not None:
            live.owner = opened.principal
            if left is not None:
                live.start_at(left.attempt)
        return opened

    async def _answer(self, context: TurnContext, principal: Principal) -> None:
        opened = await self._open(context, principal)
        async with opened.lease.keep_renewed():
            left = opened.lease.continues
            if left is None and opened.lease.seconds and _may_have_been_left(opened):
                from seawall.pipeline.continuation import (  # noqa: PLC0415 - seldom
                    settle_left_turn,
                )

                opened = await settle_left_turn(self.ports, context, opened)
            if opened.snapshot.replay is not None:
                await _replay(context, opened.snapshot.replay)
            elif opened.snapshot.key_lease is not None:
                await self._join(context, opened.snapshot.key_lease)
            elif opened.lease.with_person is not None:
                from seawall.pipeline.handover import answer_silently  # noqa: PLC0415 - seldom

                await answer_silently(self.ports, context, opened)
            else:
                await answer_turn(self.ports, context, opened)

    async def _check_superseded(self, job: BackgroundJob, opened: Opened) -> None:
        """Fail a recovered background turn if another request with its key was first."""
        if opened.snapshot.replay is None and opened.snapshot.key_lease is None:
            return
        conflict = SessionConflict("Another request with the same key was completed instead.")
        await record_job_failure(self.ports.store, job, conflict)
        raise conflict

    async def _join(self, context: TurnContext, lease: Lease) -> None:
        """Emit the events of another turn under the same key (single flight)."""
        live = self.live.get(turn_of_lease_owner(lease.owner))
        if live is None:
            raise SessionBusy("The turn with this key has just ended.", retry_after=1.0)
        async with aclosing(live.follow()) as events:
            async for _, event in events:
                if isinstance(event, TurnCompleted):
                    event = msgspec.structs.replace(event, replayed=True)  # noqa: PLW2901
                    context.report.outcome, context.report.agent = "replayed", event.agent
                await context.emit(event)


async def _traced(
    tracer: Tracer, request: TurnRequest, running: Coroutine[Any, Any, TurnReport]
) -> TurnReport:
    """Run a turn within its span."""
    with turn_span(tracer, request) as span:
        try:
            report = await running
        except BaseException as failure:
            span.end(error_type(failure))
            raise
        describe_outcome(span, report)
        return report


def _may_have_been_left(opened: Opened) -> bool:
    """Whether the newest turn is open although its session was free, or was too large to load."""
    session, turns = opened.snapshot.session, opened.snapshot.turns
    if session is None:
        return False
    return not turns or turns[-1].number != session.version or turns[-1].status == "open"


async def _replay(context: TurnContext, stored: Replay) -> None:
    """Emit the stored answer; nothing is spent."""
    turn = stored.turn
    context.report.agent, context.report.intent = turn.agent, turn.intent
    context.report.outcome = "replayed" if turn.status == "completed" else turn.status
    *events, last = replay(turn, stored.session)
    await context.emit(*events)
    await context.emit(last)
