"""Leases of a turn in progress: acquired, renewed, and released when it fails."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType

import msgspec
from msgspec import UNSET, Struct

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
    TurnInterrupted,
    TurnIsPaused,
    TurnNotFound,
    TurnPostponed,
)
from seawall.pipeline.replay import find_older
from seawall.settings import SessionSettings
from seawall.storage.port import (
    BackgroundJob,
    Begin,
    JobFailure,
    Lease,
    Replay,
    SessionStore,
    Snapshot,
    Wait,
    turn_of_lease_owner,
)
from seawall.turn import Effect, SessionKey, TurnRecord, TurnRequest

__all__ = [
    "TurnLease",
    "acquire_lease",
    "best_effort",
    "describe_effects",
    "interrupted",
    "is_retried_later",
    "record_job_failure",
    "taken_over",
]

_FIRST_POLL_SECONDS = 0.05
_MAX_POLL_SECONDS = 0.5
_RELEASE_SECONDS = 3.0
_MAX_WAITS = 1_000
_REASON_KEPT_SECONDS = 86_400.0
# Not the turn's fault: a background turn is retried. Of these, those that cost no attempt.
_RETRIED_LATER = (
    CommitUnknown,
    Overloaded,
    ServerStopping,
    SessionBusy,
    SessionConflict,
    StoreUnavailable,
)
_NOT_STARTED = (Overloaded, SessionBusy)


class TurnLease(Struct):
    """A turn's lease of its session and, if it has one, of its idempotency key.

    Attributes:
        store: The session store.
        begin: What is leased, by which name.
        seconds: How long it lasts from one renewal on; 0 without a lease.
        journal_seconds: As `seconds`, of a lease that a journal takes.
        group: Of the task that renews it, while `keep_renewed` runs.
        renewing: That task.
        continues: The turn, as an earlier attempt has left it; None for a new turn.
        binds: Whether a journal write that binds the key was sent: the key may not be leased now.
        until: When it ends unless it is renewed, in Unix seconds; known from the first journal
            write on.
        with_person: The hand-over to the person who has the conversation now; None for none.
    """

    store: SessionStore
    begin: Begin
    seconds: float
    journal_seconds: float = 0.0
    group: asyncio.TaskGroup | None = None
    renewing: asyncio.Task[None] | None = None
    continues: TurnRecord | None = None
    binds: bool = False
    until: float = 0.0
    with_person: Wait | None = None

    @classmethod
    def none(
        cls, store: SessionStore, key: SessionKey, turn: str, journal_seconds: float = 0.0
    ) -> "TurnLease":
        """For a turn that opens a session whose id no client knows yet."""
        begin = Begin(key=key, turn=turn, turns=0, until=None)
        return cls(store, begin, 0.0, journal_seconds)

    @property
    def attempt(self) -> int:
        """Number of the attempt at a background turn; 1 for any other turn."""
        return self.begin.background_job.attempt if self.begin.background_job is not None else 1

    def taken(self, until: float) -> None:
        """The journal has leased the session: renew that lease, and not that of a bound key.

        Args:
            until: When it ends, in Unix seconds.
        """
        self.until = until
        if not self.seconds:
            self.seconds = self.journal_seconds
        if self.binds:
            self.begin = msgspec.structs.replace(self.begin, idempotency_key=None)
        self.renew()

    def renew(self) -> None:
        """Renew it from now on, while `keep_renewed` runs."""
        if self.seconds and self.renewing is None and self.group is not None:
            self.renewing = self.group.create_task(self._renew())

    def stop_renewing(self) -> None:
        """Before a write that ends the lease, which a renewal would take for lost.

        The lease lasts longer than such a write may take.
        """
        if self.renewing is not None:
            self.renewing.cancel()
            self.renewing = None

    def ended(self) -> None:
        """The journal has ended the lease."""
        self.seconds = 0.0
        self.stop_renewing()

    def keep_renewed(self) -> "_Renewal":
        """Renew the lease while the block runs; release it if the block fails.

        If the block succeeds, its commit has ended the lease.

        Raises:
            SessionConflict: the session or the key was lost to another turn.
            TurnPostponed: in place of a problem after which a background turn is retried.
        """
        return _Renewal(self)

    async def end(self, failure: BaseException, *, acknowledged: bool = True) -> BaseException:
        """The turn ended without a commit; returns the exception to raise.

        A background turn is handed over if it was interrupted, and retried if the problem is not
        its own; otherwise it has failed permanently.

        Args:
            failure: What ended the turn.
            acknowledged: Whether the client knows that the turn was accepted.
        """
        job = self.begin.background_job
        if job is None or not self.seconds:
            await self.release()
            return failure
        acknowledged = acknowledged or job.attempt > 1
        if acknowledged and isinstance(failure, (asyncio.CancelledError, *_NOT_STARTED)):
            await best_effort(self.store.hand_over_job(job))
        elif not (acknowledged and isinstance(failure, _RETRIED_LATER)):
            await record_job_failure(self.store, job, failure)
            await self.release()
        if acknowledged and isinstance(failure, _RETRIED_LATER):
            return TurnPostponed(
                f"The turn was interrupted and will be retried: {failure}", retry_after=1.0
            )
        return failure

    async def release(self) -> None:
        """Let other turns have the session at once; if this fails, when the lease ends."""
        if self.seconds:
            await best_effort(self.store.release(self.begin))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.seconds / 3)
            try:
                async with asyncio.timeout(self.seconds / 3):
                    renewed = await self.renew_once()
            except (Problem, TimeoutError):
                continue  # it is retried in time; if not, the commit decides
            if not renewed:
                raise taken_over()

    async def renew_once(self) -> bool:
        """Renew it; False when another turn, or another attempt at this one, has taken it over.

        Raises:
            Problem: The store did not answer.
        """
        begin = _until(self.begin, self.seconds)
        if self.binds:
            begin = msgspec.structs.replace(begin, idempotency_key=None)
        renewed = await self.store.renew(begin)
        if renewed and begin.until is not None:
            self.until = begin.until
        bound_meanwhile = self.binds and begin.idempotency_key is not None
        return renewed or bound_meanwhile


class _Renewal:
    """`async with` of `TurnLease.keep_renewed`; a class, as a generator costs each turn more."""

    __slots__ = ("_group", "_lease")

    def __init__(self, lease: TurnLease) -> None:
        self._lease = lease
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> None:
        self._lease.group = await self._group.__aenter__()
        self._lease.renew()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = self._lease
        if error is None and lease.renewing is not None:
            lease.renewing.cancel()
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as failures:
            ending = await lease.end(failures.exceptions[0])
            raise ending from ending.__cause__  # `from None` would remove it
        except BaseException as failure:
            ending = await lease.end(failure)
            if ending is failure:
                raise
            raise ending from failure
        if error is not None:
            ending = await lease.end(error)
            if ending is not error:
                raise ending from error


def taken_over() -> SessionConflict:
    """The error of an attempt that has lost its lease."""
    return SessionConflict("Another turn has taken this session over.")


def is_retried_later(failure: BaseException) -> bool:
    """Whether a background turn that ends so is run again."""
    return isinstance(failure, (asyncio.CancelledError, *_RETRIED_LATER))


async def record_job_failure(
    store: SessionStore, job: BackgroundJob, failure: BaseException
) -> None:
    """Record why a background turn failed, for clients that read its events."""
    if isinstance(failure, asyncio.CancelledError):
        failure = ServerStopping("The turn was cancelled before it was accepted.")
    elif not isinstance(failure, Problem):
        failure = InternalError("Internal error; the details are in the log of the server.")
    reason = JobFailure(failure.as_dict())
    await best_effort(store.fail_job(job, reason, until=time.time() + _REASON_KEPT_SECONDS))


async def best_effort(call: Awaitable[None]) -> None:
    """Await a call whose failure has no consequence: leases expire."""
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
    next_message: str = "answer",
) -> tuple[Snapshot, TurnLease]:
    """Begin the turn in the store; if another turn has the lease, wait as configured.

    A turn under the same key is joined if it is in progress here: then it is the snapshot's
    `key_lease`, and this turn has no lease. If it is in progress elsewhere, its end is waited for.
    If an earlier attempt has left it with a journal, this one leases its session, to continue it.

    Args:
        store: The session store.
        key: The session.
        request: What the client asked for.
        fingerprint: Digest of the request, if it has an idempotency key.
        settings: Of sessions.
        joinable: Whether the turn of this id can be joined here.
        attempt_seconds: The longest that a single call of the store may take.
        deadline: Of the turn, in seconds on the event loop's clock.
        background_job: Of a background turn: stored together with the lease.
        next_message: What happens while a turn of the session is paused; see `EffectSettings`.

    Raises:
        TurnIsPaused: a turn of the session is paused, and no other is accepted.
        TurnInterrupted: the turn with this key was interrupted, and later turns have followed.
        KeyReused: the key was used with another request.
        SessionBusy: another turn of the session is in progress, and was not done in time.
        DeadlineExceeded: a call of the store took longer than `attempt_seconds`.
    """
    clock = asyncio.get_running_loop().time
    patience = settings.busy_seconds if settings.when_busy == "wait" else 0.0
    latest = min(clock() + patience, deadline)
    pause = _FIRST_POLL_SECONDS
    begin = Begin(
        key=key,
        turn=background_job.lease_owner if background_job is not None else request.id,
        turns=max(1, settings.history_turns),
        until=None,
        opens=request.opens,
        idempotency_key=request.idempotency_key,
        fingerprint=fingerprint,
        background_job=background_job,
    )
    lease = TurnLease(store, begin, settings.lease_seconds, settings.lease_seconds)
    attempt = _Acquisition(lease, begin, settings, joinable, attempt_seconds, next_message)
    try:
        while True:
            found = await attempt.once()
            if isinstance(found, Snapshot):
                return found, attempt.lease
            if found is not None:
                if clock() + pause > (deadline if attempt.joins else latest):
                    raise found
                # With jitter: two that wait for the same turn should not poll at the same time.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 1.5, _MAX_POLL_SECONDS)
    except BaseException as failure:
        ending = await lease.end(failure, acknowledged=False)
        if ending is failure:
            raise
        raise ending from failure


class _Acquisition(Struct):
    """One turn's attempts to lease its session.

    Attributes:
        lease: What it gets.
        begin: Its request to the store.
        settings: Of sessions.
        joinable: Whether the turn of this id can be joined here.
        seconds: The longest that a single call of the store may take.
        next_message: As of `acquire_lease`.
        left: The turn with the same key that an earlier attempt has left.
        joins: Whether a turn with the same key is waited for, which may take as long as any turn.
    """

    lease: TurnLease
    begin: Begin
    settings: SessionSettings
    joinable: Callable[[str], bool]
    seconds: float
    next_message: str
    left: TurnRecord | None = None
    joins: bool = False

    async def once(self) -> Snapshot | Problem | None:
        """Try once: the snapshot, why it has to wait, or None to try again at once.

        Raises:
            KeyReused: as of `acquire_lease`.
            TurnIsPaused: as of `acquire_lease`.
            TurnInterrupted: as of `acquire_lease`.
        """
        lease = self.lease
        snapshot = await _begin(
            lease.store, _until(lease.begin, self.settings.lease_seconds), self.seconds
        )
        other = snapshot.key_lease or snapshot.session_lease
        if self.left is not None and other is not None:  # it is being continued by another attempt
            snapshot = msgspec.structs.replace(snapshot, key_lease=other)
        self._check_key(snapshot)
        self.joins = snapshot.key_lease is not None
        if snapshot.key_lease and self.joinable(turn_of_lease_owner(snapshot.key_lease.owner)):
            return self._without_lease(snapshot)
        if snapshot.replay is not None:
            return self._follow_key(snapshot, snapshot.replay)
        if other is not None and self.settings.lease_seconds:
            return _busy(other)
        return await self._leased(snapshot)

    def _check_key(self, snapshot: Snapshot) -> None:
        job, replay = self.begin.background_job, snapshot.replay
        if self.left is not None or (job and replay and replay.turn.id == job.request.id):
            return
        for same_key in (snapshot.replay, snapshot.key_lease):
            if same_key is not None and same_key.fingerprint != self.begin.fingerprint:
                raise KeyReused(
                    "This idempotency key was used before with another request; use a new key.",
                    field="idempotency_key",
                )

    def _without_lease(self, snapshot: Snapshot) -> Snapshot:
        self.lease = TurnLease.none(self.lease.store, self.begin.key, self.begin.turn)
        return snapshot

    def _follow_key(self, snapshot: Snapshot, replay: Replay) -> Snapshot | None:
        """The turn with this key is stored: replay it, or lease its session to continue it."""
        if not _is_left(replay.turn, self.begin.background_job):
            return self._without_lease(snapshot)
        self.left = replay.turn
        key = self.begin.key
        self.lease.begin = msgspec.structs.replace(
            self.begin,
            key=SessionKey(key.tenant, key.subject, replay.session),
            opens=False,
            idempotency_key=None,
        )
        return None

    async def _leased(self, snapshot: Snapshot) -> Snapshot | Problem | None:
        lease = self.lease
        left = await _left_turn(lease.store, lease.begin, snapshot, self.left, self.seconds)
        if left is not None and not _is_left(left, self.begin.background_job):
            await lease.release()  # it was completed meanwhile
            lease.begin, self.left = self.begin, None
            return None
        lease.continues = left
        if left is not None:
            return snapshot
        if (turn := _handed_over(snapshot.turns)) is not None:
            wait = await self._handover_of(turn)
            if wait is not None and wait.decision is None and time.time() < wait.expires_at:
                lease.with_person = wait
                return snapshot
            if (
                wait is not None
                and time.time() < wait.expires_at + self.settings.background_seconds
            ):
                await lease.release()
                return TurnIsPaused(
                    f"The turn {wait.turn} of this session continues after its hand-over to a "
                    "person; it comes first.",
                    field="session",
                    retry_after=1.0,
                )
        over = time.time() - self.settings.background_seconds  # their jobs have ended
        paused = [each for each in snapshot.turns if _waits_until(each) > over]
        if self.next_message == "answer" or not paused:
            return snapshot
        await lease.release()
        problem = TurnIsPaused(
            f"The turn {paused[0].id} of this session waits for a decision; decide it first.",
            field="session",
        )
        if self.next_message == "refuse":
            raise problem
        return problem

    async def _handover_of(self, turn: str) -> Wait | None:
        """The hand-over of a turn, one that has not ended first; None if its turn has ended.

        Raises:
            DeadlineExceeded: The store did not answer.
        """
        tenant = self.begin.key.tenant
        try:
            async with asyncio.timeout(self.seconds):
                page = await self.lease.store.waits(tenant, turn=turn, limit=_MAX_WAITS)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The session store did not answer within {self.seconds:g} s.", field="session"
            ) from error
        found = [each for each in page.waits if each.kind == "person"]
        return min(found, key=lambda each: each.decision is not None, default=None)


def _handed_over(turns: tuple[TurnRecord, ...]) -> str | None:
    """The turn whose hand-over may not have ended: one that is paused, or not loaded any more."""
    newest = turns[-1].during if turns else UNSET
    if newest is not UNSET:
        of = newest.rpartition(".")[0]
        ended = any(each.id == of and each.status not in ("open", "paused") for each in turns)
        return None if ended else of
    for turn in turns:
        if turn.status != "paused" or turn.journal is UNSET:
            continue
        for effect in turn.journal.effects:
            request = effect.request
            if effect.status == "waiting" and request is not None and request.kind == "person":
                return turn.id
    return None


def _waits_until(turn: TurnRecord) -> float:
    """When what a paused turn waits for expires, in Unix seconds; 0 for any other turn."""
    if turn.journal is UNSET or turn.status != "paused":
        return 0.0
    effects = turn.journal.effects
    return max((each.request.expires_at for each in effects if each.request is not None), default=0)


def _is_left(turn: TurnRecord, job: BackgroundJob | None) -> bool:
    """Whether this attempt is to continue the turn with its key, or of its job."""
    if turn.status == "paused":
        return job is not None and job.request.id == turn.id
    return turn.status in ("open", "interrupted")


async def _left_turn(
    store: SessionStore,
    begin: Begin,
    snapshot: Snapshot,
    left: TurnRecord | None,
    seconds: float,
) -> TurnRecord | None:
    """The turn that this attempt continues, as it is now that the session is leased.

    Raises:
        TurnInterrupted: It cannot be continued any more.
    """
    job = begin.background_job
    wanted = left.id if left is not None else job.request.id if job is not None else None
    if wanted is None or (left is None and job is not None and job.attempt == 1):
        return None
    found = next((each for each in snapshot.turns if each.id == wanted), None)
    if found is None and snapshot.session is not None:
        try:
            found = await find_older(store, begin.key, wanted, seconds)
        except TurnNotFound:
            return None
    if found is None or found.status != "interrupted":
        return found
    newest = snapshot.turns[-1].id if snapshot.turns else ""
    if newest != found.id:
        raise interrupted(found)
    return found


def interrupted(turn: TurnRecord) -> TurnInterrupted:
    """The problem of a turn that was interrupted and is not continued."""
    problem = TurnInterrupted(
        "The turn was interrupted after it had changed something; its session says what was done. "
        "It is not continued, because later turns have followed."
    )
    if turn.journal is not UNSET:
        problem.effects = describe_effects(turn.journal.effects)
    return problem


def describe_effects(effects: Iterable[Effect]) -> tuple[dict[str, str], ...]:
    """What problems say of the effects that have begun."""
    return tuple(
        {"id": each.id, "tool": each.tool, "status": each.status}
        for each in effects
        if each.began_at and not each.reads
    )


async def _begin(store: SessionStore, begin: Begin, seconds: float) -> Snapshot:
    try:
        async with asyncio.timeout(seconds):
            return await store.begin(begin)
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The session store did not answer within {seconds:g} s.", field="session"
        ) from error


def _until(begin: Begin, seconds: float) -> Begin:
    return msgspec.structs.replace(begin, until=time.time() + seconds if seconds else None)


def _busy(lease: Lease) -> SessionBusy:
    left = max(1.0, lease.until - time.time())
    return SessionBusy(
        "Another turn of this session is in progress; try again when it is done.",
        field="session",
        retry_after=round(min(left, 5.0), 1),
    )
