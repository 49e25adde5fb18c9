"""Counters in the session database: a table of its own, written by the store's own thread."""

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
_THERE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'counters'"
_READ = "SELECT measure, used FROM counters WHERE counter = ? AND window = ?"
_ADD = """
INSERT INTO counters VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET used = used + excluded.used
"""
_FORGET = "DELETE FROM counters WHERE expires_at <= ?"


class Database(Protocol):
    """What is needed of the session store: its connections, each on its own thread."""

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have something written, in a transaction of its own."""
        ...

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have something read."""
        ...


class SqliteCounters:
    """Implements `Counters`. An addition is durable when it is answered, like a commit.

    clock: Unix time in seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def open(self) -> None:
        """See `Counters.open`."""
        await self._database.change(_prepare)

    async def add(self, addition: Addition) -> Count:
        """See `Counters.add`."""
        now = self._clock()
        return await self._database.change(lambda db: _add(db, addition, now))

    async def read(self, counter: str, window: str) -> dict[str, int]:
        """See `Counters.read`. Also where there is no table yet."""
        return await self._database.ask(lambda db: _read(db, counter, window))


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(_TABLE)


def _read(connection: sqlite3.Connection, counter: str, window: str) -> dict[str, int]:
    if connection.execute(_THERE).fetchone() is None:
        return {}
    return dict(connection.execute(_READ, (counter, window)).fetchall())


def _add(connection: sqlite3.Connection, addition: Addition, now: float) -> Count:
    counter, window = addition.counter, addition.window
    used: dict[str, int] = dict(connection.execute(_READ, (counter, window)).fetchall())
    if not used:
        connection.execute(_FORGET, (now,))
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
