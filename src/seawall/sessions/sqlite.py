"""Sessions in SQLite: the embedded default. Durable, off the event loop, in group commits."""

import base64
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from seawall.errors import (
    ConfigError,
    InvalidField,
    SessionConflict,
    SessionNotFound,
    StoreUnavailable,
)
from seawall.sessions.port import Commit, Session, SessionPage, Snapshot, TurnPage
from seawall.sessions.sqlite_batches import (
    Load,
    apply_commits,
    load_snapshots,
    prepare,
    purge_expired,
)
from seawall.sessions.sqlite_thread import BatchThread, unavailable
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = ["SqliteStore"]

_log = logging.getLogger("seawall.sessions")

_MAX_PENDING = 20_000
_MAX_BATCH = 512
_PURGE = 500
_AGAIN_SECONDS = 0.01

_Query = Callable[[sqlite3.Connection], object]


class SqliteStore:
    """Implements `SessionStore` on one file, which several processes may share.

    A commit is on disk when it is acknowledged: the write-ahead log is synced once a batch
    (https://www.sqlite.org/pragma.html#pragma_synchronous, FULL).
    clock: Unix time in seconds. busy_seconds: how long another process may hold the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = 5.0,
        idle_seconds: float = 60.0,
    ) -> None:
        self._path = str(path)
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._writer: BatchThread[Commit | _Query, object] = BatchThread(
            "seawall-sessions-writer",
            connect=self._connect,
            work=self._write,
            idle=self._purge,
            idle_seconds=idle_seconds,
            max_pending=_MAX_PENDING,
            max_batch=_MAX_BATCH,
        )
        self._reader: BatchThread[Load | _Query, object] = BatchThread(
            "seawall-sessions-reader",
            connect=self._connect,
            work=self._read,
            max_pending=_MAX_PENDING,
            max_batch=_MAX_BATCH,
        )

    async def open(self) -> None:
        """See `SessionStore.open`."""
        await self._writer.start()
        await self._reader.start()

    async def close(self) -> None:
        """See `SessionStore.close`."""
        await self._reader.stop()
        await self._writer.stop()

    async def load(
        self, key: SessionKey, *, turns: int, idempotency_key: str | None = None
    ) -> Snapshot:
        """See `SessionStore.load`."""
        snapshot = await self._reader.do(Load(key, turns, idempotency_key))
        assert isinstance(snapshot, Snapshot)  # noqa: S101 - a load gives nothing else
        return snapshot

    async def commit(self, commit: Commit) -> None:
        """See `SessionStore.commit`."""
        if commit.turn.number != commit.expected_version + 1:
            raise ValueError("a turn's number must be the expected version + 1")
        await self._writer.do(commit)

    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """See `SessionStore.turns`."""
        before = _cursor(cursor, int) if cursor is not None else 1 << 62
        snapshot = await self.load(key, turns=0)
        if snapshot.session is None:
            raise SessionNotFound

        def query(connection: sqlite3.Connection) -> object:
            return connection.execute(
                "SELECT payload FROM turns WHERE (tenant, subject, session) = (?, ?, ?) "
                "AND number < ? ORDER BY number DESC LIMIT ?",
                (key.tenant, key.subject, key.session, before, limit + 1),
            ).fetchall()

        rows = await self._ask(query)
        found = tuple(msgspec.json.decode(row[0], type=TurnRecord) for row in rows[:limit])
        more = len(rows) > limit
        return TurnPage(snapshot.session, found, _opaque(found[-1].number) if more else None)

    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        updated, last = (
            _cursor(cursor, tuple[float, str]) if cursor is not None else (float("inf"), "")
        )

        def query(connection: sqlite3.Connection) -> object:
            return connection.execute(
                "SELECT session, version, agent, state, created_at, updated_at, expires_at "
                "FROM sessions WHERE tenant = ? AND subject = ? AND expires_at > ? "
                "AND (updated_at < ? OR (updated_at = ? AND session > ?)) "
                "ORDER BY updated_at DESC, session LIMIT ?",
                (owner.tenant, owner.subject, self._clock(), updated, updated, last, limit + 1),
            ).fetchall()

        rows = await self._ask(query)
        found = tuple(_session(owner, row) for row in rows[:limit])
        more = len(rows) > limit
        end = _opaque((found[-1].updated_at, found[-1].key.session)) if more else None
        return SessionPage(found, end)

    async def delete(self, key: SessionKey) -> None:
        """See `SessionStore.delete`."""

        def remove(connection: sqlite3.Connection) -> object:
            return _delete(connection, key, self._clock())

        if not await self._writer.do(remove):
            raise SessionNotFound

    async def _ask(self, query: _Query) -> list[tuple[Any, ...]]:
        rows = await self._reader.do(query)
        assert isinstance(rows, list)  # noqa: S101 - what fetchall gives
        return rows

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=self._busy_seconds, isolation_level=None
            )
            try:
                self._write_ahead(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA temp_store = MEMORY")
                prepare(connection, self._path)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise ConfigError(f"sessions.path: {self._path} is not a database") from error
            raise StoreUnavailable(
                f"The session store {self._path} cannot be opened: {error}."
            ) from error
        return connection

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging.

        Of several who open a new file at once only one can; SQLite tells the others "locked" at
        once, whatever its timeout (https://www.sqlite.org/c3ref/busy_handler.html).
        """
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    def _purge(self, connection: sqlite3.Connection) -> None:
        while purge_expired(connection, self._clock(), _PURGE) == _PURGE:
            pass

    def _write(
        self, connection: sqlite3.Connection, jobs: Sequence[Commit | _Query]
    ) -> Sequence[object]:
        results: list[object] = [None] * len(jobs)
        for positions in _rounds(jobs):
            try:
                outcomes = self._write_round(connection, [jobs[each] for each in positions])
            except sqlite3.Error as error:  # the rounds before are durable and must be told so
                _log.error("sessions cannot be written: %s", error)
                outcomes = [unavailable()] * len(positions)
            for position, outcome in zip(positions, outcomes, strict=True):
                results[position] = outcome
        return results

    def _write_round(
        self, connection: sqlite3.Connection, jobs: Sequence[Commit | _Query]
    ) -> Sequence[object]:
        commits = [job for job in jobs if isinstance(job, Commit)]
        if not commits:
            return [job(connection) for job in jobs if not isinstance(job, Commit)]
        winners = apply_commits(connection, commits, self._clock())
        return [
            None
            if index in winners
            else SessionConflict("Another turn of this session was committed first.")
            for index in range(len(commits))
        ]

    def _read(
        self, connection: sqlite3.Connection, jobs: Sequence[Load | _Query]
    ) -> Sequence[object]:
        loads = [job for job in jobs if isinstance(job, Load)]
        snapshots = iter(load_snapshots(connection, loads, self._clock()) if loads else ())
        return [next(snapshots) if isinstance(job, Load) else job(connection) for job in jobs]


def _rounds(jobs: Sequence[Commit | _Query]) -> list[list[int]]:
    """Positions of jobs that can be done together, in order.

    Commits of one session, or with one idempotency key, must see each other, so they go into
    different rounds; anything that is not a commit goes by itself.
    """
    rounds: list[list[int]] = []
    taken: set[object] = set()
    for position, job in enumerate(jobs):
        if not isinstance(job, Commit):
            rounds.append([position])
            taken = {job}
            continue
        names: set[object] = {job.key}
        if job.idempotency_key is not None:
            names.add((job.key.tenant, job.key.subject, job.idempotency_key))
        last_is_commit = bool(rounds) and isinstance(jobs[rounds[-1][0]], Commit)
        if last_is_commit and taken.isdisjoint(names):
            rounds[-1].append(position)
            taken |= names
        else:
            rounds.append([position])
            taken = names
    return rounds


def _delete(connection: sqlite3.Connection, key: SessionKey, now: float) -> bool:
    name = (key.tenant, key.subject, key.session)
    connection.execute("BEGIN IMMEDIATE")
    try:
        gone = connection.execute(
            "DELETE FROM sessions WHERE (tenant, subject, session) = (?, ?, ?) AND expires_at > ?",
            (*name, now),
        ).rowcount
        if gone:
            for table in ("turns", "idempotency"):
                connection.execute(
                    f"DELETE FROM {table} WHERE (tenant, subject, session) = (?, ?, ?)",  # noqa: S608
                    name,
                )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return bool(gone)


def _session(owner: Principal, row: tuple[Any, ...]) -> Session:
    session, version, agent, state, *times = row
    return msgspec.convert(
        {
            "key": {"tenant": owner.tenant, "subject": owner.subject, "session": session},
            "version": version,
            "agent": agent,
            "state": msgspec.json.decode(str(state)),
            "created_at": times[0],
            "updated_at": times[1],
            "expires_at": times[2],
        },
        Session,
    )


def _opaque(place: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _cursor(cursor: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=kind)
    except (ValueError, msgspec.DecodeError) as error:
        raise InvalidField("This is not a cursor of this list.", field="cursor") from error
