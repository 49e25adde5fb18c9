"""SQLite statements that serve a whole batch at once.

Each statement hands the interpreter lock over and takes it back, which under a busy event loop
may wait for a switch interval. So the number of statements does not grow with the batch: the
batch goes in as one JSON array (https://sqlite.org/json1.html#jeach) and comes out as one row.
"""

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.sessions.port import Commit, Replay, Session, Snapshot
from seawall.turn import SessionKey, TurnRecord

__all__ = ["Load", "apply_commits", "load_snapshots", "prepare", "purge_expired"]

_VERSION = 1

_SCHEMA = """
CREATE TABLE sessions (
    tenant TEXT, subject TEXT, session TEXT,
    version INTEGER NOT NULL, agent TEXT, state TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (tenant, subject, session)
) WITHOUT ROWID;
CREATE INDEX sessions_by_use ON sessions (tenant, subject, updated_at DESC, session);
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE TABLE turns (
    tenant TEXT, subject TEXT, session TEXT, number INTEGER, payload TEXT NOT NULL,
    PRIMARY KEY (tenant, subject, session, number)
) WITHOUT ROWID;
CREATE TABLE idempotency (
    tenant TEXT, subject TEXT, key TEXT,
    fingerprint TEXT NOT NULL, session TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_session ON idempotency (tenant, subject, session);
"""

_INCOMING = """
CREATE TEMP TABLE incoming (
    position INTEGER PRIMARY KEY, tenant TEXT, subject TEXT, session TEXT, expected INTEGER,
    payload TEXT, agent TEXT, state TEXT, now REAL, expires_at REAL, key TEXT, fingerprint TEXT
)
"""
_FILL = """
INSERT INTO incoming SELECT key, value->>0, value->>1, value->>2, value->>3, value->>4, value->>5,
    value->>6, value->>7, value->>8, value->>9, value->>10 FROM json_each(?)
"""
_SAME = "(s.tenant, s.subject, s.session) = (incoming.tenant, incoming.subject, incoming.session)"
_LOSERS = f"""
DELETE FROM incoming WHERE
    expected <> coalesce((SELECT s.version FROM sessions s WHERE {_SAME}
        AND s.expires_at > incoming.now), 0)
    OR EXISTS (SELECT 1 FROM idempotency i WHERE
        (i.tenant, i.subject, i.key) = (incoming.tenant, incoming.subject, incoming.key)
        AND EXISTS (SELECT 1 FROM sessions s WHERE (s.tenant, s.subject, s.session)
            = (i.tenant, i.subject, i.session) AND s.expires_at > incoming.now))
"""  # noqa: S608 - no value of anybody's is put in here
_RENEWED = "(SELECT tenant, subject, session FROM incoming WHERE expected = 0)"
_UPSERT = """
INSERT INTO sessions
    SELECT tenant, subject, session, expected + 1, agent, state, now, now, expires_at
    FROM incoming WHERE true
    ON CONFLICT DO UPDATE SET version = excluded.version, agent = excluded.agent,
        state = excluded.state, updated_at = excluded.updated_at, expires_at = excluded.expires_at
"""
_ADD_TURNS = """
INSERT INTO turns SELECT tenant, subject, session, expected + 1, payload FROM incoming
"""
_ADD_KEYS = """
INSERT OR REPLACE INTO idempotency
    SELECT tenant, subject, key, fingerprint, session, expected + 1 FROM incoming
    WHERE key IS NOT NULL
"""
_WINNERS = "SELECT json_group_array(position) FROM incoming"

_SESSIONS_OF = """
SELECT json_group_array(json_array(r.key, s.version, s.agent, s.state, s.created_at,
    s.updated_at, s.expires_at))
FROM json_each(:wanted) r CROSS JOIN sessions s ON s.tenant = r.value->>0
    AND s.subject = r.value->>1 AND s.session = r.value->>2 AND s.expires_at > :now
"""
_TURNS_OF = """
SELECT json_group_array(json_array(r.key, t.payload)) FROM json_each(:wanted) r
    CROSS JOIN sessions s ON s.tenant = r.value->>0
        AND s.subject = r.value->>1 AND s.session = r.value->>2 AND s.expires_at > :now
    CROSS JOIN turns t ON t.tenant = s.tenant AND t.subject = s.subject AND t.session = s.session
        AND t.number > s.version - (r.value->>3)
"""
_REPLAYS_OF = """
SELECT json_group_array(json_array(r.key, i.session, i.fingerprint, t.payload))
FROM json_each(:wanted) r
    CROSS JOIN idempotency i ON i.tenant = r.value->>0 AND i.subject = r.value->>1
        AND i.key = r.value->>4
    CROSS JOIN sessions s ON s.tenant = i.tenant AND s.subject = i.subject
        AND s.session = i.session AND s.expires_at > :now
    CROSS JOIN turns t ON t.tenant = i.tenant AND t.subject = i.subject
        AND t.session = i.session AND t.number = i.number
"""

_encode = msgspec.json.Encoder().encode
_decode_turn = msgspec.json.Decoder(TurnRecord).decode
_decode_state = msgspec.json.Decoder(dict[str, str]).decode
_SessionRow = tuple[int, int, str | None, str, float, float, float]
_decode_sessions = msgspec.json.Decoder(list[_SessionRow]).decode
_decode_turns = msgspec.json.Decoder(list[tuple[int, str]]).decode
_decode_replays = msgspec.json.Decoder(list[tuple[int, str, str, str]]).decode
_decode_positions = msgspec.json.Decoder(list[int]).decode


class Load(Struct, frozen=True):
    """One call of `SessionStore.load`."""

    key: SessionKey
    turns: int
    idempotency_key: str | None


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Create the tables, or check that they are ours.

    Raises:
        ConfigError: the file belongs to a newer version, or to something else.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if found == 0 and tables == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif found == 0:
            raise ConfigError(f"sessions.path: {path} is a database, but not one of Seawall's")
        elif found > _VERSION:
            raise ConfigError(
                f"sessions.path: {path} was written by a newer Seawall (schema {found}, "
                f"known here: {_VERSION})"
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute(_INCOMING)


def apply_commits(
    connection: sqlite3.Connection, commits: Sequence[Commit], now: float
) -> set[int]:
    """Apply a batch in one durable transaction; the positions of those that won.

    No two commits of a batch may be of one session, or use one idempotency key.
    """
    rows = [
        (
            each.key.tenant,
            each.key.subject,
            each.key.session,
            each.expected_version,
            _encode(each.turn).decode(),
            each.agent,
            _encode(each.state).decode(),
            now,
            each.expires_at,
            each.idempotency_key,
            each.fingerprint,
        )
        for each in commits
    ]
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_FILL, (_encode(rows).decode(),))
        connection.execute(_LOSERS)
        if any(each.expected_version == 0 for each in commits):
            _delete(connection, _RENEWED, ())  # what an expired session of that name left
        connection.execute(_UPSERT)
        connection.execute(_ADD_TURNS)
        if any(each.idempotency_key is not None for each in commits):
            connection.execute(_ADD_KEYS)
        (winners,) = connection.execute(_WINNERS).fetchone()
        connection.execute("DELETE FROM incoming")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return set(_decode_positions(winners))


def load_snapshots(
    connection: sqlite3.Connection, loads: Sequence[Load], now: float
) -> list[Snapshot]:
    """Answer a batch of loads from one state of the database, in their order."""
    wanted = [
        (each.key.tenant, each.key.subject, each.key.session, each.turns, each.idempotency_key)
        for each in loads
    ]
    parameters = {"wanted": _encode(wanted).decode(), "now": now}
    connection.execute("BEGIN")
    try:
        (sessions,) = connection.execute(_SESSIONS_OF, parameters).fetchone()
        turns = replays = "[]"
        if sessions != "[]":
            (turns,) = connection.execute(_TURNS_OF, parameters).fetchone()
        if any(each.idempotency_key is not None for each in loads):
            (replays,) = connection.execute(_REPLAYS_OF, parameters).fetchone()
    finally:
        connection.execute("COMMIT")
    found = {row[0]: _session(loads[row[0]].key, row) for row in _decode_sessions(sessions)}
    histories: dict[int, list[TurnRecord]] = {}
    for position, payload in _decode_turns(turns):
        histories.setdefault(position, []).append(_decode_turn(payload))
    earlier = {
        position: Replay(session, fingerprint, _decode_turn(payload))
        for position, session, fingerprint, payload in _decode_replays(replays)
    }
    return [
        Snapshot(
            found.get(position),
            tuple(sorted(histories.get(position, ()), key=_number)),
            earlier.get(position),
        )
        for position in range(len(loads))
    ]


def purge_expired(connection: sqlite3.Connection, now: float, limit: int) -> int:
    """Forget at most `limit` expired sessions; how many there were."""
    which = (
        "(SELECT tenant, subject, session FROM sessions WHERE expires_at <= ? "
        "ORDER BY expires_at, tenant, subject, session LIMIT ?)"
    )
    connection.execute("BEGIN IMMEDIATE")
    try:
        gone = _delete(connection, which, (now, limit))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return gone


def _delete(connection: sqlite3.Connection, which: str, parameters: tuple[object, ...]) -> int:
    """Sessions with all that hangs on them; how many there were."""
    gone = 0
    for table in ("turns", "idempotency", "sessions"):
        gone = connection.execute(
            f"DELETE FROM {table} WHERE (tenant, subject, session) IN {which}",  # noqa: S608
            parameters,
        ).rowcount
    return gone


def _session(key: SessionKey, row: _SessionRow) -> Session:
    _, version, agent, state, created_at, updated_at, expires_at = row
    return Session(key, version, agent, _decode_state(state), created_at, updated_at, expires_at)


def _number(turn: TurnRecord) -> int:
    return turn.number
