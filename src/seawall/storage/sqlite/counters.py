"""Counters in the session database: a table of its own, written by the store's writer thread."""

import sqlite3
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from seawall.storage.counters import Addition, Count, fit_to_limits

__all__ = ["SqliteCounters"]

T = TypeVar("T")

_TABLE = """
CREATE TABLE IF NOT EXISTS counters (
    counter TEXT, window TEXT, measure TEXT, used INTEGER NOT NULL, expires_at REAL NOT NULL,
    PRIMARY KEY (counter, window, measure)
) WITHOUT ROWID
"""
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'counters'"
_READ = "SELECT measure, used FROM counters WHERE counter = ? AND window = ?"
_ADD = """
INSERT INTO counters VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET used = used + excluded.used
"""
_PURGE = "DELETE FROM counters WHERE expires_at <= ?"


class Database(Protocol):
    """The part of the session store that counters use."""

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """See `SqliteStore.write`."""
        ...

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """See `SqliteStore.read`."""
        ...


class SqliteCounters:
    """Implements `Counters`. Like a commit, an addition is durable when it returns."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Count in the database of an open store.

        Args:
            database: The store.
            clock: Unix time in seconds.
        """
        self._database = database
        self._clock = clock

    async def open(self) -> None:
        """See `Counters.open`."""
        await self._database.write(_prepare)

    async def add(self, addition: Addition) -> Count:
        """See `Counters.add`."""
        now = self._clock()
        return await self._database.write(lambda db: _add(db, addition, now))

    async def read(self, counter: str, window: str) -> dict[str, int]:
        """See `Counters.read`. Also works if there is no table yet."""
        return await self._database.read(lambda db: _read(db, counter, window))


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(_TABLE)


def _read(connection: sqlite3.Connection, counter: str, window: str) -> dict[str, int]:
    if connection.execute(_EXISTS).fetchone() is None:
        return {}
    return dict(connection.execute(_READ, (counter, window)).fetchall())


def _add(connection: sqlite3.Connection, addition: Addition, now: float) -> Count:
    counter, window = addition.counter, addition.window
    used: dict[str, int] = dict(connection.execute(_READ, (counter, window)).fetchall())
    if not used:
        connection.execute(_PURGE, (now,))
    granted = fit_to_limits(addition.amounts, addition.limits, used)
    rows = [
        (counter, window, measure, amount, addition.expires_at)
        for measure, amount in granted.items()
        if amount
    ]
    connection.executemany(_ADD, rows)
    for measure, amount in granted.items():
        used[measure] = used.get(measure, 0) + amount
    return Count(granted, used)
