"""Facts about subjects in the session database: a table of its own, made by the first write."""

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from seawall.errors import InvalidField
from seawall.storage.facts import Memory, MemoryPage, OwnedMemory
from seawall.storage.values import (
    check_limit,
    check_memory,
    encode_record,
    is_name,
    is_owner,
    read_cursor,
    write_cursor,
)
from seawall.turn import Principal

if TYPE_CHECKING:
    from seawall.storage.sqlite.store import SqliteStore

__all__ = ["SqliteFacts", "erase_memory", "purge_memories"]

_TABLE = """
CREATE TABLE IF NOT EXISTS memory (
    tenant TEXT, subject TEXT, revision INTEGER NOT NULL, record TEXT NOT NULL,
    ends_at REAL NOT NULL,
    PRIMARY KEY (tenant, subject)
) WITHOUT ROWID
"""
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'memory'"
_OWNED = "tenant = ? AND subject = ?"
_READ = f"SELECT record FROM memory WHERE {_OWNED}"  # noqa: S608 - no values are interpolated
_INSERT = "INSERT OR IGNORE INTO memory VALUES (?, ?, ?, ?, ?)"
_UPDATE = f"UPDATE memory SET revision = ?, record = ?, ends_at = ? WHERE {_OWNED} AND revision = ?"  # noqa: S608 - likewise
_PAGE = (
    "SELECT tenant, subject, record FROM memory WHERE (tenant, subject) > (?, ?) "
    "ORDER BY tenant, subject LIMIT ?"
)

_decode = msgspec.json.Decoder(Memory).decode


class SqliteFacts:
    """Implements `Facts` in the database of an open store. A write is durable when it returns."""

    def __init__(self, store: "SqliteStore") -> None:
        self._store = store

    async def read(self, owner: Principal) -> Memory:
        """See `Facts.read`. Also works if there is no table yet."""
        if not is_owner(owner):
            return Memory()
        record = await self._store.read(lambda db: _read(db, owner))
        return Memory() if record is None else _decode(record)

    async def write(self, owner: Principal, memory: Memory, *, expected: int) -> bool:
        """See `Facts.write`."""
        check_memory(owner, memory)
        return await self._store.write(lambda db: _write(db, owner, memory, expected))

    async def page(self, *, limit: int, cursor: str | None = None) -> MemoryPage:
        """See `Facts.page`."""
        check_limit(limit)
        after = read_cursor(cursor, tuple[str, str]) if cursor is not None else ("", "")
        if not is_name(*after):
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        rows = await self._store.read(lambda db: _page(db, after, limit + 1))
        found = tuple(
            OwnedMemory(Principal(tenant, subject), _decode(record))
            for tenant, subject, record in rows[:limit]
        )
        if len(rows) <= limit:
            return MemoryPage(found, None)
        last = found[-1].owner
        return MemoryPage(found, write_cursor((last.tenant, last.subject)))


def _exists(connection: sqlite3.Connection) -> bool:
    return connection.execute(_EXISTS).fetchone() is not None


def _read(connection: sqlite3.Connection, owner: Principal) -> str | None:
    if not _exists(connection):
        return None
    row = connection.execute(_READ, (owner.tenant, owner.subject)).fetchone()
    return None if row is None else str(row[0])


def _write(connection: sqlite3.Connection, owner: Principal, memory: Memory, expected: int) -> bool:
    connection.execute(_TABLE)
    name, record = (owner.tenant, owner.subject), encode_record(memory).decode()
    values = (memory.revision, record, memory.ends_at)
    if expected:
        made = connection.execute(_UPDATE, (*values, *name, expected))
    else:
        made = connection.execute(_INSERT, (*name, *values))
    return made.rowcount > 0 or _read(connection, owner) == record


def _page(
    connection: sqlite3.Connection, after: tuple[str, str], limit: int
) -> list[tuple[str, str, str]]:
    if not _exists(connection):
        return []
    return connection.execute(_PAGE, (*after, limit)).fetchall()


def erase_memory(connection: sqlite3.Connection, owner: Principal) -> None:
    """Delete what is remembered of a subject, in the caller's transaction."""
    if _exists(connection):
        connection.execute(
            f"DELETE FROM memory WHERE {_OWNED}",  # noqa: S608 - likewise
            (owner.tenant, owner.subject),
        )


def purge_memories(connection: sqlite3.Connection, now: float) -> None:
    """Delete memories that have expired, in the caller's transaction."""
    if _exists(connection):
        connection.execute("DELETE FROM memory WHERE ends_at <= ?", (now,))
