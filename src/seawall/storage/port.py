"""The session store port: sessions, leases, background jobs and commits.

A turn of a session costs one `begin` and one `commit`, whatever the length of the history; the
first turn of a session only the `commit`. The port is shaped so that a key-value store fits it: a
session is a head item under its owner and a partition of numbered turns; a commit is one
conditional write of turn, head and idempotency record together. Every adapter passes the same
contract test.

**Leases.** While a turn is in progress it leases its session, and its idempotency key, until a time
that it extends by renewing. An owner that is dead or cut off loses both at that time. A turn that
lost its lease to another can no longer commit: the lease's owner is a fencing token.

**Background jobs.** An accepted background turn is stored with its request until it is done, so
that another process can run it if this one cannot. The process that runs it claims it; each claim
is a numbered attempt, and only the newest may commit.

**Journals.** A turn with effects is stored before it is done: `journal` writes it with its final
number, and writes it again as it goes on. So the journal *is* the turn's record, and what loads,
lists, exports, expires or erases turns does so with journals. While its process lives, the session
stays leased; a turn that finds an earlier one open after it has leased the session knows that its
process is gone.

**Waits.** A call that waits for a decision, and an effect whose outcome is unknown, are listed by
tenant until they are decided. A paused turn is a background job that sleeps until then.

**Notifications.** A notification of a hand-over is stored with what it reports, and deleted when it
has arrived. Each delivery has a number; the process that claims the next one makes it.

**Audit.** Records of effects and decisions are appended to the chain of their session: each has the
hash of the one before. They outlive the session, but not its subject's erasure.
"""

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, field

from seawall.turn import Decision, Principal, Question, SessionKey, TurnRecord, TurnRequest

if TYPE_CHECKING:
    from seawall.storage.counters import Counters
    from seawall.storage.facts import Facts

__all__ = [
    "Archive",
    "ArchivePage",
    "AuditPage",
    "AuditRecord",
    "BackgroundJob",
    "Begin",
    "Commit",
    "JobFailure",
    "JournalWrite",
    "KeyRecord",
    "Lease",
    "Notification",
    "Replay",
    "Session",
    "SessionPage",
    "SessionStore",
    "Snapshot",
    "TurnPage",
    "Wait",
    "WaitPage",
    "latest_lease_end",
    "lease_owner_name",
    "turn_of_lease_owner",
]


_MAX_CLOCK_SKEW_SECONDS = 60.0


class Lease(Struct, frozen=True):
    """A lease of a session or an idempotency key by a turn that is in progress.

    Attributes:
        owner: The turn's id, or its attempt's name; see `lease_owner_name`.
        session: The turn's session.
        until: End of the lease, in Unix seconds.
        fingerprint: Digest of the turn's request, for a key.
    """

    owner: str = field(name="turn")
    session: str
    until: float
    fingerprint: str | None = None


class Session(Struct, frozen=True):
    """A session without its turns.

    Attributes:
        key: Its full name.
        version: Number of committed turns.
        agent: The agent that answered last.
        state: What tools store between turns.
        created_at: Unix seconds.
        updated_at: Unix seconds.
        expires_at: Unix seconds.
        lease: Of the turn in progress, if there is one.
    """

    key: SessionKey
    version: int
    agent: str | None
    state: dict[str, str]
    created_at: float
    updated_at: float
    expires_at: float
    lease: Lease | None = field(default=None, name="held")


class Replay(Struct, frozen=True):
    """A turn that was committed under the same idempotency key.

    A key belongs to a tenant and subject, not to a session: a client that did not learn the id of
    the session it opened must still find its answer.

    Attributes:
        session: The id of the turn's session.
        fingerprint: Digest of the request that used the key first.
        turn: The stored turn.
    """

    session: str
    fingerprint: str
    turn: TurnRecord


class BackgroundJob(Struct, frozen=True, kw_only=True):
    """A background turn that was accepted and is not done.

    Attributes:
        key: Its session.
        request: Without a deadline.
        accepted_at: Unix seconds.
        ends_at: Unix seconds; after that it is abandoned.
        attempt: Number of claims, of which accepting it is the first.
        handovers: How many of these attempts were handed over on purpose, by a process that was
            shut down.
        roles: Of the caller.
    """

    key: SessionKey
    request: TurnRequest
    accepted_at: float
    ends_at: float
    attempt: int = 1
    handovers: int = field(default=0, name="handed")
    roles: tuple[str, ...] = ()

    @property
    def lease_owner(self) -> str:
        """The name by which this attempt leases its session and key."""
        return lease_owner_name(self.request.id, self.attempt)


class JobFailure(Struct, frozen=True):
    """Why a background turn failed permanently: a problem details object."""

    problem: dict[str, Any]


def lease_owner_name(turn: str, attempt: int) -> str:
    """The name by which an attempt at a turn owns its leases; for the first, the turn's id."""
    return turn if attempt <= 1 else f"{turn}~{attempt}"


def turn_of_lease_owner(owner: str) -> str:
    """The turn's id in the name of a lease's owner."""
    turn, _, attempt = owner.rpartition("~")
    return turn if turn and attempt.isdecimal() else owner


def latest_lease_end(now: float, lease: float) -> float:
    """The latest time at which a valid lease can end.

    A lease that ends later was written before the clock was set back, by a process that may be
    dead: it counts as expired. Twice the lease allows for servers with another setting, and a
    minute for clock skew.

    Args:
        now: Unix seconds.
        lease: How long a lease lasts from one renewal on, in seconds.
    """
    return now + 2 * lease + _MAX_CLOCK_SKEW_SECONDS


class Begin(Struct, frozen=True, kw_only=True):
    """The start of a turn: what it leases and loads.

    Attributes:
        key: The session.
        turn: The turn's id, or its attempt's name, by which it owns its leases.
        turns: How many of the newest turns to load.
        until: Lease session and key until then, in Unix seconds; None to only read.
        opens: The session does not exist yet; lease its name, so that other turns see it.
        idempotency_key: None if the client sent none.
        fingerprint: Digest of the request; goes with the key.
        background_job: Store this job as soon as the session is leased.
    """

    key: SessionKey
    turn: str
    turns: int
    until: float | None
    opens: bool = False
    idempotency_key: str | None = None
    fingerprint: str | None = None
    background_job: BackgroundJob | None = None


class Snapshot(Struct, frozen=True):
    """The answer to a `begin` or `load`.

    What no other turn has leased, the turn that begins has. With `replay` or `key_lease` it has no
    lease, and has lost those it had.

    Attributes:
        session: None if it does not exist (or has expired, or its first turn is not done).
        turns: The newest turns, oldest first, at most as many as requested; without those too large
            to be shown to a model, and all before them.
        replay: The turn that was committed under the key.
        key_lease: Another turn's lease of the key.
        session_lease: Another turn's lease of the session.
    """

    session: Session | None
    turns: tuple[TurnRecord, ...] = ()
    replay: Replay | None = None
    key_lease: Lease | None = None
    session_lease: Lease | None = None


class Commit(Struct, frozen=True, kw_only=True):
    """One durable, conditional write; also ends the turn's leases.

    Attributes:
        key: The session.
        expected_version: The session's version when it was loaded; 0 to create it.
        turn: With the number `expected_version` + 1.
        agent: The agent that answered last.
        state: What tools store between turns.
        expires_at: Unix seconds; the session expires with all its turns.
        idempotency_key: None if the client sent none.
        fingerprint: Digest of the request; goes with the key.
        opened_at: The session's `created_at` as it was loaded; saves the store a read.
        attempt: Of a background turn, the number of the claim, which must be the newest; the job is
            deleted. 0 for any other turn.
    """

    key: SessionKey
    expected_version: int
    turn: TurnRecord
    agent: str | None
    state: dict[str, str]
    expires_at: float
    idempotency_key: str | None = None
    fingerprint: str | None = None
    opened_at: float | None = None
    attempt: int = 0

    @property
    def lease_owner(self) -> str:
        """The name by which the turn leases its session and key."""
        return lease_owner_name(self.turn.id, self.attempt)


class Wait(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that waits for a decision.

    Attributes:
        id: The effect's; of a question, with a dot and its number.
        key: The turn's session, and so its owner.
        turn: Id of the turn.
        number: Of the turn in its session.
        call: Id of the call.
        kind: As in `ApprovalRequest`, or "unknown" for an effect that is to be reconciled.
        tool: Name of the tool.
        agent: Name of the agent.
        arguments: JSON for people, redacted.
        role: As in `ApprovalRequest`.
        own: As in `ApprovalRequest`.
        created_at: Unix seconds.
        expires_at: Unix seconds.
        decision: None while it waits.
        question: Of "input".
    """

    id: str
    key: SessionKey
    turn: str
    number: int
    call: str
    kind: str
    tool: str
    agent: str
    arguments: str
    role: str | None = None
    own: bool = False
    created_at: float
    expires_at: float
    decision: Decision | None = None
    question: Question | None = None


class WaitPage(Struct, frozen=True):
    """Waits of a tenant by id, first first; `cursor` continues, None at the end."""

    waits: tuple[Wait, ...]
    cursor: str | None


class AuditRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record of an effect or of a decision, in the chain of its session.

    Attributes:
        key: The session, and so on whose behalf.
        turn: Id of the turn.
        kind: "effect", "decision", "memory" for a change of facts about a subject by a person, or
            "read" of contents that were shown in the console.
        effect: Id of the effect; of a fact, that of the fact, empty for all.
        call: Id of the call.
        tool: Name of the tool.
        agent: Name of the agent.
        arguments: JSON, redacted.
        status: Of an effect "done", "failed", "rejected" or "unknown"; of a decision its verdict;
            of facts "corrected", "deleted" or "erased".
        outcome: What the model was given, bounded.
        idempotency_key: Of the effect.
        began_at: Of the effect, in Unix seconds; 0 if it did not begin.
        at: When it ended, or was decided, in Unix seconds.
        decision: That permitted or refused the effect; None if it needed none.
        question: Of an answer, what was asked.
        number: Position in the chain, from 1; set by the store.
        previous: Hash of the record before, empty for the first; set by the store.
        hash: SHA-256, in hex, of this record's canonical JSON without the hash; set by the store.
    """

    key: SessionKey
    turn: str
    kind: str
    effect: str
    call: str
    tool: str
    agent: str
    arguments: str
    status: str
    outcome: str = ""
    idempotency_key: str = ""
    began_at: float = 0.0
    at: float
    decision: Decision | None = None
    question: str = ""
    number: int = 0
    previous: str = ""
    hash: str = ""


class AuditPage(Struct, frozen=True):
    """Audit records, those of a session together and in order; `cursor` continues."""

    records: tuple[AuditRecord, ...]
    cursor: str | None


class Notification(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A notification that has not arrived yet.

    Attributes:
        id: Unique in the tenant; the same whenever it is sent again.
        key: The session that it is about, and so its owner.
        body: JSON, as it is sent.
        ends_at: Unix seconds; then it is given up.
        tries: How many deliveries were begun; that of the process that stores it is the first.
        due: When the next one may begin, in Unix seconds.
    """

    id: str
    key: SessionKey
    body: str
    ends_at: float
    tries: int = 1
    due: float = 0.0


class JournalWrite(Struct, frozen=True, kw_only=True):
    """One durable, conditional write of a turn with effects, under its lease.

    The turn replaces the revision before of the same turn; revision 1 is added to the session like
    the turn of a `Commit`, and binds the idempotency key. Nothing is written unless the session is
    leased by `lease_owner`, or, for revision 1, not leased.

    Attributes:
        key: The session.
        turn: With a journal. Its number is `expected_version` + 1 for revision 1; later it is the
            number that it has.
        lease_owner: The name by which the turn leases its session.
        until: New end of the session's lease, in Unix seconds; None to end the lease.
        agent: The agent that answered last.
        state: What tools store between turns; None to leave it as it is.
        expires_at: Unix seconds; when the session expires.
        idempotency_key: Of the request; None if the client sent none.
        fingerprint: Digest of the request; goes with the key.
        opened_at: The session's `created_at` as it was loaded; None if this turn opened it.
        attempt: Of a background turn, the number of the claim, which must be the newest; 0 for any
            other turn.
        ends_job: Whether the background job is deleted.
        sleeps: Store this job in its place: it is claimable when its lease ends, `sleeps_until`, or
            when one of its calls is decided.
        sleeps_until: Unix seconds.
        waits: Calls that wait from now on.
        undecided: Ids of waits that must not have been decided yet, because the turn pauses for
            them again.
        ended: Ids of waits that are over.
        audit: Records to append.
        notifications: To be delivered from now on.
    """

    key: SessionKey
    turn: TurnRecord
    lease_owner: str
    until: float | None
    agent: str | None
    state: dict[str, str] | None
    expires_at: float
    idempotency_key: str | None = None
    fingerprint: str | None = None
    opened_at: float | None = None
    attempt: int = 0
    ends_job: bool = False
    sleeps: BackgroundJob | None = None
    sleeps_until: float = 0.0
    waits: tuple[Wait, ...] = ()
    undecided: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    audit: tuple[AuditRecord, ...] = ()
    notifications: tuple[Notification, ...] = ()


class SessionPage(Struct, frozen=True):
    """Sessions by id, last first; `cursor` continues, None at the end.

    Ids made by `new_session_id` sort by time, so the session opened last comes first.
    """

    sessions: tuple[Session, ...]
    cursor: str | None


class TurnPage(Struct, frozen=True):
    """A session with some of its turns, newest first; `cursor` continues, None at the end."""

    session: Session
    turns: tuple[TurnRecord, ...]
    cursor: str | None


class KeyRecord(Struct, frozen=True):
    """An idempotency key of a session's turn, as it is moved from store to store."""

    key: str
    fingerprint: str
    number: int


class Archive(Struct, frozen=True):
    """A session with everything that belongs to it; turns oldest first."""

    session: Session
    turns: tuple[TurnRecord, ...]
    keys: tuple[KeyRecord, ...]


class ArchivePage(Struct, frozen=True):
    """Sessions of all owners, in an order of the store's own; `cursor` continues."""

    archives: tuple[Archive, ...]
    cursor: str | None


class SessionStore(Protocol):
    """Durable sessions. Callers put a deadline around every call.

    Every method raises StoreUnavailable when the store cannot answer; `commit` only if nothing was
    written. Cancelling a call leaves a write either applied completely or not at all.
    """

    async def open(self) -> None:
        """Connect, create what is missing. Called once, before anything else."""
        ...

    async def close(self) -> None:
        """Finish accepted work, release everything."""
        ...

    def counters(self) -> "Counters":
        """Counters in the same store; to be opened, after the store."""
        ...

    def facts(self) -> "Facts":
        """Facts about subjects in the same store."""
        ...

    async def begin(self, begin: Begin) -> Snapshot:
        """Lease session and key, unless another turn has them, and load what a turn needs.

        May be repeated by the same turn, to get what another turn had leased.
        """
        ...

    async def renew(self, begin: Begin) -> bool:
        """Extend the leases to `begin.until`; False when one was lost to another turn.

        A key that a journal has bound is no longer leased: renew without it from then on.
        """
        ...

    async def release(self, begin: Begin) -> None:
        """The turn ended without a commit: end its leases, if it still has them."""
        ...

    async def load(self, key: SessionKey, *, turns: int) -> Snapshot:
        """The session and its newest `turns` turns, without a lease."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Apply all of it, durably, or nothing. Idempotent.

        Raises:
            CommitUnknown: it may be applied, or may still be: the store's answer was lost.
            SessionConflict: the version is not the expected one, another turn has leased the
            session
                or the key, the key was used by another turn of this subject, or a newer attempt has
                claimed the background turn.
        """
        ...

    async def journal(self, write: JournalWrite) -> None:
        """Apply all of it, durably, or nothing. Idempotent: a revision is applied once.

        Raises:
            CommitUnknown: it may be applied, or may still be: the store's answer was lost.
            SessionConflict: the lease, the number or the key has been lost to another turn, a newer
                attempt has claimed the background turn, one of `undecided` is decided, or a
                revision of another writer came between.
        """
        ...

    async def waits(
        self, tenant: str, *, turn: str | None = None, limit: int, cursor: str | None = None
    ) -> WaitPage:
        """A page of what waits in a tenant, or in one turn of it, decided or not.

        What belongs to a session that has expired or was deleted may be left out.

        Raises:
            InvalidField: the cursor is not one of this store.
        """
        ...

    async def find_wait(self, tenant: str, wait: str) -> Wait | None:
        """The wait of this id; None if there is none, or it is over."""
        ...

    async def decide(self, wait: Wait, decision: Decision, audit: AuditRecord) -> bool:
        """Record a decision once, append its audit record, and wake the turn's job.

        False if it has been decided, or is over; then nothing is written. A job that is running, or
        awake, stays as it is.
        """
        ...

    async def append_audit(self, record: AuditRecord) -> None:
        """Append one record to the chain of its session."""
        ...

    async def audit(
        self, *, tenant: str | None = None, limit: int, cursor: str | None = None
    ) -> AuditPage:
        """A page of audit records, of all tenants or of one.

        Raises:
            InvalidField: the cursor is not one of this store.
        """
        ...

    async def due_notifications(self, *, limit: int) -> tuple[Notification, ...]:
        """Notifications, of all owners, whose next delivery may begin, in the order of `due`."""
        ...

    async def claim_notification(
        self, notification: Notification, *, due: float
    ) -> Notification | None:
        """Begin its next delivery; None if it is not due, is gone, or another process was first.

        due: when the delivery after this one may begin, in Unix seconds.
        """
        ...

    async def end_notification(self, notification: Notification) -> None:
        """It has arrived, or is given up: delete it."""
        ...

    async def orphaned_jobs(self, *, limit: int) -> tuple[BackgroundJob, ...]:
        """Background turns, of all owners, whose lease has expired; a query that costs little.

        Jobs that sleep are among them when their time has come, or they were woken.
        """
        ...

    async def claim_job(self, job: BackgroundJob, *, until: float) -> BackgroundJob | None:
        """Take over a background turn with its leases; None if another process was first.

        A paused turn has no leases: the attempt gets its session by `begin`, without the key, as
        the key's turn is this one.

        until: as in `Begin`. The attempt before can no longer renew or commit.
        """
        ...

    async def hand_over_job(self, job: BackgroundJob) -> None:
        """Let another process claim the turn at once; its session stays leased."""
        ...

    async def fail_job(self, job: BackgroundJob, failure: JobFailure, *, until: float) -> None:
        """The turn failed permanently: delete the job, keep the failure until then (Unix seconds).

        Nothing happens if a newer attempt has claimed it.
        """
        ...

    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """A background turn that is not committed, or why it failed."""
        ...

    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """A page of a session's turns.

        Raises:
            SessionNotFound: there is no such session for this tenant and subject.
            InvalidField: the cursor is not one of this store.
        """
        ...

    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """A page of the owner's sessions.

        Raises:
            InvalidField: the cursor is not one of this store.
        """
        ...

    async def delete(self, key: SessionKey) -> None:
        """Delete the session with its turns, background turns and idempotency records.

        Raises:
            SessionNotFound: there is no such session for this tenant and subject.
        """
        ...

    async def erase(self, owner: Principal) -> int:
        """Delete everything stored about a subject; the number of its sessions."""
        ...

    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """Up to `limit` whole sessions of all owners, to be moved to another store.

        Those that have expired, or have no turn yet, are left out.

        Raises:
            InvalidField: the cursor is not one of this store.
        """
        ...

    async def restore(self, archive: Archive) -> bool:
        """Store a session of another store; False if one of its name exists already.

        If it is interrupted, nothing is visible, and it can be repeated.
        """
        ...
