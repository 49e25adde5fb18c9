"""What a turn holds of the store while it runs: getting it, keeping it, letting go of it."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct

from seawall.errors import (
    CommitUnknown,
    DeadlineExceeded,
    InternalError,
    KeyReused,
    Overloaded,
    Problem,
    ServerStopping,
    SessionBusy,
    SessionConflict,
    StoreUnavailable,
    TurnPostponed,
)
from seawall.storage.port import (
    BackgroundJob,
    Begin,
    JobFailure,
    Lease,
    SessionStore,
    Snapshot,
    turn_of_lease_owner,
)
from seawall.storage.settings import SessionSettings
from seawall.turn import SessionKey, TurnRequest

__all__ = ["TurnLease", "acquire_lease", "best_effort", "check_same_request", "record_job_failure"]

_FIRST_POLL_SECONDS = 0.05
_MAX_POLL_SECONDS = 0.5
_RELEASE_SECONDS = 3.0
_REASON_KEPT_SECONDS = 86_400.0
# Not the turn's fault: what was promised is tried again. Of these, what has cost no attempt.
_RETRIED_LATER = (
    CommitUnknown,
    Overloaded,
    ServerStopping,
    SessionBusy,
    SessionConflict,
    StoreUnavailable,
)
_NOT_STARTED = (Overloaded, SessionBusy)


class TurnLease(Struct, frozen=True):
    """A session, and perhaps an idempotency key, held in a turn's name; `lease` 0: nothing."""

    store: SessionStore
    begin: Begin
    lease: float

    @classmethod
    def none(cls, store: SessionStore, key: SessionKey, turn: str) -> "TurnLease":
        """Of a turn that opens a session whose name nobody knows yet."""
        return cls(store, Begin(key=key, turn=turn, turns=0, until=None), 0.0)

    @asynccontextmanager
    async def keep_renewed(self) -> AsyncGenerator[None, None]:
        """Hold on while the block runs; let go when it fails.

        The block ends what is held itself, by its commit.

        Raises:
            SessionConflict: the session or the key was lost to another turn.
            TurnPostponed: in place of a problem that does not end a promised turn.
        """
        if not self.lease:
            yield
            return
        renewing: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew())
                yield
                renewing.cancel()
        except BaseExceptionGroup as failures:
            ending = await self.end(failures.exceptions[0])
            raise ending from ending.__cause__  # `from None` would take it away
        except BaseException as failure:
            ending = await self.end(failure)
            if ending is failure:
                raise
            raise ending from failure

    async def end(self, failure: BaseException, *, acknowledged: bool = True) -> BaseException:
        """The turn ended without a commit; what is to be raised.

        A promised turn is handed over when it was interrupted, and tried again when the problem
        lies elsewhere; else it has failed for good. promised: whether its client knows of it.
        """
        background_job = self.begin.background_job
        if background_job is None or not self.lease:
            await self.release()
            return failure
        acknowledged = acknowledged or background_job.attempt > 1
        if acknowledged and isinstance(failure, (asyncio.CancelledError, *_NOT_STARTED)):
            await best_effort(self.store.hand_over(background_job))
        elif not (acknowledged and isinstance(failure, _RETRIED_LATER)):
            await record_job_failure(self.store, background_job, failure)
            await self.release()
        if acknowledged and isinstance(failure, _RETRIED_LATER):
            return TurnPostponed(
                f"The turn was interrupted, and goes on later: {failure}", retry_after=1.0
            )
        return failure

    async def release(self) -> None:
        """Let others have it at once. Should that fail, they get it when the lease is over."""
        if self.lease:
            await best_effort(self.store.release(self.begin))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with asyncio.timeout(self.lease / 3):
                    keep_renewed = await self.store.renew(_until(self.begin, self.lease))
            except (Problem, TimeoutError):
                continue  # there is another try in time; if not, the commit will tell
            if not keep_renewed:
                raise SessionConflict("Another turn has taken this session over.")


async def record_job_failure(
    store: SessionStore, background_job: BackgroundJob, failure: BaseException
) -> None:
    """Keep the reason for those who ask for the turn's events."""
    if isinstance(failure, asyncio.CancelledError):
        failure = ServerStopping("The turn was ended before it was accepted.")
    elif not isinstance(failure, Problem):
        failure = InternalError("Something went wrong here; it is logged.")
    reason = JobFailure(failure.as_dict())
    await best_effort(store.fail(background_job, reason, until=time.time() + _REASON_KEPT_SECONDS))


async def best_effort(call: Awaitable[None]) -> None:
    """What is not done now is done by time: leases run out."""
    try:
        async with asyncio.timeout(_RELEASE_SECONDS):
            await call
    except (Problem, TimeoutError):
        return


async def acquire_lease(
    store: SessionStore,
    key: SessionKey,
    request: TurnRequest,
    *,
    fingerprint: str | None,
    settings: SessionSettings,
    joinable: Callable[[str], bool],
    attempt_seconds: float,
    deadline: float,
    background_job: BackgroundJob | None = None,
) -> tuple[Snapshot, TurnLease]:
    """Begin the turn in the store; where another turn is in the way, wait as configured.

    pending: the promise to keep with it, of a turn in the background.
    A turn under the same key is joined where that can be done here: then it is in the snapshot's
    `running`, and this one holds nothing. Where it runs elsewhere, its answer is waited for.

    Raises:
        KeyReused: the key was used with another request.
        SessionBusy: another turn of the session is running, and was not done in time.
        DeadlineExceeded: a single look at the store took longer than `attempt_seconds`.
    """
    clock = asyncio.get_running_loop().time
    patience = settings.busy_seconds if settings.when_busy == "wait" else 0.0
    latest = min(clock() + patience, deadline)
    pause = _FIRST_POLL_SECONDS
    begin = Begin(
        key=key,
        turn=background_job.lease_owner if background_job is not None else request.id,
        turns=settings.history_turns,
        until=None,
        opens=request.opens,
        idempotency_key=request.idempotency_key,
        fingerprint=fingerprint,
        background_job=background_job,
    )
    holding = TurnLease(store, begin, settings.lease_seconds)
    none = TurnLease.none(store, key, request.id)
    try:
        while True:
            snapshot = await _begin(store, _until(begin, settings.lease_seconds), attempt_seconds)
            running = snapshot.running
            for taken in (snapshot.replay, running):
                if taken is not None:
                    check_same_request(taken.fingerprint, fingerprint)
            if snapshot.replay or (running and joinable(turn_of_lease_owner(running.turn))):
                return snapshot, none
            in_the_way = running or snapshot.busy
            if in_the_way is None or not settings.lease_seconds:
                return snapshot, holding
            if clock() + pause > (deadline if running else latest):
                raise _busy(in_the_way)
            # Not on the beat: two that wait for the same turn should not ask at the same time.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 1.5, _MAX_POLL_SECONDS)
    except BaseException as failure:
        ending = await holding.end(failure, acknowledged=False)
        if ending is failure:
            raise
        raise ending from failure


async def _begin(store: SessionStore, begin: Begin, seconds: float) -> Snapshot:
    try:
        async with asyncio.timeout(seconds):
            return await store.begin(begin)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The session store did not answer within {seconds:g} s.", field="session"
        ) from error


def check_same_request(first: str | None, now: str | None) -> None:
    """The same key must come with the same request.

    Raises:
        KeyReused: it does not.
    """
    if first != now:
        raise KeyReused(
            "This idempotency key was used before with another request; use a new key.",
            field="idempotency_key",
        )


def _until(begin: Begin, lease: float) -> Begin:
    return msgspec.structs.replace(begin, until=time.time() + lease if lease else None)


def _busy(hold: Lease) -> SessionBusy:
    left = max(1.0, hold.until - time.time())
    return SessionBusy(
        "Another turn of this session is running; send this one when that is done.",
        field="session",
        retry_after=round(min(left, 5.0), 1),
    )
