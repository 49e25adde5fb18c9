"""Leases of sessions, idempotency keys and background turns (jobs) in SQLite.

As in `batches`, the number of statements of a `begin` does not grow with the batch. In the tables,
`holder` is the lease's owner and `held_until` its end.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from seawall.storage.port import BackgroundJob, Begin, JobFailure, Lease, Replay, Snapshot
from seawall.storage.sqlite.batches import (
    decode_turn,
    delete_sessions,
    load_rows,
    read_session,
)
from seawall.storage.sqlite.thread import transaction
from seawall.storage.values import encode_job
from seawall.turn import Principal

__all__ = [
    "CREATE_BEGINS_TABLE",
    "begin_turns",
    "claim_job",
    "fail_job",
    "find_job",
    "find_orphaned_jobs",
    "hand_over_job",
    "release_lease",
    "renew_job",
    "renew_lease",
]

# Of a batch of turns that begin, those that have leased their session now.
_INSERT_JOBS = """
INSERT INTO pending
    SELECT a.tenant, a.subject, a.turn, a.session, a.job, 1, 0, a.until, NULL, NULL, NULL
    FROM asking a JOIN sessions s ON (s.tenant, s.subject, s.session, s.holder)
        = (a.tenant, a.subject, a.session, a.turn)
    WHERE a.job IS NOT NULL AND a.until IS NOT NULL
    ON CONFLICT DO NOTHING
"""
_OWNED = "(tenant, subject, turn, attempt) = (?, ?, ?, ?) AND failure IS NULL"

_encode = msgspec.json.Encoder().encode
_decode_job = msgspec.json.Decoder(BackgroundJob).decode
_decode_failure = msgspec.json.Decoder(JobFailure).decode


def find_orphaned_jobs(
    connection: sqlite3.Connection, limit: int, now: float, latest: float
) -> tuple[BackgroundJob, ...]:
    """See `SessionStore.orphaned_jobs`. latest: see `latest_lease_end`."""
    rows = connection.execute(
        "SELECT record, attempt, handed FROM pending WHERE failure IS NULL AND wakes_at IS NULL "
        "AND (held_until <= ? OR held_until > ?) ORDER BY held_until LIMIT ?",
        (now, latest, limit),
    ).fetchall()
    rows += connection.execute(
        "SELECT record, attempt, handed FROM pending WHERE wakes_at IS NOT NULL "
        "AND wakes_at <= ? ORDER BY wakes_at LIMIT ?",
        (now, limit - len(rows)),
    )
    return tuple(_read_job(*row) for row in rows)


def find_job(
    connection: sqlite3.Connection, owner: Principal, turn: str, now: float
) -> BackgroundJob | JobFailure | None:
    """See `SessionStore.find_job`."""
    row = connection.execute(
        "SELECT record, attempt, handed, failure FROM pending "
        "WHERE (tenant, subject, turn) = (?, ?, ?) AND (failure IS NULL OR failure_ends > ?)",
        (owner.tenant, owner.subject, turn, now),
    ).fetchone()
    if row is None:
        return None
    return _read_job(*row[:3]) if row[3] is None else _decode_failure(row[3])


def claim_job(
    connection: sqlite3.Connection, job: BackgroundJob, until: float, now: float, latest: float
) -> BackgroundJob | None:
    """See `SessionStore.claim_job`. latest: see `latest_lease_end`."""
    key, request = job.key, job.request
    claimed = msgspec.structs.replace(job, attempt=job.attempt + 1)
    lease = (claimed.lease_owner, until, key.tenant, key.subject)
    with transaction(connection):
        won = connection.execute(
            f"UPDATE pending SET attempt = attempt + 1, held_until = ?, wakes_at = NULL "  # noqa: S608
            f"WHERE {_OWNED} AND CASE WHEN wakes_at IS NULL THEN held_until <= ? OR held_until > ? "
            "ELSE wakes_at <= ? END",
            (until, *_row_key(job), now, latest, now),
        ).rowcount
        if won:
            connection.execute(
                "UPDATE sessions SET holder = ?1, held_until = ?2, "
                "expires_at = CASE version WHEN 0 THEN ?2 ELSE expires_at END "
                "WHERE (tenant, subject, session, holder) = (?3, ?4, ?5, ?6)",
                (*lease, key.session, job.lease_owner),
            )
            connection.execute(
                "UPDATE idempotency SET holder = ?, held_until = ? "
                "WHERE (tenant, subject, key, holder) = (?, ?, ?, ?) AND number IS NULL",
                (*lease, request.idempotency_key, job.lease_owner),
            )
    return claimed if won else None


def renew_job(connection: sqlite3.Connection, job: BackgroundJob, until: float) -> bool:
    """Extend the attempt's lease, in the caller's transaction; False when it was taken over."""
    return bool(
        connection.execute(
            f"UPDATE pending SET held_until = ? WHERE {_OWNED}",  # noqa: S608
            (until, *_row_key(job)),
        ).rowcount
    )


def hand_over_job(connection: sqlite3.Connection, job: BackgroundJob) -> None:
    """See `SessionStore.hand_over_job`."""
    connection.execute(
        f"UPDATE pending SET held_until = 0, handed = handed + 1 WHERE {_OWNED}",  # noqa: S608
        _row_key(job),
    )


def fail_job(
    connection: sqlite3.Connection, job: BackgroundJob, failure: JobFailure, until: float
) -> None:
    """See `SessionStore.fail_job`. The request is not kept."""
    connection.execute(
        "UPDATE pending SET record = '', failure = ?, failure_ends = ?, wakes_at = NULL "  # noqa: S608
        f"WHERE {_OWNED}",
        (_encode(failure).decode(), until, *_row_key(job)),
    )


def _row_key(job: BackgroundJob) -> tuple[str, str, str, int]:
    key = job.key
    return key.tenant, key.subject, job.request.id, job.attempt


def _read_job(record: str, attempt: int, handovers: int) -> BackgroundJob:
    return msgspec.structs.replace(_decode_job(record), attempt=attempt, handovers=handovers)


CREATE_BEGINS_TABLE = """
CREATE TEMP TABLE asking (
    position INTEGER PRIMARY KEY, tenant TEXT, subject TEXT, session TEXT, turns INTEGER,
    turn TEXT, until REAL, opens INTEGER, key TEXT, fingerprint TEXT, job TEXT
)
"""
_FILL = """
INSERT INTO asking SELECT key, value->>0, value->>1, value->>2, value->>3, value->>4, value->>5,
    value->>6, value->>7, value->>8, value->>9 FROM json_each(?)
"""
# Keys whose turn was deleted with its session, or whose lease has expired.
_DROP_STALE_KEYS = """
DELETE FROM idempotency WHERE (tenant, subject, key) IN
    (SELECT tenant, subject, key FROM asking WHERE key IS NOT NULL)
    AND CASE WHEN number IS NULL THEN held_until <= :now OR held_until > :latest ELSE NOT EXISTS
        (SELECT 1 FROM sessions s WHERE (s.tenant, s.subject, s.session) =
            (idempotency.tenant, idempotency.subject, idempotency.session)
            AND s.expires_at > :now) END
"""
_LEASE_KEYS = """
INSERT INTO idempotency
    SELECT tenant, subject, key, fingerprint, session, NULL, turn, until FROM asking
    WHERE key IS NOT NULL AND until IS NOT NULL ORDER BY position
    ON CONFLICT DO UPDATE SET held_until = excluded.held_until, session = excluded.session,
        fingerprint = excluded.fingerprint
    WHERE number IS NULL AND holder = excluded.holder
"""
_STALE_NAMES = """
(SELECT a.tenant, a.subject, a.session FROM asking a JOIN sessions s
    ON (s.tenant, s.subject, s.session) = (a.tenant, a.subject, a.session)
    WHERE a.opens AND (s.expires_at <= ? OR s.version = 0 AND s.held_until > ?))
"""
# A turn needs the session only if it has leased its key, if it has one.
_HAS_ITS_KEY = """
(a.key IS NULL OR EXISTS (SELECT 1 FROM idempotency i WHERE i.number IS NULL
    AND (i.tenant, i.subject, i.key, i.holder) = (a.tenant, a.subject, a.key, a.turn)))
"""
_OPEN = f"""
INSERT INTO sessions
    SELECT tenant, subject, session, 0, NULL, '{{}}', :now, :now, until, turn, until FROM asking a
    WHERE opens AND until IS NOT NULL AND {_HAS_ITS_KEY} ON CONFLICT DO NOTHING
"""  # noqa: S608 - no values are interpolated
_LEASE_SESSIONS = f"""
UPDATE sessions SET holder = a.turn, held_until = a.until,
    expires_at = CASE version WHEN 0 THEN a.until ELSE expires_at END
FROM asking a WHERE (sessions.tenant, sessions.subject, sessions.session)
        = (a.tenant, a.subject, a.session)
    AND a.until IS NOT NULL AND sessions.expires_at > :now
    AND (sessions.holder IS NULL OR sessions.held_until <= :now OR sessions.held_until > :latest
        OR sessions.holder = a.turn)
    AND {_HAS_ITS_KEY}
"""  # noqa: S608 - as above
# A turn that is too late for its key does not need the session, or name, that it has leased.
_LATE = f"""
a.until IS NOT NULL AND (sessions.tenant, sessions.subject, sessions.session, sessions.holder)
    = (a.tenant, a.subject, a.session, a.turn) AND NOT {_HAS_ITS_KEY}
"""
_RELEASE_LATE_SESSIONS = f"""
UPDATE sessions SET holder = NULL, held_until = NULL FROM asking a
    WHERE sessions.version > 0 AND {_LATE}
"""  # noqa: S608 - as above
_RELEASE_LATE_NAMES = f"""
DELETE FROM sessions WHERE version = 0 AND EXISTS (SELECT 1 FROM asking a WHERE {_LATE})
"""  # noqa: S608 - as above
_KEYS = """
SELECT json_group_array(json_array(a.position, i.session, i.fingerprint, i.holder, i.held_until,
    t.payload)) FROM asking a
    JOIN idempotency i ON (i.tenant, i.subject, i.key) = (a.tenant, a.subject, a.key)
    LEFT JOIN turns t ON (t.tenant, t.subject, t.session, t.number)
        = (i.tenant, i.subject, i.session, i.number)
"""
_RENEW_SESSION = """
UPDATE sessions SET held_until = ?1, expires_at = CASE version WHEN 0 THEN ?1 ELSE expires_at END
    WHERE tenant = ?2 AND subject = ?3 AND session = ?4 AND holder = ?5 AND expires_at > ?6
"""
_LEASED_BY_OTHER = """
SELECT 1 FROM sessions WHERE tenant = ? AND subject = ? AND session = ? AND holder IS NOT ?
    AND expires_at > ?
"""
_RENEW_KEY = """
UPDATE idempotency SET held_until = ? WHERE tenant = ? AND subject = ? AND key = ? AND holder = ?
"""
_RELEASE_KEY = """
DELETE FROM idempotency WHERE tenant = ? AND subject = ? AND key = ? AND holder = ?
    AND number IS NULL
"""
_RELEASE_SESSION = """
UPDATE sessions SET holder = NULL, held_until = NULL
    WHERE tenant = ? AND subject = ? AND session = ? AND holder = ? AND version > 0
"""
_RELEASE_NAME = """
DELETE FROM sessions WHERE tenant = ? AND subject = ? AND session = ? AND holder = ?
    AND version = 0
"""

_Key = tuple[int, str, str, str | None, float | None, str | None]
_decode_keys = msgspec.json.Decoder(list[_Key]).decode


def begin_turns(
    connection: sqlite3.Connection, begins: Sequence[Begin], now: float, latest: float
) -> list[Snapshot]:
    """Begin a batch in one transaction, first come, first served; the answers in their order.

    latest: see `latest_lease_end`.
    """
    asking = _encode(
        [
            (
                each.key.tenant,
                each.key.subject,
                each.key.session,
                each.turns,
                each.turn,
                each.until,
                each.opens,
                each.idempotency_key,
                each.fingerprint,
                # One that was taken over is stored already.
                encode_job(each.background_job).decode()
                if each.background_job and each.background_job.attempt == 1
                else None,
            )
            for each in begins
        ]
    ).decode()
    keyed = any(each.idempotency_key is not None for each in begins)
    with transaction(connection):
        connection.execute(_FILL, (asking,))
        if keyed:
            connection.execute(_DROP_STALE_KEYS, {"now": now, "latest": latest})
            connection.execute(_LEASE_KEYS)
            connection.execute(_RELEASE_LATE_SESSIONS)
            connection.execute(_RELEASE_LATE_NAMES)
        if any(each.opens for each in begins):
            delete_sessions(connection, _STALE_NAMES, (now, latest))
            connection.execute(_OPEN, {"now": now})
        connection.execute(_LEASE_SESSIONS, {"now": now, "latest": latest})
        if any(each.background_job is not None for each in begins):
            connection.execute(_INSERT_JOBS)
        rows, histories = load_rows(connection, asking, now)
        (keys,) = connection.execute(_KEYS).fetchone() if keyed else ("[]",)
        connection.execute("DELETE FROM asking")
    found = {key[0]: key for key in _decode_keys(keys)}
    snapshots: list[Snapshot] = []
    for position, begin in enumerate(begins):
        row = rows.get(position)
        replay, key_lease = _of_key(begin, found.get(position))
        owner, until = (row[7], row[8]) if row is not None else (None, None)
        session_lease = (
            Lease(owner, begin.key.session, until or 0.0)
            if owner is not None and owner != begin.turn and now < (until or 0.0) <= latest
            else None
        )
        snapshots.append(
            Snapshot(
                read_session(begin.key, row) if row is not None else None,
                histories.get(position, ()),
                replay,
                key_lease,
                session_lease,
            )
        )
    return snapshots


def renew_lease(connection: sqlite3.Connection, begin: Begin, now: float) -> bool:
    """See `SessionStore.renew`."""
    owner = (begin.key.tenant, begin.key.subject)
    session = (*owner, begin.key.session, begin.turn)
    with transaction(connection):
        connection.execute(_RENEW_SESSION, (begin.until, *session, now))
        # A session whose first turn this is may have no row yet, and no other owner.
        renewed = not connection.execute(_LEASED_BY_OTHER, (*session, now)).fetchone()
        if begin.idempotency_key is not None:
            key = (begin.until, *owner, begin.idempotency_key, begin.turn)
            renewed &= connection.execute(_RENEW_KEY, key).rowcount > 0
        if begin.background_job is not None and begin.until is not None:
            renewed &= renew_job(connection, begin.background_job, begin.until)
    return renewed


def release_lease(connection: sqlite3.Connection, begin: Begin) -> None:
    """See `SessionStore.release`."""
    owner = (begin.key.tenant, begin.key.subject)
    with transaction(connection):
        for statement, what in (
            (_RELEASE_KEY, begin.idempotency_key),
            (_RELEASE_SESSION, begin.key.session),
            (_RELEASE_NAME, begin.key.session),
        ):
            connection.execute(statement, (*owner, what, begin.turn))


def _of_key(begin: Begin, key: _Key | None) -> tuple[Replay | None, Lease | None]:
    if key is None:
        return None, None
    _, session, fingerprint, owner, until, payload = key
    if payload is not None:
        return Replay(session, fingerprint, decode_turn(payload)), None
    if owner is None or owner == begin.turn:
        return None, None
    return None, Lease(owner, session, until or 0.0, fingerprint)
