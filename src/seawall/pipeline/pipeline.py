"""The pipeline: one turn from admission to the durable end, over ports only."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from seawall.agents.loop import Emit
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
from seawall.events import (
    Event,
    TurnCompleted,
)
from seawall.identity.port import Credential, Trusted
from seawall.pipeline.answering import answer_turn, fingerprint
from seawall.pipeline.context import Ports, TurnContext
from seawall.pipeline.leases import best_effort, record_job_failure
from seawall.pipeline.live import LiveTurn, LiveTurns
from seawall.pipeline.opening import Opened, Opening
from seawall.pipeline.replay import replay
from seawall.pipeline.report import TurnReport, log_failed_turn
from seawall.pipeline.stages import Stage, StageTimings
from seawall.pipeline.stored import stored_events
from seawall.pipeline.tracing import describe_outcome, turn_span
from seawall.requests import current_request
from seawall.spans import (
    error_type,
    record_span,
    within_span,
)
from seawall.storage.port import BackgroundJob, Lease, Replay, turn_of_lease_owner
from seawall.turn import (
    Principal,
    TurnRequest,
)

__all__ = ["Pipeline"]

_log = logging.getLogger("seawall.turns")
_MAX_RELOADS = 3  # for what came of a turn that was to be joined


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
        recovered_job: BackgroundJob | None = None,
    ) -> TurnReport:
        """Run one turn and emit its events as they happen, `turn.completed` last.

        Cancelling the caller's task cancels the turn down to the model's socket. Whatever ends
        the turn early leaves the session as it was. resumed: the promise that this keeps.

        Raises:
            CommitUnknown: it may be stored, or not.
            Problem: the turn has failed; nothing of it is stored.
        """
        if self.ports.tracer is None:
            return await self._execute(request, credential, emit, recovered_job)
        with turn_span(self.ports.tracer, request) as span:
            try:
                report = await self._execute(request, credential, emit, recovered_job)
            except BaseException as failure:
                span.end(error_type(failure))
                raise
            describe_outcome(span, report)
            return report

    async def _execute(
        self,
        request: TurnRequest,
        credential: Credential,
        emit: Emit,
        recovered_job: BackgroundJob | None,
    ) -> TurnReport:
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + self.ports.limits.turn
        if request.deadline is not None:
            deadline = min(deadline, request.deadline)
        timings = StageTimings(started)
        report = TurnReport(request.id)
        spending = self.ports.spending()
        running = TurnContext(
            request, credential, emit, deadline, timings, report, spending, recovered_job
        )
        answered = current_request.get()
        try:
            principal = self.ports.authenticator.authenticate_now(credential)
            if principal is None:
                principal = await self._identify(running)
            else:
                timings.record("authenticate", took := clock() - started)
                record_span("authenticate", took)
            report.tenant = principal.tenant
            if answered is not None:
                answered.tenant = principal.tenant
            entered = clock()
            async with self.ports.gate.slot(
                principal.tenant, background=request.background, deadline=deadline
            ):
                timings.record("admission", took := clock() - entered)
                record_span("admission", took)
                await self._run(running, principal)
            self._store_in_doubt = False
        except Problem as problem:
            self._note_failure(report, request, problem, clock() - started)
            raise
        except Exception as defect:
            report.outcome = InternalError.code
            failure = InternalError("A defect, which the host logs.")
            failure.__cause__ = defect
            log_failed_turn(report, request, failure, clock() - started)
            raise
        except BaseException as defect:
            from seawall.cancellation import is_own_cancellation  # noqa: PLC0415 - only here

            if isinstance(defect, GeneratorExit) or is_own_cancellation(defect):
                raise
            report.outcome = InternalError.code
            _log.error("turn %s failed", request.id, exc_info=defect)
            raise InternalError("Something went wrong here; it is logged.") from defect
        finally:
            spending.close()
            report.spent, report.currency = spending.by_model, spending.currency
            timings.since_start("total", clock())
            report.timings = timings.as_dict()
            self.ports.observe(report)
        return report

    def _note_failure(
        self, report: TurnReport, request: TurnRequest, problem: Problem, seconds: float
    ) -> None:
        report.outcome = problem.code
        if isinstance(problem, StoreUnavailable | CommitUnknown):
            self._store_in_doubt = True
        if not isinstance(problem, Overloaded):  # the gate counts and logs those
            log_failed_turn(report, request, problem, seconds)

    def start(self, request: TurnRequest, credential: Credential) -> LiveTurn:
        """Run a turn that can be followed, and that outlives whoever asked for it if need be."""
        return self.live.start(request, lambda live: self.execute(request, credential, live.emit))

    def run_job(self, background_job: BackgroundJob) -> LiveTurn:
        """Run a turn that was promised, perhaps by another process; it has been claimed."""
        owner = Principal(background_job.key.tenant, background_job.key.subject)
        left = background_job.ends_at - time.time()
        deadline = asyncio.get_running_loop().time() + left
        request = msgspec.structs.replace(background_job.request, deadline=deadline)

        async def execute(live: LiveTurn) -> None:
            try:
                await self.execute(request, Trusted(owner), live.emit, background_job)
            except Overloaded as problem:  # it did not even get in
                await best_effort(self.ports.store.hand_over(background_job))
                raise TurnPostponed(str(problem), retry_after=problem.retry_after) from problem

        live = self.live.start(request, execute, background_job.attempt)
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
                call_seconds=self.ports.limits.session,
            )
        )
        async with aclosing(source):
            async for position, event in source:
                yield position, event

    async def _identify(self, running: TurnContext) -> Principal:
        """Wait for the identity provider, with as many others as may run and wait at most."""
        limit = self.ports.limits.authenticate
        with self.ports.gate.awaiting_identity():
            async with Stage("authenticate", limit, running.deadline, running.timings):
                return await self.ports.authenticator.authenticate(running.credential)

    async def _run(self, running: TurnContext, principal: Principal) -> None:
        ports, request = self.ports, running.request
        clock = asyncio.get_running_loop().time
        keyed = request.idempotency_key is not None
        opening = Opening(
            request=request,
            principal=principal,
            fingerprint=fingerprint(request) if keyed else None,
            joinable=lambda turn: self.live.running(turn) is not None,
            store_in_doubt=self._store_in_doubt,
            store=ports.store,
            detector=ports.detector,
            sessions=ports.sessions,
            limits=ports.limits,
            deadline=running.deadline,
            timings=running.timings,
            spending=running.spending,
            recovered_job=running.recovered_job,
        )
        with within_span("opening"):
            opened = await opening.run()
        await self._check_superseded(running, opened)
        for _ in range(_MAX_RELOADS):
            hold = opened.snapshot.running
            if hold is None or self.live.running(turn_of_lease_owner(hold.turn)) is not None:
                break
            opened = await opening.reload(opened)  # it ended while the opening did other things
        running.timings.since_start("opening", clock())
        if (live := self.live.running(request.id)) is not None:
            live.owner = opened.principal
        async with opened.holding.keep_renewed():
            if opened.snapshot.replay is not None:
                await _replay(running, opened.snapshot.replay)
            elif opened.snapshot.running is not None:
                await self._join(running, opened.snapshot.running)
            else:
                await answer_turn(ports, running, opened)

    async def _check_superseded(self, running: TurnContext, opened: Opened) -> None:
        """A promised turn has nothing to do where another request with its key was quicker."""
        taken = opened.snapshot.replay or opened.snapshot.running
        if running.recovered_job is None or taken is None:
            return
        conflict = SessionConflict("Another request with the same key was done in its place.")
        await record_job_failure(self.ports.store, running.recovered_job, conflict)
        raise conflict

    async def _join(self, running: TurnContext, hold: Lease) -> None:
        """Pass on what another turn under the same key brings about."""
        live = self.live.running(turn_of_lease_owner(hold.turn))
        if live is None:
            raise SessionBusy("The turn with this key has just ended.", retry_after=1.0)
        async with aclosing(live.follow()) as events:
            async for _, event in events:
                if isinstance(event, TurnCompleted):
                    event = msgspec.structs.replace(event, replayed=True)  # noqa: PLW2901
                    running.report.outcome, running.report.agent = "replayed", event.agent
                await running.emit(event)


async def _replay(running: TurnContext, stored: Replay) -> None:
    """Give the stored answer; nothing is spent."""
    turn = stored.turn
    running.report.agent, running.report.intent = turn.agent, turn.intent
    running.report.outcome = "replayed"
    *events, completed = replay(turn, stored.session)
    await running.emit(*events)
    await running.emit(completed)
