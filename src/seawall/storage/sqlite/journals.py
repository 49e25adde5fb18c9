"""Turns with effects in SQLite: their journals, waits and audit records."""

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType, structs

from seawall.errors import SessionConflict
from seawall.storage.audit import chained, decode_audit
from seawall.storage.port import AuditRecord, JournalWrite, Wait, latest_lease_end
from seawall.storage.sqlite.batches import delete_sessions
from seawall.storage.sqlite.notifications import write_notifications
from seawall.storage.sqlite.thread import transaction
from seawall.storage.values import encode_job, encode_record, encode_state, encode_turn
from seawall.turn import Decision, SessionKey

__all__ = ["append_audit", "apply_journals", "decide", "find_wait", "list_audit", "list_waits"]

_NAMED = "(tenant, subject, session) = (?, ?, ?)"
_OPEN = """
INSERT INTO sessions VALUES (?1, ?2, ?3, ?4, ?5, coalesce(?6, '{}'), ?7, ?7, ?8, ?9, ?10)
    ON CONFLICT DO UPDATE SET version = excluded.version, agent = excluded.agent,
        state = coalesce(?6, state), updated_at = excluded.updated_at,
        expires_at = excluded.expires_at, holder = excluded.holder, held_until = excluded.held_until
"""
_KEY_IS_TAKEN = """
SELECT 1 FROM idempotency i WHERE (i.tenant, i.subject, i.key) = (?1, ?2, ?3)
    AND CASE WHEN i.number IS NULL
        THEN i.holder <> ?4 AND i.held_until > ?5 AND i.held_until <= ?6
        ELSE EXISTS (SELECT 1 FROM sessions s WHERE (s.tenant, s.subject, s.session)
            = (i.tenant, i.subject, i.session) AND s.expires_at > ?5) END
"""
_ATTEMPT = """
SELECT 1 FROM pending WHERE (tenant, subject, turn, attempt) = (?, ?, ?, ?)
    AND failure IS NULL AND wakes_at IS NULL
"""


_STORED = """
SELECT s.version, s.holder, s.expires_at, t.payload, s.held_until FROM sessions s
    LEFT JOIN turns t ON (t.tenant, t.subject, t.session, t.number)
        = (s.tenant, s.subject, s.session, ?4)
    WHERE (s.tenant, s.subject, s.session) = (?1, ?2, ?3)
"""


class _Session(Struct, frozen=True):
    version: int = 0
    holder: str | None = None
    until: float | None = None


_Position = tuple[str, str, str, int]


class _StoredJournal(Struct):
    """The part of a stored journal by which the next revision is judged."""

    revision: int


class _StoredTurn(Struct):
    """The part of a stored turn by which its next revision is judged."""

    id: str
    journal: _StoredJournal | UnsetType = UNSET


_decode_turn = msgspec.json.Decoder(_StoredTurn).decode
_decode_wait = msgspec.json.Decoder(Wait).decode
_decode_decision = msgspec.json.Decoder(Decision).decode


def apply_journals(
    connection: sqlite3.Connection,
    writes: Sequence[JournalWrite],
    now: float,
    lease_seconds: float,
    keep_until: float,
) -> list[SessionConflict | None]:
    """Apply a batch, in its order, in one durable transaction; see `SessionStore.journal`.

    Args:
        connection: Not in a transaction.
        writes: Checked.
        now: Unix seconds.
        lease_seconds: Of leases that are not asked for by one of these.
        keep_until: When their audit records may be deleted, in Unix seconds.

    Returns:
        For each write None if it is applied, else the condition that is not met.
    """
    with transaction(connection):
        return [_apply(connection, each, now, lease_seconds, keep_until) for each in writes]


def _apply(
    connection: sqlite3.Connection,
    write: JournalWrite,
    now: float,
    lease_seconds: float,
    keep_until: float,
) -> SessionConflict | None:
    """Apply one write; one whose conditions are not met has written nothing."""
    payload = encode_turn(write.turn).decode()
    key = write.key
    name = (key.tenant, key.subject, key.session)
    row = connection.execute(_STORED, (*name, write.turn.number)).fetchone()
    live = row is not None and row[2] > now
    stored: str | None = row[3] if live else None
    if stored == payload:
        return None  # applied before
    session = _Session(row[0], row[1], row[4]) if live else _Session()
    if write.turn.journal is not UNSET and write.turn.journal.revision > 1:
        permitted = live and _follows(write, session, stored)
    else:
        latest = latest_lease_end(now, max(lease_seconds, (write.until or now) - now))
        permitted = _can_open(connection, write, session, now, latest)
    if not permitted or _is_fenced(connection, write):
        return SessionConflict("Another turn, or another attempt at this one, was first.")
    if row is not None and not live:  # an expired session of that name, and what is left of it
        delete_sessions(connection, "(VALUES (?, ?, ?))", name)
    _write_turn(connection, write, session, payload, now)
    _write_job(connection, write)
    _write_waits(connection, write)
    if write.notifications:
        write_notifications(connection, write.notifications)
    for record in write.audit:
        append_audit(connection, record, keep_until)
    return None


def list_waits(
    connection: sqlite3.Connection, tenant: str, turn: str | None, after: str, limit: int
) -> list[Wait]:
    """Waits whose id comes after `after`, first first."""
    low, high = ("", "\U0010ffff") if turn is None else (f"{turn}.", f"{turn}/")  # "/" follows "."
    rows = connection.execute(
        "SELECT record, decision FROM waits WHERE tenant = ? AND id > ? AND id >= ? AND id < ? "
        "ORDER BY id LIMIT ?",
        (tenant, after, low, high, limit),
    )
    return [_read_wait(*row) for row in rows]


def find_wait(connection: sqlite3.Connection, tenant: str, wait: str) -> Wait | None:
    """See `SessionStore.find_wait`."""
    row = connection.execute(
        "SELECT record, decision FROM waits WHERE (tenant, id) = (?, ?)", (tenant, wait)
    ).fetchone()
    return _read_wait(*row) if row else None


def decide(
    connection: sqlite3.Connection,
    wait: Wait,
    decision: Decision,
    audit: AuditRecord,
    keep_until: float,
) -> bool:
    """See `SessionStore.decide`; in the caller's transaction."""
    key = wait.key
    decided = connection.execute(
        "UPDATE waits SET decision = ? WHERE (tenant, id) = (?, ?) AND decision IS NULL",
        (encode_record(decision).decode(), key.tenant, wait.id),
    ).rowcount
    if not decided:
        return False
    append_audit(connection, audit, keep_until)
    connection.execute(
        "UPDATE pending SET wakes_at = 0 "
        "WHERE (tenant, subject, turn) = (?, ?, ?) AND wakes_at IS NOT NULL",
        (key.tenant, key.subject, wait.turn),
    )
    return True


def append_audit(connection: sqlite3.Connection, record: AuditRecord, keep_until: float) -> None:
    """Append to the chain of the record's session; in the caller's transaction."""
    name = _name(record.key)
    last = connection.execute(
        f"SELECT record FROM audit WHERE {_NAMED} ORDER BY number DESC LIMIT 1",  # noqa: S608
        name,
    ).fetchone()
    new = chained(record, decode_audit(last[0]) if last else None)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)",
        (*name, new.number, encode_record(new).decode(), keep_until),
    )


def list_audit(
    connection: sqlite3.Connection, tenant: str | None, after: _Position, limit: int
) -> list[AuditRecord]:
    """Audit records after that position, in the order of their sessions' names."""
    only, names = ("", ()) if tenant is None else ("tenant = ? AND ", (tenant,))
    rows = connection.execute(
        f"SELECT record FROM audit WHERE {only}(tenant, subject, session, number) "  # noqa: S608
        "> (?, ?, ?, ?) ORDER BY tenant, subject, session, number LIMIT ?",
        (*names, *after, limit),
    )
    return [decode_audit(record) for (record,) in rows]


def _follows(write: JournalWrite, session: _Session, stored: str | None) -> bool:
    """Whether this is the revision after the stored one, by the owner of the lease."""
    if stored is None or session.holder != write.lease_owner:
        return False
    before = _decode_turn(stored)
    revision = before.journal.revision if before.journal is not UNSET else 0
    return before.id == write.turn.id and revision == _revision(write) - 1


def _can_open(
    connection: sqlite3.Connection,
    write: JournalWrite,
    session: _Session,
    now: float,
    latest: float,
) -> bool:
    """Whether the turn can be added to the session, and bind its key."""
    leased = session.holder is not None and now < (session.until or 0.0) <= latest
    if session.version != write.turn.number - 1 or (leased and session.holder != write.lease_owner):
        return False
    if write.idempotency_key is None:
        return True
    key = (write.key.tenant, write.key.subject, write.idempotency_key)
    return not connection.execute(_KEY_IS_TAKEN, (*key, write.lease_owner, now, latest)).fetchone()


def _is_fenced(connection: sqlite3.Connection, write: JournalWrite) -> bool:
    """Whether a newer attempt, or a decision, came before."""
    key = write.key
    attempt = (key.tenant, key.subject, write.turn.id, write.attempt)
    if write.attempt and not connection.execute(_ATTEMPT, attempt).fetchone():
        return True
    return not all(
        connection.execute(
            "SELECT 1 FROM waits WHERE (tenant, id) = (?, ?) AND decision IS NULL",
            (key.tenant, wait),
        ).fetchone()
        for wait in write.undecided
    )


def _revision(write: JournalWrite) -> int:
    return write.turn.journal.revision if write.turn.journal is not UNSET else 0


def _write_turn(
    connection: sqlite3.Connection,
    write: JournalWrite,
    session: _Session,
    payload: str,
    now: float,
) -> None:
    name, number = _name(write.key), write.turn.number
    connection.execute(
        _OPEN,
        (
            *name,
            max(number, session.version),
            write.agent,
            encode_state(write.state).decode() if write.state is not None else None,
            now,
            write.expires_at,
            write.lease_owner if write.until is not None else None,
            write.until,
        ),
    )
    connection.execute(
        "INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?, ?)", (*name, number, payload)
    )
    if write.idempotency_key is not None and _revision(write) == 1:
        connection.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
            (*name[:2], write.idempotency_key, write.fingerprint or "", name[2], number),
        )


def _write_job(connection: sqlite3.Connection, write: JournalWrite) -> None:
    key, job = write.key, write.sleeps
    if job is not None:
        connection.execute(
            "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, 0, NULL, NULL, ?)",
            (
                key.tenant,
                key.subject,
                write.turn.id,
                key.session,
                encode_job(job).decode(),
                job.attempt,
                job.handovers,
                write.sleeps_until,
            ),
        )
    elif write.ends_job:
        connection.execute(
            "DELETE FROM pending WHERE (tenant, subject, turn) = (?, ?, ?)",
            (key.tenant, key.subject, write.turn.id),
        )


def _write_waits(connection: sqlite3.Connection, write: JournalWrite) -> None:
    key = write.key
    for wait in write.ended:
        connection.execute(
            "DELETE FROM waits WHERE (tenant, id) = (?, ?)",
            (key.tenant, wait),
        )
    for each in write.waits:
        decision = each.decision
        connection.execute(
            "INSERT OR REPLACE INTO waits VALUES (?, ?, ?, ?, ?, ?)",
            (
                key.tenant,
                each.id,
                key.subject,
                key.session,
                encode_record(structs.replace(each, decision=None)).decode(),
                encode_record(decision).decode() if decision is not None else None,
            ),
        )


def _read_wait(record: str, decision: str | None) -> Wait:
    wait = _decode_wait(record)
    if decision is None:
        return wait
    return structs.replace(wait, decision=_decode_decision(decision))


def _name(key: SessionKey) -> tuple[str, str, str]:
    return key.tenant, key.subject, key.session
