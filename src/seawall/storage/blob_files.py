"""The blob store of one machine: files in a folder, and an index of them in SQLite.

A file is written under a random name and synced before the index names it; it is removed after the
index has forgotten it. So what a crash leaves behind is a file that the index does not name, and
`expire_uploads` removes those. All processes of the machine share the folder.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from seawall.errors import ConfigError, InvalidField, StorageExhausted, StoreUnavailable
from seawall.storage.blobs import (
    Blob,
    BlobInfo,
    BlobKey,
    BlobPage,
    SessionFiles,
    counted_bytes,
)
from seawall.turn import Principal, SessionKey

__all__ = ["FileBlobStore"]

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    tenant TEXT NOT NULL, subject TEXT NOT NULL, session TEXT NOT NULL, name TEXT NOT NULL,
    media_type TEXT NOT NULL, shown TEXT NOT NULL, bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL, created_at REAL NOT NULL, file TEXT NOT NULL,
    PRIMARY KEY (tenant, subject, session, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uploads ON files (created_at) WHERE session = '';
CREATE UNIQUE INDEX IF NOT EXISTS stored ON files (file);
CREATE TABLE IF NOT EXISTS totals (
    tenant TEXT NOT NULL, subject TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (tenant, subject)
) WITHOUT ROWID;
"""
_INFO = "tenant, subject, session, name, media_type, shown, bytes, tokens, created_at"
_OF_KEY = "tenant = ? AND subject = ? AND session = ? AND name = ?"
_OF_SESSION = "tenant = ? AND subject = ? AND session = ?"
_OF_OWNER = "tenant = ? AND subject = ?"
_EXPIRED = (
    "(tenant, subject, session, name) IN (SELECT tenant, subject, session, name FROM files "
    "WHERE session = '' AND created_at < ? ORDER BY created_at LIMIT ?)"
)
_BUSY_SECONDS = 10.0
_OPEN_ATTEMPTS = 20
_OPEN_SECONDS = 0.1
_GRACE_SECONDS = 3_600.0  # a file that is being written is not in the index yet

Row = tuple[str, str, str, str, str, str, int, int, float]


class FileBlobStore:
    """Implements the blob store port in a folder."""

    def __init__(
        self, path: str, *, subject_bytes: int, tenant_bytes: int, total_bytes: int
    ) -> None:
        """Create it; opens nothing.

        Args:
            path: The folder; created if it is missing.
            subject_bytes: Stored of one subject, at most.
            tenant_bytes: Stored of one tenant, at most.
            total_bytes: Stored of all, at most.
        """
        self._folder = Path(path)
        self._limits = (subject_bytes, tenant_bytes, total_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="seawall-files")
        self._index: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See `BlobStore.open`."""
        await self._run(self._open)

    async def close(self) -> None:
        """See `BlobStore.close`."""
        index, self._index = self._index, None
        if index is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, index.close)
        self._thread.shutdown(wait=False)

    async def put(self, blob: Blob) -> None:
        """See `BlobStore.put`."""
        await self._run(self._put, blob)

    async def get(self, key: BlobKey) -> Blob | None:
        """See `BlobStore.get`."""
        return await self._run(self._get, key)

    async def find(self, key: BlobKey) -> BlobInfo | None:
        """See `BlobStore.find`."""
        found = await self._run(self._infos, _OF_KEY, _key(key))
        return found[0] if found else None

    async def files(
        self, owner: Principal, *, limit: int, after: BlobKey | None = None
    ) -> BlobPage:
        """See `BlobStore.files`."""
        session, name = (after.session, after.name) if after is not None else ("", "")
        where = f"{_OF_OWNER} AND (session, name) > (?, ?) ORDER BY session, name LIMIT ?"
        values = (owner.tenant, owner.subject, session, name, limit + 1)
        found = await self._run(self._infos, where, values)
        return BlobPage(found[:limit], len(found) > limit)

    async def files_of_session(self, key: SessionKey) -> tuple[BlobInfo, ...]:
        """See `BlobStore.files_of_session`."""
        values = (key.tenant, key.subject, key.session)
        return await self._run(self._infos, _OF_SESSION, values)

    async def delete(self, key: BlobKey) -> bool:
        """See `BlobStore.delete`."""
        return await self._run(self._delete, _OF_KEY, _key(key)) > 0

    async def delete_session(self, key: SessionKey, *, before: float | None = None) -> int:
        """See `BlobStore.delete_session`."""
        values = (key.tenant, key.subject, key.session)
        if before is None:
            return await self._run(self._delete, _OF_SESSION, values)
        return await self._run(self._delete, f"{_OF_SESSION} AND created_at < ?", (*values, before))

    async def erase(self, owner: Principal) -> int:
        """See `BlobStore.erase`."""
        return await self._run(self._delete, _OF_OWNER, (owner.tenant, owner.subject))

    async def expire_uploads(self, before: float, *, limit: int) -> int:
        """See `BlobStore.expire_uploads`."""
        removed = await self._run(self._delete, _EXPIRED, (before, limit))
        if removed < limit:
            for folder in await self._run(self._folders):
                removed += await self._run(self._remove_unnamed, folder)
        return removed

    async def sessions(self, *, limit: int, cursor: str | None = None) -> SessionFiles:
        """See `BlobStore.sessions`."""
        return await self._run(self._sessions, limit, cursor)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, work, *arguments)
        except OSError as error:  # without its path, which is not for clients
            said = error.strerror or type(error).__name__
            raise StoreUnavailable(f"The store of files failed: {said}") from error
        except (sqlite3.Error, RuntimeError) as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error

    def _open(self) -> None:
        for left in range(_OPEN_ATTEMPTS, 0, -1):
            try:
                self._connect()
            except (OSError, sqlite3.Error) as error:
                # Another process that creates it now has it for itself.
                if left > 1 and isinstance(error, sqlite3.OperationalError):
                    time.sleep(_OPEN_SECONDS)
                    continue
                raise ConfigError(f"blobs.path: {self._folder}: cannot be used: {error}") from error
            return

    def _connect(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        index = sqlite3.connect(
            self._folder / "index.db",
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            index.execute("PRAGMA journal_mode = WAL")
            index.execute("PRAGMA synchronous = FULL")
            index.executescript(_SCHEMA)
        except BaseException:
            index.close()
            raise
        self._index = index

    @property
    def _open_index(self) -> sqlite3.Connection:
        if self._index is None:
            raise StoreUnavailable("The store of files is closed.")
        return self._index

    def _infos(self, where: str, values: Sequence[object]) -> tuple[BlobInfo, ...]:
        found = self._open_index.execute(f"SELECT {_INFO} FROM files WHERE {where}", values)  # noqa: S608
        return tuple(map(_info, found))

    def _get(self, key: BlobKey) -> Blob | None:
        query = f"SELECT file, {_INFO} FROM files WHERE {_OF_KEY}"  # noqa: S608 - constants
        missing = ""
        while True:
            found = self._open_index.execute(query, _key(key)).fetchone()
            if found is None or found[0] == missing:
                return None
            try:
                return Blob(_info(found[1:]), self._place(found[0]).read_bytes())
            except FileNotFoundError:  # another process has just replaced or deleted it
                missing = found[0]

    def _put(self, blob: Blob) -> None:
        info, index = blob.info, self._open_index
        known = self._infos(_OF_KEY, _key(info.key))
        self._check_room(info, sum(counted_bytes(each.bytes) for each in known))
        file = os.urandom(16).hex()
        replaced: list[str] = []
        try:
            self._write(file, blob.content)
            index.execute("BEGIN IMMEDIATE")
            try:
                replaced = self._forget(_OF_KEY, _key(info.key))
                self._check_room(info)
                owner = info.key.owner
                index.execute(
                    f"INSERT INTO files ({_INFO}, file) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (
                        *_key(info.key),
                        info.media_type,
                        info.name,
                        info.bytes,
                        info.tokens,
                        info.created_at,
                        file,
                    ),
                )
                self._count(owner.tenant, owner.subject, counted_bytes(info.bytes))
                index.execute("COMMIT")
            except BaseException:
                index.execute("ROLLBACK")
                raise
        except BaseException:
            self._remove([file])
            raise
        self._remove(replaced)

    def _write(self, file: str, content: bytes) -> None:
        place = self._place(file)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _check_room(self, info: BlobInfo, replaced: int = 0) -> None:
        """Check that a file fits, in the place of so many bytes."""
        owner = info.key.owner
        scopes = ((owner.tenant, owner.subject), (owner.tenant, ""), ("", ""))
        whose = ("you", "your tenant", "all")
        for scope, limit, of in zip(scopes, self._limits, whose, strict=True):
            query = "SELECT bytes FROM totals WHERE tenant = ? AND subject = ?"
            found = self._open_index.execute(query, scope).fetchone()
            used = found[0] if found else 0
            if used - replaced + counted_bytes(info.bytes) > limit:
                raise StorageExhausted(f"There is no room for the file: of {of}, {limit} bytes.")

    def _count(self, tenant: str, subject: str, amount: int) -> None:
        """Add to the totals of a subject, of its tenant and of all, within a transaction."""
        self._open_index.executemany(
            "INSERT INTO totals VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
            ((tenant, subject, amount), (tenant, "", amount), ("", "", amount)),
        )

    def _delete(self, where: str, values: Sequence[object]) -> int:
        index = self._open_index
        index.execute("BEGIN IMMEDIATE")
        try:
            files = self._forget(where, values)
            index.execute("COMMIT")
        except BaseException:
            index.execute("ROLLBACK")
            raise
        self._remove(files)
        return len(files)

    def _forget(self, where: str, values: Sequence[object]) -> list[str]:
        """Remove rows within a transaction; the files that they named."""
        query = f"DELETE FROM files WHERE {where} RETURNING tenant, subject, bytes, file"  # noqa: S608
        gone = self._open_index.execute(query, values).fetchall()
        for tenant, subject, size, _ in gone:
            self._count(tenant, subject, -counted_bytes(size))
        return [file for *_, file in gone]

    def _remove(self, files: Iterable[str]) -> None:
        for file in files:
            with suppress(FileNotFoundError):
                self._place(file).unlink()

    def _folders(self) -> list[Path]:
        return [each for each in self._folder.iterdir() if len(each.name) == 2]

    def _remove_unnamed(self, folder: Path) -> int:
        """Remove files of a folder that the index does not name, and that nothing writes now."""
        removed = 0
        before = time.time() - _GRACE_SECONDS
        for place in folder.iterdir():
            with suppress(FileNotFoundError):  # another process has just removed it
                query = "SELECT 1 FROM files WHERE file = ?"
                if (
                    place.stat().st_mtime < before
                    and not self._open_index.execute(query, (place.name,)).fetchone()
                ):
                    place.unlink()
                    removed += 1
        return removed

    def _sessions(self, limit: int, cursor: str | None) -> SessionFiles:
        after = _decode_cursor(cursor) if cursor is not None else ("", "", "")
        query = (
            "SELECT tenant, subject, session, MAX(created_at) FROM files WHERE session != '' AND "
            "(tenant, subject, session) > (?, ?, ?) GROUP BY tenant, subject, session "
            "ORDER BY tenant, subject, session LIMIT ?"
        )
        with closing(self._open_index.execute(query, (*after, limit + 1))) as found:
            rows = found.fetchall()
        made = tuple((SessionKey(*row[:3]), row[3]) for row in rows[:limit])
        more = "\0".join(rows[limit - 1][:3]) if len(rows) > limit else None
        return SessionFiles(made, more)

    def _place(self, file: str) -> Path:
        return self._folder / file[:2] / file


def _decode_cursor(cursor: str) -> tuple[str, ...]:
    parts = tuple(cursor.split("\0"))
    if len(parts) != 3:
        raise InvalidField("Is not a cursor of this store.", field="cursor")
    return parts


def _key(key: BlobKey) -> tuple[str, str, str, str]:
    return key.owner.tenant, key.owner.subject, key.session, key.name


def _info(row: Row) -> BlobInfo:
    tenant, subject, session, name, media_type, shown, size, tokens, created_at = row
    key = BlobKey(Principal(tenant, subject), session, name)
    return BlobInfo(
        key=key,
        media_type=media_type,
        name=shown,
        bytes=size,
        tokens=tokens,
        created_at=created_at,
    )
