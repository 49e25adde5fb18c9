"""Background turns in SQLite: accepted, renewed, claimed, handed over, failed."""

import sqlite3

import msgspec

from seawall.storage.port import BackgroundJob, JobFailure
from seawall.storage.sqlite.thread import transaction
from seawall.turn import Principal

__all__ = [
    "INSERT_JOBS",
    "claim_job",
    "fail_job",
    "find_job",
    "find_orphaned_jobs",
    "hand_over_job",
    "renew_job",
]

# Of a batch of turns that begin, those that have leased their session now.
INSERT_JOBS = """
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
