"""Promised turns in SQLite: who runs them, who takes them over, how they failed."""

import sqlite3

import msgspec

from seawall.sessions.port import Failure, Pending
from seawall.turn import Principal

__all__ = [
    "KEEP_PROMISES",
    "claim_pending",
    "fail_pending",
    "find_orphans",
    "find_promised",
    "hand_over_pending",
    "purge_failures",
    "renew_pending",
]

# Of a batch of turns that begin, those that hold their session now.
KEEP_PROMISES = """
INSERT INTO pending
    SELECT a.tenant, a.subject, a.turn, a.session, a.pending, 1, 0, a.until, NULL, NULL
    FROM asking a JOIN sessions s ON (s.tenant, s.subject, s.session, s.holder)
        = (a.tenant, a.subject, a.session, a.turn)
    WHERE a.pending IS NOT NULL AND a.until IS NOT NULL
    ON CONFLICT DO NOTHING
"""
_MINE = "(tenant, subject, turn, attempt) = (?, ?, ?, ?) AND failure IS NULL"

_encode = msgspec.json.Encoder().encode
_decode_pending = msgspec.json.Decoder(Pending).decode
_decode_failure = msgspec.json.Decoder(Failure).decode


def find_orphans(
    connection: sqlite3.Connection, limit: int, now: float, latest: float
) -> tuple[Pending, ...]:
    """See `SessionStore.orphans`. latest: see `latest_end`."""
    rows = connection.execute(
        "SELECT record, attempt, handed FROM pending WHERE failure IS NULL "
        "AND (held_until <= ? OR held_until > ?) ORDER BY held_until LIMIT ?",
        (now, latest, limit),
    )
    return tuple(_pending(*row) for row in rows)


def find_promised(
    connection: sqlite3.Connection, owner: Principal, turn: str, now: float
) -> Pending | Failure | None:
    """See `SessionStore.promised`."""
    row = connection.execute(
        "SELECT record, attempt, handed, failure FROM pending "
        "WHERE (tenant, subject, turn) = (?, ?, ?) AND (failure IS NULL OR failure_ends > ?)",
        (owner.tenant, owner.subject, turn, now),
    ).fetchone()
    if row is None:
        return None
    return _pending(*row[:3]) if row[3] is None else _decode_failure(row[3])


def claim_pending(
    connection: sqlite3.Connection, pending: Pending, until: float, now: float, latest: float
) -> Pending | None:
    """See `SessionStore.claim`. latest: see `latest_end`."""
    key, request = pending.key, pending.request
    claimed = msgspec.structs.replace(pending, attempt=pending.attempt + 1)
    names = (claimed.holder, until, key.tenant, key.subject)
    connection.execute("BEGIN IMMEDIATE")
    try:
        won = connection.execute(
            f"UPDATE pending SET attempt = attempt + 1, held_until = ? WHERE {_MINE} "  # noqa: S608
            "AND (held_until <= ? OR held_until > ?)",
            (until, *_named(pending), now, latest),
        ).rowcount
        if won:
            connection.execute(
                "UPDATE sessions SET holder = ?1, held_until = ?2, "
                "expires_at = CASE version WHEN 0 THEN ?2 ELSE expires_at END "
                "WHERE (tenant, subject, session, holder) = (?3, ?4, ?5, ?6)",
                (*names, key.session, pending.holder),
            )
            connection.execute(
                "UPDATE idempotency SET holder = ?, held_until = ? "
                "WHERE (tenant, subject, key, holder) = (?, ?, ?, ?) AND number IS NULL",
                (*names, request.idempotency_key, pending.holder),
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return claimed if won else None


def renew_pending(connection: sqlite3.Connection, pending: Pending, until: float) -> bool:
    """Run on until then, within the caller's transaction; False when it was taken over."""
    return bool(
        connection.execute(
            f"UPDATE pending SET held_until = ? WHERE {_MINE}",  # noqa: S608
            (until, *_named(pending)),
        ).rowcount
    )


def hand_over_pending(connection: sqlite3.Connection, pending: Pending) -> None:
    """See `SessionStore.hand_over`."""
    connection.execute(
        f"UPDATE pending SET held_until = 0, handed = handed + 1 WHERE {_MINE}",  # noqa: S608
        _named(pending),
    )


def fail_pending(
    connection: sqlite3.Connection, pending: Pending, failure: Failure, until: float
) -> None:
    """See `SessionStore.fail`. What was asked is not kept."""
    connection.execute(
        "UPDATE pending SET record = '', failure = ?, failure_ends = ? "  # noqa: S608
        f"WHERE {_MINE}",
        (_encode(failure).decode(), until, *_named(pending)),
    )


def purge_failures(connection: sqlite3.Connection, now: float) -> None:
    """Forget the reasons whose time is over."""
    connection.execute(
        "DELETE FROM pending WHERE failure IS NOT NULL AND failure_ends <= ?", (now,)
    )


def _named(pending: Pending) -> tuple[str, str, str, int]:
    key = pending.key
    return key.tenant, key.subject, pending.request.id, pending.attempt


def _pending(record: str, attempt: int, handed: int) -> Pending:
    return msgspec.structs.replace(_decode_pending(record), attempt=attempt, handed=handed)
