"""The opening stages of a turn: the session is loaded while the intent is detected.

Authentication and admission come before: nothing is read, written or spent for an unknown caller.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import Problem, SessionNotFound
from seawall.intents import Detection
from seawall.pipeline.context import Ports, Stage, TurnContext
from seawall.pipeline.leases import TurnLease, acquire_lease
from seawall.spans import record_span
from seawall.storage.port import BackgroundJob, Snapshot
from seawall.turn import Principal, SessionKey

__all__ = ["Opened", "Opening"]

T = TypeVar("T")

_NO_DETECTION = Detection(None, 0.0, "none")


class Opened(Struct, frozen=True):
    """The result of the opening stages: the session, the intent, and the turn's lease."""

    principal: Principal
    key: SessionKey
    snapshot: Snapshot
    detection: Detection
    lease: TurnLease


class Opening(Struct, frozen=True, kw_only=True):
    """The opening stages of one turn.

    fingerprint: digest of the request, if it has an idempotency key. joinable: whether the turn of
    this id is in progress here, so that it can be followed. store_in_doubt: the store failed
    recently, so check it before anything is spent, even if there is nothing to load.
    """

    ports: Ports
    context: TurnContext
    principal: Principal
    fingerprint: str | None
    joinable: Callable[[str], bool]
    store_in_doubt: bool

    async def run(self) -> Opened:
        """Run the stages.

        Raises:
            SessionNotFound: the session does not exist for this principal.
            SessionBusy: another turn of it is in progress, and was not done in time.
            Problem: any other failure of a stage.
        """
        if not self._needs_store and not self.ports.detector.may_wait:
            # A new session, and an intent that is detected at once: there is nothing to wait for.
            await self.context.spending.reserve(self.principal.tenant)
            lease = self._no_lease()
            return Opened(
                self.principal, lease.begin.key, Snapshot(None), self._detect_locally(), lease
            )
        may_spend = asyncio.Event()
        loading: asyncio.Task[tuple[Snapshot, TurnLease] | Problem] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                detecting = group.create_task(_captured(self._detect(may_spend)))
                loading = group.create_task(self._acquire_and_charge(may_spend, detecting))
            snapshot, lease = _unwrap(loading.result())
            found = _NO_DETECTION if detecting.cancelled() else _unwrap(detecting.result())
            return self._opened(snapshot, lease, found)
        except BaseException as failure:
            first = failure.exceptions[0] if isinstance(failure, BaseExceptionGroup) else failure
            await _release_on_failure(loading, first)
            if first is not failure:
                raise first from first.__cause__
            raise

    async def reload(self, opened: Opened) -> Opened:
        """Load again: the turn that was to be joined has ended meanwhile.

        Raises:
            Problem: as of `run`.
        """
        snapshot, lease = await self._acquire()
        detection = opened.detection
        try:
            if not self._is_final(snapshot, lease):
                await self.context.spending.reserve(self.principal.tenant)
                if self._spends_after_load:  # then nothing has been detected yet
                    may_spend = asyncio.Event()
                    may_spend.set()
                    detection = await self._detect(may_spend)
            return self._opened(snapshot, lease, detection)
        except BaseException:
            await lease.release()
            raise

    async def _acquire_and_charge(
        self, may_spend: asyncio.Event, detecting: asyncio.Task[Detection | Problem]
    ) -> tuple[Snapshot, TurnLease] | Problem:
        """Lease and load the session, then check whether the turn may spend."""
        if not self._spends_after_load:
            may_spend.set()
        loaded = await _captured(self._acquire())
        if not isinstance(loaded, Problem) and not self._is_final(*loaded):
            try:
                await self.context.spending.reserve(self.principal.tenant)
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
        """Whether a model may be called for the intent only after the session was loaded.

        So it is with budgets, if costs are reported, and with hand-overs to people: the budget must
        not be exhausted, and neither a replay nor a message to a person spends anything. Otherwise
        doing both at the same time is faster.
        """
        spending = self.context.spending
        replays = spending.metered and self.context.request.idempotency_key is not None
        unneeded = spending.has_budget or replays or self.ports.notifications is not None
        return self.ports.detector.may_spend and unneeded

    def _is_final(self, snapshot: Snapshot, lease: TurnLease) -> bool:
        """Whether there is no answer to be made: a replay, a join, no such session, a person."""
        answered = snapshot.replay is not None or snapshot.key_lease is not None
        if answered or lease.with_person is not None:
            return True
        return snapshot.session is None and not self.context.request.opens

    @property
    def _needs_store(self) -> bool:
        """Whether there is anything to load or to lease."""
        request = self.context.request
        keyed = bool(request.idempotency_key)
        return not request.opens or keyed or request.background or self.store_in_doubt

    async def _acquire(self) -> tuple[Snapshot, TurnLease]:
        if not self._needs_store:
            return Snapshot(None), self._no_lease()
        ports, context = self.ports, self.context
        # A turn under the same key may take as long as any turn.
        keyed = context.request.idempotency_key is not None
        patience = ports.limits.turn if keyed else ports.sessions.busy_seconds
        limit = ports.limits.session + patience
        async with Stage("session", limit, context.deadline, context.timings):
            return await acquire_lease(
                ports.store,
                self._key(),
                context.request,
                fingerprint=self.fingerprint,
                settings=ports.sessions,
                joinable=self.joinable,
                attempt_seconds=ports.limits.session,
                deadline=context.deadline,
                background_job=context.recovered_job or self._new_job(),
                next_message=ports.next_message,
            )

    def _new_job(self) -> BackgroundJob | None:
        request, sessions = self.context.request, self.ports.sessions
        if not (request.background and sessions.lease_seconds):
            return None
        now = time.time()
        return BackgroundJob(
            key=self._key(),
            request=msgspec.structs.replace(request, deadline=None),
            accepted_at=now,
            ends_at=now + sessions.background_seconds,
            roles=self.principal.roles,
        )

    def _no_lease(self) -> TurnLease:
        seconds = self.ports.sessions.lease_seconds
        return TurnLease.none(self.ports.store, self._key(), self.context.request.id, seconds)

    def _key(self) -> SessionKey:
        session = self.context.request.session
        return SessionKey(self.principal.tenant, self.principal.subject, session)

    def _opened(self, snapshot: Snapshot, lease: TurnLease, detection: Detection) -> Opened:
        answered = snapshot.replay or snapshot.key_lease
        if not self.context.request.opens and snapshot.session is None and answered is None:
            raise SessionNotFound
        # The session of a turn that is continued is not that of a retry that would open one.
        key = lease.begin.key if lease.continues is not None else self._key()
        return Opened(self.principal, key, snapshot, detection, lease)

    async def _detect(self, may_spend: asyncio.Event) -> Detection:
        ports, context = self.ports, self.context
        if not ports.detector.may_wait:
            return self._detect_locally()
        if self._spends_after_load:
            await may_spend.wait()  # which may take longer than the stage's limit
        async with Stage("intent", ports.limits.intent, context.deadline, context.timings):
            return await ports.detector.detect(
                context.request.text,
                deadline=context.deadline,
                meter=context.spending if context.spending.metered else None,
            )

    def _detect_locally(self) -> Detection:
        clock = asyncio.get_running_loop().time
        began = clock()
        detection = self.ports.detector.detect_locally(self.context.request.text)
        self.context.timings.record("intent", took := clock() - began)
        record_span("intent", took)
        return detection


async def _release_on_failure(
    loading: asyncio.Task[tuple[Snapshot, TurnLease] | Problem] | None, failure: BaseException
) -> None:
    """The opening failed, but the session may be leased already."""
    if loading is None or loading.cancelled() or not loading.done() or loading.exception():
        return
    loaded = loading.result()
    if not isinstance(loaded, Problem):
        await loaded[1].end(failure, acknowledged=False)


async def _captured(stage: Coroutine[None, None, T]) -> T | Problem:
    """The stage's failure as a value, to be raised when all stages are done."""
    try:
        return await stage
    except Problem as problem:
        return problem


def _unwrap(outcome: T | Problem) -> T:
    if isinstance(outcome, Problem):
        raise outcome
    return outcome
