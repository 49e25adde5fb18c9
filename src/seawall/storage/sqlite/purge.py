"""Purging of expired sessions from SQLite: irreversible, so only by a trusted wall clock."""

import sqlite3

from seawall.storage.sqlite.batches import delete_sessions
from seawall.storage.sqlite.facts import purge_memories
from seawall.storage.sqlite.thread import transaction

__all__ = [
    "SETTLING_SECONDS",
    "ClockTrust",
    "last_trusted_time",
    "purge_expired",
    "record_trusted_time",
]

SETTLING_SECONDS = 86_400.0
"""After the clock was set, nothing is purged for so long."""

_TOLERANCE_SECONDS = 60.0
_SLEWING = 1e-3  # twice of what NTP corrects by slewing, 500 parts per million
_UNSEEN_SECONDS = 86_400.0


class ClockTrust:
    """Compares the wall clock with a monotonic clock. Pure: time is passed in.

    A server that is started with a clock that is far ahead has only the time of the last purge to
    compare with: then it waits as if the clock had been set.
    """

    def __init__(self, wall: float, steady: float, seen: float | None) -> None:
        """Start to compare.

        Args:
            wall: Unix seconds.
            steady: Seconds of a monotonic clock.
            seen: The latest Unix time at which the wall clock was trusted, if that is known.

        `until` is the steady time from which on the wall clock is trusted.
        """
        self._wall = wall
        self._steady = steady
        ahead = seen is not None and wall - seen > _UNSEEN_SECONDS
        self.until = steady + SETTLING_SECONDS if ahead else float("-inf")

    def check(self, wall: float, steady: float) -> bool:
        """Whether the wall clock can be trusted now; both clocks as in `__init__`."""
        passed = steady - self._steady
        apart = wall - self._wall - passed
        self._wall, self._steady = wall, steady
        if abs(apart) > _TOLERANCE_SECONDS + _SLEWING * passed:
            self.until = steady + SETTLING_SECONDS
        return steady >= self.until


def last_trusted_time(connection: sqlite3.Connection) -> float | None:
    """The Unix time that `record_trusted_time` wrote last."""
    exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'clock'"
    if connection.execute(exists).fetchone() is None:
        return None
    row = connection.execute("SELECT at FROM clock").fetchone()
    return None if row is None else float(row[0])


def record_trusted_time(connection: sqlite3.Connection, now: float) -> None:
    """Store the time of a clock that is trusted."""
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), at REAL)"
        )
        connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?)", (now,))


def purge_expired(connection: sqlite3.Connection, now: float, limit: int) -> int:
    """Delete at most `limit` expired sessions, and what else has expired; how many sessions.

    Waits, notifications and sleeping jobs end with their session; audit records and memories have a
    time of their own.
    """
    which = (
        "(SELECT tenant, subject, session FROM sessions WHERE expires_at <= ? "
        "ORDER BY expires_at, tenant, subject, session LIMIT ?)"
    )
    with transaction(connection):
        count = delete_sessions(connection, which, (now, limit))
        connection.execute(
            "DELETE FROM idempotency WHERE number IS NULL AND held_until <= ?", (now,)
        )
        connection.execute(
            "DELETE FROM pending WHERE failure IS NOT NULL AND failure_ends <= ?", (now,)
        )
        for table in ("waits", "notifications", "pending"):
            asleep = "wakes_at IS NOT NULL AND " if table == "pending" else ""
            connection.execute(
                f"DELETE FROM {table} WHERE {asleep}NOT EXISTS (SELECT 1 FROM sessions s WHERE "  # noqa: S608
                "(s.tenant, s.subject, s.session) "
                f"= ({table}.tenant, {table}.subject, {table}.session))"
            )
        connection.execute("DELETE FROM audit WHERE ends_at <= ?", (now,))
        purge_memories(connection, now)
    return count
