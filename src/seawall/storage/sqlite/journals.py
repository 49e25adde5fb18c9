"""Turns with effects in SQLite: journals, what waits in them, and their audit."""

import sqlite3

import msgspec
from msgspec import UNSET, structs

from seawall.errors import SessionConflict
from seawall.storage.audit import chained
from seawall.storage.port import AuditRecord, JournalWrite, Wait
from seawall.storage.sqlite.batches import decode_turn, delete_sessions
from seawall.storage.sqlite.thread import transaction
from seawall.storage.values import encode_job, encode_record, encode_state, encode_turn
from seawall.turn import Decision, SessionKey, TurnRecord

__all__ = [
    "append_audit",
    "decide",
    "find_wait",
    "list_audit",
    "list_waits",
    "write_journal",
]

_NAMED = "(tenant, subject, session) = (?, ?, ?)"
_AUDIT_NAME = tuple[str, str, str, int]

_decode_wait = msgspec.json.Decoder(Wait).decode
_decode_audit = msgspec.json.Decoder(AuditRecord).decode


def write_journal(
    connection: sqlite3.Connection, write: JournalWrite, now: float, latest: float
) -> None:
    """See `SessionStore.journal`. latest: see `latest_lease_end`.

    Raises:
        SessionConflict: as there.
    """
    with transaction(connection):
        if _is_applied(connection, write):
            return
        if _revision(write.turn) == 1:
            _add_turn(connection, write, now, latest)
        else:
            _replace_turn(connection, write, now)
        _update_job(connection, write)
        _update_waits(connection, write)
        for record in write.audit:
            _append(connection, record)


def _is_applied(connection: sqlite3.Connection, write: JournalWrite) -> bool:
    stored = _stored_turn(connection, write.key, write.turn.number)
    if stored is None or stored.journal is UNSET or write.turn.journal is UNSET:
        return False
    return (stored.id, stored.journal.revision, stored.journal.writer) == (
        write.turn.id,
        write.turn.journal.revision,
        write.turn.journal.writer,
    )


def _stored_turn(connection: sqlite3.Connection, key: SessionKey, number: int) -> TurnRecord | None:
    row = connection.execute(
        f"SELECT payload FROM turns WHERE {_NAMED} AND number = ?",  # noqa: S608
        (*_name(key), number),
    ).fetchone()
    return decode_turn(row[0]) if row is not None else None


def _add_turn(
    connection: sqlite3.Connection, write: JournalWrite, now: float, latest: float
) -> None:
    """Add the turn to its session, which it may open, and bind its key."""
    name, expected = _name(write.key), write.turn.number - 1
    row = connection.execute(
        f"SELECT version, expires_at, holder, held_until FROM sessions WHERE {_NAMED}",  # noqa: S608
        name,
    ).fetchone()
    version, expires_at, holder, until = row or (0, 0.0, None, None)
    leased = holder not in (None, write.lease_owner) and now < (until or 0.0) <= latest
    if leased or (version if expires_at > now else 0) != expected:
        raise _conflict()
    if write.idempotency_key is not None and _is_taken(connection, write, now, latest):
        raise _conflict()
    if expected == 0:
        delete_sessions(connection, "(VALUES (?, ?, ?))", name)
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET version = excluded.version, agent = excluded.agent, "
        "updated_at = excluded.updated_at, expires_at = excluded.expires_at, "
        "holder = excluded.holder, held_until = excluded.held_until",
        (
            *name,
            write.turn.number,
            write.agent,
            encode_state(write.state or {}).decode(),
            now,
            now,
            write.expires_at,
            write.lease_owner if write.until is not None else None,
            write.until,
        ),
    )
    if write.state is not None:
        _set_state(connection, write)
    connection.execute(
        "INSERT INTO turns VALUES (?, ?, ?, ?, ?)",
        (*name, write.turn.number, encode_turn(write.turn).decode()),
    )
    if write.idempotency_key is not None:
        connection.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
            (
                write.key.tenant,
                write.key.subject,
                write.idempotency_key,
                write.fingerprint,
                write.key.session,
                write.turn.number,
            ),
        )


def _is_taken(
    connection: sqlite3.Connection, write: JournalWrite, now: float, latest: float
) -> bool:
    """Whether another turn has the key, or has leased it."""
    row = connection.execute(
        "SELECT i.number, i.holder, i.held_until, s.expires_at FROM idempotency i "
        "LEFT JOIN sessions s ON (s.tenant, s.subject, s.session) "
        "= (i.tenant, i.subject, i.session) WHERE (i.tenant, i.subject, i.key) = (?, ?, ?)",
        (write.key.tenant, write.key.subject, write.idempotency_key),
    ).fetchone()
    if row is None:
        return False
    number, holder, until, session_ends = row
    if number is None:
        return holder != write.lease_owner and now < (until or 0.0) <= latest
    return session_ends is not None and session_ends > now


def _replace_turn(connection: sqlite3.Connection, write: JournalWrite, now: float) -> None:
    name, turn = _name(write.key), write.turn
    stored = _stored_turn(connection, write.key, turn.number)
    if stored is None or stored.id != turn.id or _revision(stored) != _revision(turn) - 1:
        raise _conflict()
    changed = connection.execute(
        "UPDATE sessions SET agent = ?, updated_at = ?, expires_at = max(expires_at, ?), "  # noqa: S608
        f"holder = ?, held_until = ? WHERE {_NAMED} AND holder = ? AND expires_at > ?",
        (
            write.agent,
            now,
            write.expires_at,
            write.lease_owner if write.until is not None else None,
            write.until,
            *name,
            write.lease_owner,
            now,
        ),
    ).rowcount
    if not changed:
        raise _conflict()
    if write.state is not None:
        _set_state(connection, write)
    connection.execute(
        f"UPDATE turns SET payload = ? WHERE {_NAMED} AND number = ?",  # noqa: S608
        (encode_turn(turn).decode(), *name, turn.number),
    )


def _set_state(connection: sqlite3.Connection, write: JournalWrite) -> None:
    connection.execute(
        f"UPDATE sessions SET state = ? WHERE {_NAMED}",  # noqa: S608
        (encode_state(write.state or {}).decode(), *_name(write.key)),
    )


def _update_job(connection: sqlite3.Connection, write: JournalWrite) -> None:
    key, turn = write.key, write.turn.id
    if write.attempt:
        newest = connection.execute(
            "SELECT 1 FROM pending WHERE failure IS NULL "
            "AND (tenant, subject, turn, attempt) = (?, ?, ?, ?)",
            (key.tenant, key.subject, turn, write.attempt),
        ).fetchone()
        if newest is None:
            raise _conflict()
    if write.ends_job:
        connection.execute(
            "DELETE FROM pending WHERE (tenant, subject, turn) = (?, ?, ?)",
            (key.tenant, key.subject, turn),
        )
    if (job := write.sleeps) is not None:
        connection.execute(
            "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, 0, NULL, NULL, ?)",
            (
                key.tenant,
                key.subject,
                turn,
                key.session,
                encode_job(job).decode(),
                job.attempt,
                job.handovers,
                write.sleeps_until,
            ),
        )


def _update_waits(connection: sqlite3.Connection, write: JournalWrite) -> None:
    tenant = write.key.tenant
    for each in write.undecided:
        undecided = connection.execute(
            "SELECT 1 FROM waits WHERE (tenant, id) = (?, ?) AND NOT decided", (tenant, each)
        ).fetchone()
        if undecided is None:
            raise _conflict()
    connection.executemany(
        "DELETE FROM waits WHERE (tenant, id) = (?, ?)", [(tenant, each) for each in write.ended]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO waits VALUES (?, ?, ?, ?, ?, ?, ?)",
        [_wait_row(each) for each in write.waits],
    )


def _wait_row(wait: Wait) -> tuple[str, str, str, str, str, bool, float]:
    record = encode_record(wait).decode()
    decided = wait.decision is not None
    return wait.key.tenant, wait.id, *_name(wait.key)[1:], record, decided, wait.expires_at


def list_waits(
    connection: sqlite3.Connection, tenant: str, prefix: str, after: str, limit: int
) -> list[Wait]:
    """Waits of a tenant whose id begins with a prefix and comes after `after`."""
    rows = connection.execute(
        "SELECT record FROM waits WHERE tenant = ? AND id > ? AND id >= ? AND id < ? "
        "ORDER BY id LIMIT ?",
        (tenant, after, prefix, prefix + "\U0010ffff", limit),
    )
    return [_decode_wait(record) for (record,) in rows]


def find_wait(connection: sqlite3.Connection, tenant: str, wait: str) -> Wait | None:
    """See `SessionStore.find_wait`."""
    row = connection.execute(
        "SELECT record FROM waits WHERE (tenant, id) = (?, ?)", (tenant, wait)
    ).fetchone()
    return _decode_wait(row[0]) if row is not None else None


def decide(
    connection: sqlite3.Connection, wait: Wait, decision: Decision, audit: AuditRecord
) -> bool:
    """See `SessionStore.decide`."""
    with transaction(connection):
        stored = find_wait(connection, wait.key.tenant, wait.id)
        if stored is None or stored.decision is not None:
            return False
        decided = structs.replace(stored, decision=decision)
        connection.execute(
            "INSERT OR REPLACE INTO waits VALUES (?, ?, ?, ?, ?, ?, ?)", _wait_row(decided)
        )
        _append(connection, audit)
        connection.execute(
            "UPDATE pending SET due = 0 WHERE due IS NOT NULL "
            "AND (tenant, subject, turn) = (?, ?, ?)",
            (wait.key.tenant, wait.key.subject, wait.turn),
        )
    return True


def append_audit(connection: sqlite3.Connection, record: AuditRecord) -> None:
    """See `SessionStore.append_audit`."""
    with transaction(connection):
        _append(connection, record)


def _append(connection: sqlite3.Connection, record: AuditRecord) -> None:
    row = connection.execute(
        f"SELECT record FROM audit WHERE {_NAMED} ORDER BY number DESC LIMIT 1",  # noqa: S608
        _name(record.key),
    ).fetchone()
    record = _decode_audit(encode_record(record))  # as it will be read, so that its hash is right
    chain = chained(record, _decode_audit(row[0]) if row is not None else None)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
        (*_name(chain.key), chain.number, chain.at, encode_record(chain).decode()),
    )


def list_audit(
    connection: sqlite3.Connection, tenant: str | None, after: _AUDIT_NAME, limit: int
) -> list[AuditRecord]:
    """Audit records by session and number, after a name of these."""
    rows = connection.execute(
        "SELECT record FROM audit WHERE (tenant, subject, session, number) > (?, ?, ?, ?) "
        "AND (?5 IS NULL OR tenant = ?5) ORDER BY tenant, subject, session, number LIMIT ?6",
        (*after, tenant, limit),
    )
    return [_decode_audit(record) for (record,) in rows]


def _name(key: SessionKey) -> tuple[str, str, str]:
    return key.tenant, key.subject, key.session


def _revision(turn: TurnRecord) -> int:
    return turn.journal.revision if turn.journal is not UNSET else 0


def _conflict() -> SessionConflict:
    return SessionConflict("Another turn, or another attempt at this one, was first.")
