"""The session store port: what the pipeline asks of any store.

A turn of a session costs one `begin` and one `commit`, whatever the length of the history; the
first turn of a session only the `commit`. The port is shaped so that a key-value store fits it: a
session is a head item under its owner and a partition of numbered turns, a commit is one
conditional write of turn, head and idempotency record together. Every adapter passes the same
contract test.

**Promises.** A turn in the background that is accepted is kept with its request until it is done,
so that another process can do it when this one cannot. Who runs it claims it; each claim has a
number, and only the newest may commit.

**Holding.** While a turn runs it holds its session, and its idempotency key, in its own name and
until a time that it renews. A holder that is dead or cut off loses both when that time is over.
A turn that lost its session to another can no longer commit.
"""

from typing import Any, Protocol

from msgspec import Struct

from seawall.turn import Principal, SessionKey, TurnRecord, TurnRequest

__all__ = [
    "Archive",
    "ArchivePage",
    "BackgroundJob",
    "Begin",
    "Commit",
    "JobFailure",
    "KeyRecord",
    "Lease",
    "Replay",
    "Session",
    "SessionPage",
    "SessionStore",
    "Snapshot",
    "TurnPage",
    "latest_lease_end",
    "lease_owner_name",
    "turn_of_lease_owner",
]


_MAX_CLOCK_SKEW_SECONDS = 60.0


class Lease(Struct, frozen=True):
    """A turn that runs, here or elsewhere; believed to until `until` (Unix seconds).

    session: which session it is of. fingerprint: digest of its request, where it holds a key.
    """

    turn: str
    session: str
    until: float
    fingerprint: str | None = None


class Session(Struct, frozen=True):
    """A session without its turns.

    version: the number of committed turns. agent: who has the conversation.
    state: what tools remember between turns. Times are Unix seconds.
    held: the turn that runs in it, if one does.
    """

    key: SessionKey
    version: int
    agent: str | None
    state: dict[str, str]
    created_at: float
    updated_at: float
    expires_at: float
    held: Lease | None = None


class Replay(Struct, frozen=True):
    """A turn that was committed under the same idempotency key.

    A key belongs to a tenant and subject, not to a session: a client that did not learn the id
    of the session it opened must still find its answer. `session` is that session's id.
    fingerprint: digest of the request that used the key first.
    """

    session: str
    fingerprint: str
    turn: TurnRecord


class BackgroundJob(Struct, frozen=True, kw_only=True):
    """A turn in the background that was accepted and is not done: a promise.

    request: without a deadline. accepted_at, ends_at: Unix seconds; after ends_at it is given up.
    attempt: how often it was claimed, the first time by being accepted. handed: how many of these
    attempts were handed over on purpose, by a process that was stopped.
    """

    key: SessionKey
    request: TurnRequest
    accepted_at: float
    ends_at: float
    attempt: int = 1
    handed: int = 0

    @property
    def lease_owner(self) -> str:
        """The name by which this attempt holds its session and key."""
        return lease_owner_name(self.request.id, self.attempt)


class JobFailure(Struct, frozen=True):
    """How a promised turn failed for good: a problem details object."""

    problem: dict[str, Any]


def lease_owner_name(turn: str, attempt: int) -> str:
    """The name by which an attempt at a turn holds what it holds; the first, by the turn's id."""
    return turn if attempt <= 1 else f"{turn}~{attempt}"


def turn_of_lease_owner(lease_owner: str) -> str:
    """The turn of such a name."""
    turn, _, attempt = lease_owner.rpartition("~")
    return turn if turn and attempt.isdecimal() else lease_owner


def latest_lease_end(now: float, lease: float) -> float:
    """The latest time at which a lease that is held now can end.

    One that claims to last longer was written before the clock was set back, by a process that may
    be dead: it counts as over. Twice the lease leaves room for servers with another setting, and a
    minute for clocks that are apart.

    Args:
        now: Unix seconds.
        lease: How long a lease lasts from one renewal, in seconds.
    """
    return now + 2 * lease + _MAX_CLOCK_SKEW_SECONDS


class Begin(Struct, frozen=True, kw_only=True):
    """A turn that wants to run.

    turn: its id, or its attempt's name, by which it holds what it gets. turns: how many of the
    newest to load.
    until: hold session and key until then (Unix seconds); None to hold nothing, only read.
    opens: the session does not exist yet; hold its name, so that others can see it runs.
    idempotency_key and fingerprint go together; both None when the client sent no key.
    pending: keep this promise from the moment on in which the session is held.
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
    """What a `begin` or `load` answers.

    session: None when it does not exist (or has expired, or its first turn is not done).
    turns: the newest turns, oldest first, at most as many as were asked for; without those that
    are too large to be shown to a model, and all before them.
    replay: the turn that was committed under the key before. running: another turn that holds the
    key now. With either, this turn holds nothing, also not what it held before.
    busy: another turn that holds the session now. What is not in these hands, the new turn holds.
    """

    session: Session | None
    turns: tuple[TurnRecord, ...] = ()
    replay: Replay | None = None
    running: Lease | None = None
    busy: Lease | None = None


class Commit(Struct, frozen=True, kw_only=True):
    """One durable, conditional write; also ends what the turn held.

    expected_version: the session's version when it was loaded; 0 to create it.
    turn.number must be expected_version + 1. attempt: of a promised turn, the number of the claim,
    which must be the newest; the promise is kept thereby, and forgotten. 0 for any other turn.
    opened_at: the session's created_at as it was loaded; spares the store a look where it is given.
    idempotency_key and fingerprint go together; both None when the client sent no key.
    expires_at: Unix seconds; the session and all its turns go together.
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
        """The name by which the turn holds its session and key."""
        return lease_owner_name(self.turn.id, self.attempt)


class SessionPage(Struct, frozen=True):
    """Sessions by id, last first; `cursor` continues, None at the end.

    Ids that `new_session_id` makes sort by time, so that the session opened last comes first.
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
    """Sessions of all owners in an order of the store's own; `cursor` continues."""

    archives: tuple[Archive, ...]
    cursor: str | None


class SessionStore(Protocol):
    """Durable sessions. Callers put a deadline around every call.

    Every method raises StoreUnavailable when the store cannot answer; `commit` only where nothing
    was written. Cancelling a call leaves a write either wholly applied or not at all.
    """

    async def open(self) -> None:
        """Connect, create what is missing. Called once, before anything else."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, release everything."""
        ...

    async def begin(self, begin: Begin) -> Snapshot:
        """Hold the session and the key as far as nobody else does, and load what a turn needs.

        May be called again by the same turn, to get what it did not get.
        """
        ...

    async def renew(self, begin: Begin) -> bool:
        """Hold on until `begin.until`; False when the session or the key was lost to another."""
        ...

    async def release(self, begin: Begin) -> None:
        """The turn ended without a commit: let go of what it holds, if it still does."""
        ...

    async def load(self, key: SessionKey, *, turns: int) -> Snapshot:
        """The session and its newest `turns` turns; holds nothing."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Apply all of it, durably, or nothing. Doing it twice is doing it once.

        Raises:
            CommitUnknown: it may be applied, or be applied yet: the store's answer was lost.
            SessionConflict: the version is not the expected one, another turn holds the session
                or the key, the key was used by another turn of this subject before, or the
                promise of the turn is not this attempt's any more.
        """
        ...

    async def orphaned_jobs(self, *, limit: int) -> tuple[BackgroundJob, ...]:
        """Promised turns of anybody's that nobody runs; a look that costs little."""
        ...

    async def claim(self, background_job: BackgroundJob, *, until: float) -> BackgroundJob | None:
        """Take a promised turn over, with what it holds; None when somebody else was first.

        until: as in `begin`. The attempt before can neither renew nor commit any more.
        """
        ...

    async def hand_over(self, background_job: BackgroundJob) -> None:
        """Let another process take the turn over at once; it goes on holding its session."""
        ...

    async def fail(
        self, background_job: BackgroundJob, failure: JobFailure, *, until: float
    ) -> None:
        """The turn has failed for good: forget the promise, keep the reason until then.

        Nothing happens when the promise is not this attempt's any more.
        """
        ...

    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """What is known of a turn in the background that is not committed."""
        ...

    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """A page of a session's turns.

        Raises:
            SessionNotFound: there is no such session for this tenant and subject.
            InvalidField: the cursor is not one that this store gave.
        """
        ...

    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """A page of the owner's sessions.

        Raises:
            InvalidField: the cursor is not one that this store gave.
        """
        ...

    async def delete(self, key: SessionKey) -> None:
        """Remove the session with all its turns, promised ones too, and idempotency records.

        Raises:
            SessionNotFound: there is no such session for this tenant and subject.
        """
        ...

    async def erase(self, owner: Principal) -> int:
        """Remove everything that is kept of a subject; the number of sessions that were."""
        ...

    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """Up to `limit` whole sessions of anybody's, for moving them to another store.

        Those that have expired, or have not got a turn yet, are left out.

        Raises:
            InvalidField: the cursor is not one that this store gave.
        """
        ...

    async def restore(self, archive: Archive) -> bool:
        """Take a session over from another store; False when one of its name is there already.

        When cut off in the middle, nothing shows, and it can be done again.
        """
        ...
