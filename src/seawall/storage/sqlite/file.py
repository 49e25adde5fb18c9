"""The database's files: tables and upgrades; permissions; checks that they are still the same ones.

In the tables, `holder` is the owner of a lease and `held_until` its end; `pending` are the
background jobs, of which `handed` counts the handovers; one that sleeps has a time `wakes_at`.
"""

import logging
import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

from seawall.errors import ConfigError
from seawall.storage.sqlite.thread import transaction

__all__ = [
    "VERSION",
    "DatabaseFile",
    "prepare",
]

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


_log = logging.getLogger("seawall.sessions")

_ALL = ("", "-wal", "-shm")
_EVERY_CHECK = ("", "-wal")
_FULL_CHECK_SECONDS = 1.0
_WAL_HEADER_BYTES = 32  # with salts that change whenever the log starts over
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")

_Identity = tuple[int, int]


class DatabaseFile:
    """The files of one database.

    What is written to a file that was deleted or replaced is lost when the process ends. Such a
    file is reported, and never created again: an empty one in its place would hide that all
    sessions are lost. If the same file is put back, it is used again.

    No file descriptor of the database is ever opened here: closing it would release SQLite's locks
    (https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
    It has none on the write-ahead log, which is kept open: a check costs three system calls.
    """

    def __init__(self, path: str) -> None:
        """Watch the files of a database.

        Args:
            path: The database; empty for one that is no file of ours, such as one in memory.
        """
        self._paths = {end: Path(path + end) for end in _ALL} if path else {}
        self._known: dict[str, _Identity] = {}
        self._sizes: dict[str, int] = {}
        self._log = -1
        self._log_header = b""
        self._inspected_at = float("-inf")
        self._damage = ""
        self.fault = ""

    def protect(self) -> None:
        """Create the file if there is none, and restrict it to its owner.

        SQLite gives the files beside it the same permissions.
        """
        if not self._paths:
            return
        try:
            os.close(os.open(self._paths[""], os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        except OSError:
            return  # SQLite's own message is better
        for path in self._paths.values():
            _restrict(path)

    def adopt(self) -> None:
        """Remember the files of the database, which was just opened."""
        if self._paths:
            found = self._paths[""].stat()
            self._known = {"": (found.st_dev, found.st_ino)}
            self._sizes = {"": found.st_size}

    def close(self) -> None:
        """Close the log."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def check(self) -> str:
        """Why what was just written may be lost; empty when it is safe. Also kept in `fault`."""
        if not self._known:
            return ""
        found = self._damage or self._inspect()
        if found and found != self.fault:
            _log.error(
                "sessions: %s; nothing is acknowledged until the same file is back or the server "
                "is restarted",
                found,
            )
        elif self.fault and not found:
            _log.warning("sessions: %s is back", self._paths[""])
        self.fault = found
        return found

    def _inspect(self) -> str:
        now = time.monotonic()
        all_files = self.fault or now >= self._inspected_at + _FULL_CHECK_SECONDS
        if all_files:
            self._inspected_at = now
        for end in _ALL if all_files else _EVERY_CHECK:
            try:
                if found := self._inspect_file(end, self._paths[end]):
                    return found
            except OSError as error:
                return f"{self._paths[end]} cannot be inspected: {error}"
        return ""

    def _inspect_file(self, end: str, path: Path) -> str:
        try:
            found = path.stat()
        except FileNotFoundError:
            return f"{path} was deleted" if end in self._known else ""  # or was not created yet
        identity = (found.st_dev, found.st_ino)
        if self._known.setdefault(end, identity) != identity:
            return f"{path} was replaced by another file"
        size, whole = found.st_size, True
        if end == "-wal":
            if self._log < 0 and not self._open_log(path, identity):
                return f"{path} was replaced by another file"
            whole = self._is_log_whole(self._log, size)
        elif not end and size < self._sizes.get(end, 0):
            whole = _is_whole(path)
        if not whole:
            self._damage = f"{path} was truncated"
        self._sizes[end] = size
        return self._damage

    def _open_log(self, path: Path, identity: _Identity) -> bool:
        """Open the log, if it is still the file that was found."""
        log = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        opened = os.fstat(log)
        if (opened.st_dev, opened.st_ino) != identity:
            os.close(log)
            return False
        self._log = log
        return True

    def _is_log_whole(self, log: int, size: int) -> bool:
        """Whether SQLite itself can have made the write-ahead log that small.

        A checkpoint may make it smaller, even empty. Then it starts over with another header; what
        is written to one that something else has truncated comes after a hole, where it is not
        found again.

        Args:
            log: Its descriptor.
            size: Of before the header is read here: what has made it smaller since then does not
                count, what has made it start over does.
        """
        before, header = self._log_header, os.pread(log, _WAL_HEADER_BYTES, 0)
        self._log_header = header
        if header and header[:4] not in _WAL_MAGIC:
            return False
        return not header or header != before or size >= self._sizes.get("-wal", 0)


def _is_whole(path: Path) -> bool:
    """Whether a database that became smaller was made smaller by SQLite."""
    try:  # as VACUUM does; a new connection has nothing cached yet
        with closing(sqlite3.connect(path, isolation_level=None)) as fresh:
            (version,) = fresh.execute("PRAGMA user_version").fetchone()
            (verdict,) = fresh.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error:
        return False
    return bool(version == VERSION and verdict == "ok")


def _restrict(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & 0o077:
            return
        path.chmod(mode & ~0o077)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("%s is readable by other users: %s", path, error)
    else:
        _log.warning("%s was readable by other users; its permissions were restricted", path)
