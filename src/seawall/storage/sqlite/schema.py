"""The tables of the session database, and upgrades from earlier versions.

In these tables, `holder` is the owner of a lease and `held_until` its end; `pending` are the
background jobs, of which `handed` counts the handovers; one that sleeps has a time `wakes_at`.
"""

import sqlite3

from seawall.errors import ConfigError
from seawall.storage.sqlite.thread import transaction

__all__ = ["VERSION", "prepare"]

VERSION = 5

_PENDING = """
CREATE TABLE pending (
    tenant TEXT, subject TEXT, turn TEXT, session TEXT NOT NULL,
    record TEXT NOT NULL, attempt INTEGER NOT NULL, handed INTEGER NOT NULL,
    held_until REAL NOT NULL, failure TEXT, failure_ends REAL,
    PRIMARY KEY (tenant, subject, turn)
) WITHOUT ROWID;
CREATE INDEX pending_by_hold ON pending (held_until) WHERE failure IS NULL;
CREATE INDEX pending_failed ON pending (failure_ends) WHERE failure IS NOT NULL
"""

_JOURNALS = """
ALTER TABLE pending ADD COLUMN wakes_at REAL;
DROP INDEX pending_by_hold;
CREATE INDEX pending_by_hold ON pending (held_until) WHERE failure IS NULL AND wakes_at IS NULL;
CREATE INDEX pending_asleep ON pending (wakes_at) WHERE wakes_at IS NOT NULL;
CREATE TABLE waits (
    tenant TEXT, id TEXT, subject TEXT NOT NULL, session TEXT NOT NULL,
    record TEXT NOT NULL, decision TEXT,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX waits_by_session ON waits (tenant, subject, session);
CREATE TABLE audit (
    tenant TEXT, subject TEXT, session TEXT, number INTEGER,
    record TEXT NOT NULL, ends_at REAL NOT NULL,
    PRIMARY KEY (tenant, subject, session, number)
) WITHOUT ROWID;
CREATE INDEX audit_by_end ON audit (ends_at)
"""

_NOTIFICATIONS = """
CREATE TABLE notifications (
    tenant TEXT, id TEXT, subject TEXT NOT NULL, session TEXT NOT NULL,
    record TEXT NOT NULL, tries INTEGER NOT NULL, due REAL NOT NULL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX notifications_by_session ON notifications (tenant, subject, session);
CREATE INDEX notifications_by_time ON notifications (due)
"""

_SCHEMA = (
    """
CREATE TABLE sessions (
    tenant TEXT, subject TEXT, session TEXT,
    version INTEGER NOT NULL, agent TEXT, state TEXT NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL, expires_at REAL NOT NULL,
    holder TEXT, held_until REAL,
    PRIMARY KEY (tenant, subject, session)
) WITHOUT ROWID;
CREATE INDEX sessions_by_end ON sessions (expires_at);
CREATE TABLE turns (
    tenant TEXT, subject TEXT, session TEXT, number INTEGER, payload TEXT NOT NULL,
    PRIMARY KEY (tenant, subject, session, number)
) WITHOUT ROWID;
CREATE TABLE idempotency (
    tenant TEXT, subject TEXT, key TEXT,
    fingerprint TEXT NOT NULL, session TEXT NOT NULL, number INTEGER,
    holder TEXT, held_until REAL,
    PRIMARY KEY (tenant, subject, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_session ON idempotency (tenant, subject, session);
CREATE INDEX idempotency_running ON idempotency (held_until) WHERE number IS NULL;
"""
    + _PENDING
    + ";"
    + _JOURNALS
    + ";"
    + _NOTIFICATIONS
)

# From each version to the next.
_UPGRADES = {
    1: """
DROP INDEX sessions_by_use;
ALTER TABLE sessions ADD COLUMN holder TEXT;
ALTER TABLE sessions ADD COLUMN held_until REAL;
ALTER TABLE idempotency RENAME TO idempotency_1;
DROP INDEX idempotency_by_session;
CREATE TABLE idempotency (
    tenant TEXT, subject TEXT, key TEXT,
    fingerprint TEXT NOT NULL, session TEXT NOT NULL, number INTEGER,
    holder TEXT, held_until REAL,
    PRIMARY KEY (tenant, subject, key)
) WITHOUT ROWID;
INSERT INTO idempotency
    SELECT tenant, subject, key, fingerprint, session, number, NULL, NULL FROM idempotency_1;
DROP TABLE idempotency_1;
CREATE INDEX idempotency_by_session ON idempotency (tenant, subject, session);
CREATE INDEX idempotency_running ON idempotency (held_until) WHERE number IS NULL
""",
    2: _PENDING,
    3: _JOURNALS,
    4: _NOTIFICATIONS,
}


def prepare(connection: sqlite3.Connection, path: str) -> None:
    """Create the tables, or check that they are ours and upgrade them.

    Raises:
        ConfigError: the file belongs to a newer version, or to something else.
    """
    with transaction(connection):
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if found == 0 and tables == 0:
            _run(connection, _SCHEMA)
        elif found == 0:
            raise ConfigError(f"sessions.path: {path} is a database, but not one of Seawall's")
        elif found > VERSION:
            raise ConfigError(
                f"sessions.path: {path} was written by a newer Seawall (schema {found}, "
                f"known here: {VERSION})"
            )
        for version in range(found or VERSION, VERSION):
            _run(connection, _UPGRADES[version])
        if found != VERSION:
            connection.execute(f"PRAGMA user_version = {VERSION}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";"):
        connection.execute(statement)
