"""The session store port: what the pipeline asks of any store.

A turn costs one `load` and one `commit`, whatever the length of the history. The port is shaped
so that a key-value store fits it: a session is a partition (tenant, subject, session), its turns
are numbered items in it, a commit is one conditional write of turn, version and idempotency
record together. Every adapter passes the same contract test.
"""

from typing import Protocol

from msgspec import Struct

from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = ["Commit", "Replay", "Session", "SessionPage", "SessionStore", "Snapshot", "TurnPage"]


class Session(Struct, frozen=True):
    """A session without its turns.

    version: the number of committed turns. agent: who has the conversation.
    state: what tools remember between turns. Times are Unix seconds.
    """

    key: SessionKey
    version: int
    agent: str | None
    state: dict[str, str]
    created_at: float
    updated_at: float
    expires_at: float


class Replay(Struct, frozen=True):
    """A turn that was committed under the same idempotency key.

    A key belongs to a tenant and subject, not to a session: a client that did not learn the id
    of the session it opened must still find its answer. `session` is that session's id.
    fingerprint: digest of the request that used the key first.
    """

    session: str
    fingerprint: str
    turn: TurnRecord


class Snapshot(Struct, frozen=True):
    """What one `load` answers.

    session: None when it does not exist (or has expired) for this key.
    turns: the newest turns, oldest first, at most as many as were asked for.
    """

    session: Session | None
    turns: tuple[TurnRecord, ...] = ()
    replay: Replay | None = None


class Commit(Struct, frozen=True, kw_only=True):
    """One durable, conditional write.

    expected_version: the session's version when it was loaded; 0 to create it.
    turn.number must be expected_version + 1.
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


class SessionPage(Struct, frozen=True):
    """Sessions, most recently updated first; `cursor` continues, None at the end."""

    sessions: tuple[Session, ...]
    cursor: str | None


class TurnPage(Struct, frozen=True):
    """A session with some of its turns, newest first; `cursor` continues, None at the end."""

    session: Session
    turns: tuple[TurnRecord, ...]
    cursor: str | None


class SessionStore(Protocol):
    """Durable sessions. Callers put a deadline around every call.

    Every method raises StoreUnavailable when the store cannot answer. Cancelling a call leaves
    a commit either wholly applied or not at all.
    """

    async def open(self) -> None:
        """Connect, create what is missing. Called once, before anything else."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, release everything."""
        ...

    async def load(
        self, key: SessionKey, *, turns: int, idempotency_key: str | None = None
    ) -> Snapshot:
        """The session, its newest `turns` turns and the turn stored under the key, if any."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Apply all of it, durably, or nothing.

        Raises:
            SessionConflict: the version is not the expected one, or the idempotency key was
                used by another turn of this subject in the meantime.
        """
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
        """Remove the session with all its turns and idempotency records.

        Raises:
            SessionNotFound: there is no such session for this tenant and subject.
        """
        ...
