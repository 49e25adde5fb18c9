"""The opening of a turn: the session, while the intent is detected.

Authentication gates every effect: it came before admission, so that nothing here begins for
somebody unknown.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.budgets.spending import Spending
from seawall.errors import Problem, SessionNotFound
from seawall.intents.cascade import IntentDetector
from seawall.intents.definition import Detection
from seawall.pipeline.leases import TurnLease, acquire_lease
from seawall.pipeline.stages import Stage, StageLimits, StageTimings
from seawall.spans import record_span
from seawall.storage.port import BackgroundJob, SessionStore, Snapshot
from seawall.storage.settings import SessionSettings
from seawall.turn import Principal, SessionKey, TurnRequest

__all__ = ["Opened", "Opening"]

T = TypeVar("T")

_NO_DETECTION = Detection(None, 0.0, "none")


class Opened(Struct, frozen=True):
    """What the three stages found out, and what the turn holds of the store."""

    principal: Principal
    key: SessionKey
    snapshot: Snapshot
    detection: Detection
    holding: TurnLease


class Opening(Struct, frozen=True, kw_only=True):
    """The opening stages of one turn.

    fingerprint: digest of the request, where it has an idempotency key. joinable: whether a turn
    that runs can be followed here. store_in_doubt: the store failed lately, so ask it before
    anything is spent, even where nothing is to be loaded. deadline: of the turn, in seconds on
    the event loop's clock. resumed: the promise, made before, that this turn keeps. spending: the
    turn's; asked before anything is spent.
    """

    request: TurnRequest
    principal: Principal
    fingerprint: str | None
    joinable: Callable[[str], bool]
    store_in_doubt: bool
    store: SessionStore
    detector: IntentDetector
    sessions: SessionSettings
    limits: StageLimits
    deadline: float
    timings: StageTimings
    spending: Spending
    recovered_job: BackgroundJob | None = None

    async def run(self) -> Opened:
        """Run the stages.

        Raises:
            SessionNotFound: the session asked for is not this principal's.
            SessionBusy: another turn of it is running, and was not done in time.
            Problem: whatever else a stage could not do.
        """
        if not self._needs_store and not self.detector.may_wait:
            # A new session, and an intent found on the spot: there is nothing to wait for.
            await self.spending.reserve(self.principal.tenant)
            return self._opened(Snapshot(None), self._no_lease(), self._detect_locally())
        may_spend = asyncio.Event()
        holding: asyncio.Task[tuple[Snapshot, TurnLease] | Problem] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                detecting = group.create_task(_captured(self._detect(may_spend)))
                holding = group.create_task(self._acquire_and_charge(may_spend, detecting))
            snapshot, held = _unwrap(holding.result())
            found = _NO_DETECTION if detecting.cancelled() else _unwrap(detecting.result())
            return self._opened(snapshot, held, found)
        except BaseException as failure:
            first = failure.exceptions[0] if isinstance(failure, BaseExceptionGroup) else failure
            await _release_on_failure(holding, first)
            if first is not failure:
                raise first from first.__cause__
            raise

    async def reload(self, opened: Opened) -> Opened:
        """Look at the store once more: the turn that was in the way has ended meanwhile.

        Raises:
            Problem: what the session's stage could not do.
        """
        snapshot, holding = await self._acquire()
        detection = opened.detection
        try:
            if not self._is_final(snapshot):
                await self.spending.reserve(self.principal.tenant)
                if self._spends_after_load:  # then nothing has been detected yet
                    detection = await self._detect(_set_event())
            return self._opened(snapshot, holding, detection)
        except BaseException:
            await holding.release()
            raise

    async def _acquire_and_charge(
        self, may_spend: asyncio.Event, detecting: asyncio.Task[Detection | Problem]
    ) -> tuple[Snapshot, TurnLease] | Problem:
        """Get the session, then see whether the turn may spend."""
        if not self._spends_after_load:
            may_spend.set()
        loaded = await _captured(self._acquire())
        if not isinstance(loaded, Problem) and not self._is_final(loaded[0]):
            try:
                await self.spending.reserve(self.principal.tenant)
            except BaseException as refusal:
                ending = await loaded[1].end(refusal, acknowledged=False)
                if not isinstance(ending, Problem):
                    raise
                loaded = ending
            else:
                may_spend.set()
        if self._spends_after_load and not may_spend.is_set():
            detecting.cancel()  # there is an answer already, or there will be none
        return loaded

    @property
    def _spends_after_load(self) -> bool:
        """Whether it takes the session to know that a model may be asked for the intent.

        Where there are budgets, or costs are told: the budget must not be used up, and a
        repetition spends nothing. Else asking at the same time is quicker.
        """
        repeats = self.spending.metered and self.request.idempotency_key is not None
        return self.detector.may_spend and (self.spending.has_budget or repeats)

    def _is_final(self, snapshot: Snapshot) -> bool:
        """Whether what the store says is the answer already: a repetition, or no such session."""
        if snapshot.replay is not None or snapshot.running is not None:
            return True
        return snapshot.session is None and not self.request.opens

    @property
    def _needs_store(self) -> bool:
        """Whether the store has to be asked."""
        request = self.request
        asked = not request.opens or bool(request.idempotency_key) or request.background
        return asked or self.store_in_doubt

    async def _acquire(self) -> tuple[Snapshot, TurnLease]:
        if not self._needs_store:
            return Snapshot(None), self._no_lease()
        # A turn under the same key may take as long as a turn may.
        keyed = self.request.idempotency_key is not None
        patience = self.limits.turn if keyed else self.sessions.busy_seconds
        limit = self.limits.session + patience
        async with Stage("session", limit, self.deadline, self.timings):
            return await acquire_lease(
                self.store,
                self._key(),
                self.request,
                fingerprint=self.fingerprint,
                settings=self.sessions,
                joinable=self.joinable,
                attempt_seconds=self.limits.session,
                deadline=self.deadline,
                background_job=self.recovered_job or self._new_job(),
            )

    def _new_job(self) -> BackgroundJob | None:
        if not (self.request.background and self.sessions.lease_seconds):
            return None
        now = time.time()
        return BackgroundJob(
            key=self._key(),
            request=msgspec.structs.replace(self.request, deadline=None),
            accepted_at=now,
            ends_at=now + self.sessions.background_seconds,
        )

    def _no_lease(self) -> TurnLease:
        return TurnLease.none(self.store, self._key(), self.request.id)

    def _key(self) -> SessionKey:
        return SessionKey(self.principal.tenant, self.principal.subject, self.request.session)

    def _opened(self, snapshot: Snapshot, holding: TurnLease, detection: Detection) -> Opened:
        answered = snapshot.replay or snapshot.running
        if not self.request.opens and snapshot.session is None and answered is None:
            raise SessionNotFound
        return Opened(self.principal, self._key(), snapshot, detection, holding)

    async def _detect(self, may_spend: asyncio.Event) -> Detection:
        if not self.detector.may_wait:
            return self._detect_locally()
        if self._spends_after_load:
            await may_spend.wait()  # which may take longer than detecting may
        async with Stage("intent", self.limits.intent, self.deadline, self.timings):
            return await self.detector.detect(
                self.request.text,
                deadline=self.deadline,
                meter=self.spending if self.spending.metered else None,
            )

    def _detect_locally(self) -> Detection:
        clock = asyncio.get_running_loop().time
        began = clock()
        detection = self.detector.detect_locally(self.request.text)
        self.timings.record("intent", took := clock() - began)
        record_span("intent", took)
        return detection


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def _release_on_failure(
    holding: asyncio.Task[tuple[Snapshot, TurnLease] | Problem] | None, failure: BaseException
) -> None:
    """The opening failed, but the session may be held already."""
    if holding is None or holding.cancelled() or not holding.done() or holding.exception():
        return
    loaded = holding.result()
    if not isinstance(loaded, Problem):
        await loaded[1].end(failure, acknowledged=False)


async def _captured(stage: Coroutine[None, None, T]) -> T | Problem:
    """The stage's failure as a value, to be looked at when all is known."""
    try:
        return await stage
    except Problem as problem:
        return problem


def _unwrap(outcome: T | Problem) -> T:
    if isinstance(outcome, Problem):
        raise outcome
    return outcome
