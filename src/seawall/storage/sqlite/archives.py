"""Whole sessions in SQLite: listed, exported, restored, deleted. Not on a turn's path."""

import sqlite3
from contextlib import closing

import msgspec

from seawall.storage.port import Archive, KeyRecord, Session
from seawall.storage.sqlite.batches import decode_turn, delete_sessions
from seawall.storage.sqlite.facts import erase_memory
from seawall.storage.sqlite.thread import transaction
from seawall.storage.values import MAX_PAGE_BYTES, encode_state, encode_turn
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = [
    "delete_session",
    "erase_subject",
    "list_sessions",
    "list_turns",
    "read_archives",
    "write_archive",
]

_COLUMNS = "tenant, subject, session, version, agent, state, created_at, updated_at, expires_at"
_OF_SUBJECTS = (
    "turns",
    "idempotency",
    "pending",
    "waits",
    "notifications",
    "audit",
    "sessions",
)
_NAMED = "(tenant, subject, session) = (?, ?, ?)"

_Row = tuple[str, str, str, int, str | None, str, float, float, float]
_decode_state = msgspec.json.Decoder(dict[str, str]).decode


def list_sessions(
    connection: sqlite3.Connection, owner: Principal, before: str | None, limit: int, now: float
) -> list[Session]:
    """The owner's sessions whose id comes before `before`, last first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM sessions WHERE tenant = ? AND subject = ? "  # noqa: S608
        "AND expires_at > ? AND version > 0 AND (?4 IS NULL OR session < ?4) "
        "ORDER BY session DESC LIMIT ?",
        (owner.tenant, owner.subject, now, before, limit),
    )
    return [_session(row) for row in rows]


def list_turns(
    connection: sqlite3.Connection, key: SessionKey, before: int, limit: int
) -> tuple[tuple[TurnRecord, ...], bool]:
    """The session's turns with a number less than `before`, newest first; whether there are more.

    Up to `limit`, and no more once they have reached the size of a page.
    """
    rows = connection.execute(
        f"SELECT payload FROM turns WHERE {_NAMED} AND number < ? "  # noqa: S608
        "ORDER BY number DESC LIMIT ?",
        (key.tenant, key.subject, key.session, before, limit + 1),
    )
    found: list[TurnRecord] = []
    size = 0
    with closing(rows):
        for (payload,) in rows:
            if len(found) == limit or size >= MAX_PAGE_BYTES:
                return tuple(found), True
            found.append(decode_turn(payload))
            size += len(payload)
    return tuple(found), False


def delete_session(connection: sqlite3.Connection, key: SessionKey, now: float) -> bool:
    """Delete a session with everything that belongs to it; False when there is none."""
    name = (key.tenant, key.subject, key.session)
    with transaction(connection):
        found = connection.execute(
            f"SELECT 1 FROM sessions WHERE {_NAMED} AND expires_at > ? AND version > 0",  # noqa: S608
            (*name, now),
        ).fetchone()
        if found:
            delete_sessions(connection, "(VALUES (?, ?, ?))", name)
            for table in ("pending", "waits", "notifications"):
                connection.execute(f"DELETE FROM {table} WHERE {_NAMED}", name)  # noqa: S608
    return bool(found)


def erase_subject(connection: sqlite3.Connection, owner: Principal, now: float) -> int:
    """Delete everything of a subject; the number of its sessions."""
    named = (owner.tenant, owner.subject)
    with transaction(connection):
        (count,) = connection.execute(
            "SELECT count(*) FROM sessions WHERE tenant = ? AND subject = ? "
            "AND version > 0 AND expires_at > ?",
            (*named, now),
        ).fetchone()
        for table in _OF_SUBJECTS:
            connection.execute(
                f"DELETE FROM {table} WHERE tenant = ? AND subject = ?",  # noqa: S608
                named,
            )
        erase_memory(connection, owner)
    return int(count)


def read_archives(
    connection: sqlite3.Connection, after: tuple[str, str, str], limit: int, now: float
) -> list[Archive]:
    """Whole sessions of all owners, in the order of their names."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM sessions WHERE (tenant, subject, session) > (?, ?, ?) "  # noqa: S608
        "AND version > 0 AND expires_at > ? ORDER BY tenant, subject, session LIMIT ?",
        (*after, now, limit),
    ).fetchall()
    return [_archive(connection, row) for row in rows]


def write_archive(connection: sqlite3.Connection, archive: Archive, now: float) -> bool:
    """Store a whole session, unless there is one of its name."""
    session = archive.session
    name = (session.key.tenant, session.key.subject, session.key.session)
    with transaction(connection):
        exists = connection.execute(
            f"SELECT 1 FROM sessions WHERE {_NAMED} AND expires_at > ?",  # noqa: S608
            (*name, now),
        ).fetchone()
        if not exists:
            _insert(connection, archive, name)
    return not exists


def _insert(connection: sqlite3.Connection, archive: Archive, name: tuple[str, str, str]) -> None:
    session = archive.session
    delete_sessions(connection, "(VALUES (?, ?, ?))", name)
    connection.execute(
        f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            *name,
            session.version,
            session.agent,
            encode_state(session.state).decode(),
            session.created_at,
            session.updated_at,
            session.expires_at,
        ),
    )
    connection.executemany(
        "INSERT INTO turns VALUES (?, ?, ?, ?, ?)",
        [(*name, turn.number, encode_turn(turn).decode()) for turn in archive.turns],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
        [
            (name[0], name[1], each.key, each.fingerprint, name[2], each.number)
            for each in archive.keys
        ],
    )


def _archive(connection: sqlite3.Connection, row: _Row) -> Archive:
    name = row[:3]
    payloads = connection.execute(
        f"SELECT payload FROM turns WHERE {_NAMED} ORDER BY number",  # noqa: S608
        name,
    )
    turns = tuple(decode_turn(payload) for (payload,) in payloads)
    keys = connection.execute(
        f"SELECT key, fingerprint, number FROM idempotency WHERE {_NAMED} "  # noqa: S608
        "AND number IS NOT NULL ORDER BY number",
        name,
    )
    return Archive(_session(row), turns, tuple(KeyRecord(*each) for each in keys))


def _session(row: _Row) -> Session:
    tenant, subject, session, version, agent, state, created_at, updated_at, expires_at = row
    key = SessionKey(tenant, subject, session)
    return Session(key, version, agent, _decode_state(state), created_at, updated_at, expires_at)
