"""SQLite statements for a whole batch at once: commits (group commit) and loads.

Each statement releases the interpreter lock and takes it back, which may wait for a switch interval
if the event loop is busy. So the number of statements hardly grows with the batch: commits are
inserted 64 at a time, what is loaded is one JSON array as a parameter
(https://sqlite.org/json1.html#jeach), and one row as the result.
"""

import functools
import sqlite3
from collections.abc import Sequence
from itertools import chain

import msgspec
from msgspec import Struct

from seawall.storage.port import Commit, Lease, Session, Snapshot
from seawall.storage.sqlite.thread import transaction
from seawall.storage.values import MAX_LOADED_BYTES, encode_state, encode_turn
from seawall.turn import SessionKey, TurnRecord

__all__ = [
    "CREATE_COMMITS_TABLE",
    "Load",
    "Row",
    "apply_commits",
    "decode_turn",
    "delete_sessions",
    "load_rows",
    "load_snapshots",
    "read_session",
]

CREATE_COMMITS_TABLE = """
CREATE TEMP TABLE incoming (
    position INTEGER PRIMARY KEY, tenant TEXT, subject TEXT, session TEXT, expected INTEGER,
    payload TEXT, agent TEXT, state TEXT, now REAL, expires_at REAL, key TEXT, fingerprint TEXT,
    owner TEXT, turn TEXT, attempt INTEGER
)
"""
_COLUMNS = 15
_MOST_AT_ONCE = 64
_SAME = "(s.tenant, s.subject, s.session) = (incoming.tenant, incoming.subject, incoming.session)"
# Of commits that were dropped, the positions of those that had been applied before.
_ALREADY_APPLIED = """
SELECT json_group_array(c.value->>0) FROM json_each(?) c JOIN turns t ON t.tenant = c.value->>1
    AND t.subject = c.value->>2 AND t.session = c.value->>3 AND t.number = (c.value->>4) + 1
    AND t.payload = c.value->>5
"""
_DROP_CONFLICTING = f"""
DELETE FROM incoming WHERE
    expected <> coalesce((SELECT s.version FROM sessions s WHERE {_SAME}
        AND s.expires_at > incoming.now), 0)
    OR EXISTS (SELECT 1 FROM sessions s WHERE {_SAME}
        AND (s.version = 0 OR s.expires_at > incoming.now)
        AND s.holder <> incoming.owner AND s.held_until > incoming.now AND s.held_until <=
        :latest)
    OR EXISTS (SELECT 1 FROM idempotency i WHERE
        (i.tenant, i.subject, i.key) = (incoming.tenant, incoming.subject, incoming.key)
        AND CASE WHEN i.number IS NULL
            THEN i.holder <> incoming.owner AND i.held_until > incoming.now
                AND i.held_until <= :latest
            ELSE EXISTS (SELECT 1 FROM sessions s WHERE (s.tenant, s.subject, s.session)
                = (i.tenant, i.subject, i.session) AND s.expires_at > incoming.now) END)
    OR incoming.attempt > 0 AND NOT EXISTS (SELECT 1 FROM pending p WHERE p.failure IS NULL
        AND (p.tenant, p.subject, p.turn, p.attempt)
            = (incoming.tenant, incoming.subject, incoming.turn, incoming.attempt))
    RETURNING position
"""  # noqa: S608 - no values are interpolated
# What is left of an expired session has its row.
_REMAINS = f"SELECT 1 FROM incoming JOIN sessions s ON {_SAME} WHERE expected = 0 LIMIT 1"  # noqa: S608
_CREATED = "(SELECT tenant, subject, session FROM incoming WHERE expected = 0)"
_UPSERT = """
INSERT INTO sessions
    SELECT tenant, subject, session, expected + 1, agent, state, now, now, expires_at, NULL, NULL
    FROM incoming WHERE true
    ON CONFLICT DO UPDATE SET version = excluded.version, agent = excluded.agent,
        state = excluded.state, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
        holder = NULL, held_until = NULL
"""
_ADD_TURNS = """
INSERT INTO turns SELECT tenant, subject, session, expected + 1, payload FROM incoming
"""
_ADD_KEYS = """
INSERT OR REPLACE INTO idempotency
    SELECT tenant, subject, key, fingerprint, session, expected + 1, NULL, NULL FROM incoming
    WHERE key IS NOT NULL
"""
_DELETE_JOBS = """
DELETE FROM pending WHERE (tenant, subject, turn) IN
    (SELECT tenant, subject, turn FROM incoming WHERE attempt > 0)
"""
_SESSIONS_OF = """
SELECT json_group_array(json_array(r.key, s.version, s.agent, s.state, s.created_at,
    s.updated_at, s.expires_at, s.holder, s.held_until))
FROM json_each(:wanted) r CROSS JOIN sessions s ON s.tenant = r.value->>0
    AND s.subject = r.value->>1 AND s.session = r.value->>2 AND s.expires_at > :now
"""
# Of a turn that is too large for any window, only the number is returned.
_TURNS_OF = f"""
SELECT json_group_array(json_array(r.key,
    CASE WHEN length(CAST(t.payload AS BLOB)) <= {MAX_LOADED_BYTES}
        THEN t.payload ELSE t.number END))
FROM json_each(:wanted) r
    CROSS JOIN sessions s ON s.tenant = r.value->>0
        AND s.subject = r.value->>1 AND s.session = r.value->>2 AND s.expires_at > :now
    CROSS JOIN turns t ON t.tenant = s.tenant AND t.subject = s.subject AND t.session = s.session
        AND t.number > s.version - (r.value->>3)
"""  # noqa: S608 - as above

_encode = msgspec.json.Encoder().encode
decode_turn = msgspec.json.Decoder(TurnRecord).decode
_decode_state = msgspec.json.Decoder(dict[str, str]).decode
Row = tuple[int, int, str | None, str, float, float, float, str | None, float | None]
"""Position in the batch, version, agent, state, three times, lease owner, end of the lease."""
_decode_rows = msgspec.json.Decoder(list[Row]).decode
_decode_turns = msgspec.json.Decoder(list[tuple[int, str | int]]).decode
_decode_positions = msgspec.json.Decoder(list[int]).decode


class Load(Struct, frozen=True):
    """One call of `SessionStore.load`."""

    key: SessionKey
    turns: int


def apply_commits(
    connection: sqlite3.Connection, commits: Sequence[Commit], now: float, latest: float
) -> set[int]:
    """Apply a batch in one durable transaction; the positions of those applied, now or before.

    No two commits of a batch may be of one session, or use one idempotency key.
    latest: see `latest_lease_end`.
    """
    rows = [
        (
            position,
            each.key.tenant,
            each.key.subject,
            each.key.session,
            each.expected_version,
            encode_turn(each.turn).decode(),
            each.agent,
            encode_state(each.state).decode(),
            now,
            each.expires_at,
            each.idempotency_key,
            each.fingerprint,
            each.lease_owner,
            each.turn.id,
            each.attempt,
        )
        for position, each in enumerate(commits)
    ]
    with transaction(connection):
        for start in range(0, len(rows), _MOST_AT_ONCE):
            _fill(connection, rows[start : start + _MOST_AT_ONCE])
        dropped = connection.execute(_DROP_CONFLICTING, {"latest": latest}).fetchall()
        if connection.execute(_REMAINS).fetchone():
            delete_sessions(connection, _CREATED)
        connection.execute(_UPSERT)
        connection.execute(_ADD_TURNS)
        if any(each.idempotency_key is not None for each in commits):
            connection.execute(_ADD_KEYS)
        if any(each.attempt for each in commits):
            connection.execute(_DELETE_JOBS)
        connection.execute("DELETE FROM incoming")
        refused = {position for (position,) in dropped}
        if refused:
            asked = _encode([row for row in rows if row[0] in refused]).decode()
            (before,) = connection.execute(_ALREADY_APPLIED, (asked,)).fetchone()
            refused.difference_update(_decode_positions(before))
    return set(range(len(commits))) - refused


def _fill(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows into `incoming`; further ones that are all null are left out."""
    size = 1 << (len(rows) - 1).bit_length()
    missing = (None,) * (_COLUMNS * (size - len(rows)))
    connection.execute(_fill_statement(size), (*chain.from_iterable(rows), *missing))


@functools.cache
def _fill_statement(size: int) -> str:
    row = f"({', '.join('?' * _COLUMNS)})"
    values = ", ".join([row] * size)
    return f"INSERT INTO incoming SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL"  # noqa: S608


def load_snapshots(
    connection: sqlite3.Connection, loads: Sequence[Load], now: float
) -> list[Snapshot]:
    """Answer a batch of loads from one state of the database, in their order."""
    wanted = [(each.key.tenant, each.key.subject, each.key.session, each.turns) for each in loads]
    connection.execute("BEGIN")
    try:
        rows, histories = load_rows(connection, _encode(wanted).decode(), now)
    finally:
        connection.execute("COMMIT")
    return [
        Snapshot(
            read_session(load.key, rows[position]) if position in rows else None,
            histories.get(position, ()),
        )
        for position, load in enumerate(loads)
    ]


def load_rows(
    connection: sqlite3.Connection, wanted: str, now: float
) -> tuple[dict[int, Row], dict[int, tuple[TurnRecord, ...]]]:
    """Session rows and newest turns by position, inside the caller's transaction.

    wanted: a JSON array of arrays that begin with tenant, subject, session, number of turns. A
    turn that is too large, and all before it, are left out.
    """
    parameters = {"wanted": wanted, "now": now}
    (found,) = connection.execute(_SESSIONS_OF, parameters).fetchone()
    if found == "[]":
        return {}, {}
    (payloads,) = connection.execute(_TURNS_OF, parameters).fetchone()
    histories: dict[int, list[TurnRecord]] = {}
    large: dict[int, int] = {}
    for position, payload in _decode_turns(payloads):
        if isinstance(payload, int):
            large[position] = max(payload, large.get(position, 0))
        else:
            histories.setdefault(position, []).append(decode_turn(payload))
    for position, last in large.items():
        histories[position] = [each for each in histories.get(position, ()) if each.number > last]
    return (
        {row[0]: row for row in _decode_rows(found)},
        {position: tuple(sorted(turns, key=_number)) for position, turns in histories.items()},
    )


def read_session(key: SessionKey, row: Row) -> Session | None:
    """The session of a row; None for a name that is leased for its first turn."""
    _, version, agent, state, created_at, updated_at, expires_at, owner, until = row
    if not version:
        return None
    lease = Lease(owner, key.session, until or 0.0) if owner is not None else None
    return Session(
        key, version, agent, _decode_state(state), created_at, updated_at, expires_at, lease
    )


def delete_sessions(
    connection: sqlite3.Connection, which: str, parameters: tuple[object, ...] = ()
) -> int:
    """Delete sessions and what belongs to them, in the caller's transaction; how many sessions.

    Keys that a turn in progress has leased are kept.

    which: SQL of a set of (tenant, subject, session).
    """
    count = 0
    for table, only in (
        ("turns", ""),
        ("idempotency", "number IS NOT NULL AND "),
        ("sessions", ""),
    ):
        count = connection.execute(
            f"DELETE FROM {table} WHERE {only}(tenant, subject, session) IN {which}",  # noqa: S608
            parameters,
        ).rowcount
    return count


def _number(turn: TurnRecord) -> int:
    return turn.number
