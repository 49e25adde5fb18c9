"""Sessions in SQLite: the embedded default. Durable, off the event loop, in group commits."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from seawall.errors import (
    CommitUnknown,
    ConfigError,
    InvalidField,
    SessionConflict,
    SessionNotFound,
    StoreUnavailable,
)
from seawall.storage.cursors import NUMBER, read_cursor, write_cursor
from seawall.storage.port import (
    Archive,
    ArchivePage,
    BackgroundJob,
    Begin,
    Commit,
    JobFailure,
    SessionPage,
    Snapshot,
    TurnPage,
    latest_lease_end,
)
from seawall.storage.sqlite.archives import (
    delete_session,
    erase_subject,
    last_trusted_time,
    list_sessions,
    list_turns,
    purge_expired,
    read_archives,
    record_trusted_time,
    write_archive,
)
from seawall.storage.sqlite.batches import (
    CREATE_COMMITS_TABLE,
    Load,
    apply_commits,
    load_snapshots,
)
from seawall.storage.sqlite.file import DatabaseFile
from seawall.storage.sqlite.jobs import (
    claim_job,
    fail_job,
    find_job,
    find_orphaned_jobs,
    hand_over_job,
)
from seawall.storage.sqlite.leases import (
    CREATE_BEGINS_TABLE,
    begin_turns,
    release_lease,
    renew_lease,
)
from seawall.storage.sqlite.schema import prepare
from seawall.storage.sqlite.thread import BatchThread, run_isolated, store_unavailable
from seawall.storage.values import (
    check_commit,
    check_idempotency_key,
    check_limit,
    is_key,
    is_name,
    is_owner,
)
from seawall.turn import Principal, SessionKey

if TYPE_CHECKING:
    from seawall.storage.sqlite.clock_trust import ClockTrust

__all__ = ["SqliteStore"]

_log = logging.getLogger("seawall.storage")

_MAX_QUEUED = 20_000
_MAX_BATCH = 512
_MAX_QUEUED_BYTES = 256 << 20
_MAX_BATCH_BYTES = 16 << 20
_PURGE = 500
_NOTED_SECONDS = 3_600.0
_AGAIN_SECONDS = 0.01

T = TypeVar("T")
_Query = Callable[[sqlite3.Connection], object]
_Job = Commit | Begin | _Query


class SqliteStore:
    """Implements `SessionStore` on one file, which several processes may share.

    A commit is on disk when it is acknowledged: the write-ahead log is synced once a batch
    (https://www.sqlite.org/pragma.html#pragma_synchronous, FULL). Before it is, the file is looked
    at: one that was deleted or replaced while it is open keeps nothing.
    clock: Unix time in seconds. busy_seconds: how long another process may hold the file.
    uri: the path is one of SQLite's URIs (https://www.sqlite.org/uri.html).
    lease_seconds: how long a turn holds its session from one renewal, as configured.
    reading: a database that cannot be written will do.
    steady: seconds of a clock that is never set.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = 5.0,
        idle_seconds: float = 60.0,
        uri: bool = False,
        lease_seconds: float = 20.0,
        read_only: bool = False,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._path = str(path)
        self._uri = uri
        self._lease = lease_seconds
        self._read_only_allowed = read_only
        self._steady = steady or _steady
        self._clock_trust: ClockTrust | None = None
        ours = not uri and self._path != ":memory:"
        self._file = DatabaseFile(os.path.abspath(path) if ours else "")  # noqa: PTH100
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._writer: BatchThread[_Job, object] = BatchThread(
            "seawall-sessions-writer",
            connect=self._connect_to_write,
            work=self._write,
            idle=self._purge,
            idle_seconds=idle_seconds,
            max_queued=_MAX_QUEUED,
            max_batch=_MAX_BATCH,
            max_queued_bytes=_MAX_QUEUED_BYTES,
            max_batch_bytes=_MAX_BATCH_BYTES,
        )
        self._reader: BatchThread[Load | _Query, object] = BatchThread(
            "seawall-sessions-reader",
            connect=self._connect,
            work=self._read,
            max_queued=_MAX_QUEUED,
            max_batch=_MAX_BATCH,
        )

    async def open(self) -> None:
        """See `SessionStore.open`."""
        self._file.protect()
        await self._writer.start()
        self._file.adopt()
        await self._reader.start()

    async def close(self) -> None:
        """See `SessionStore.close`."""
        await self._reader.stop()
        await self._writer.stop()

    async def begin(self, begin: Begin) -> Snapshot:
        """See `SessionStore.begin`."""
        check_idempotency_key(begin.idempotency_key)
        if not is_key(begin.key, begin.turn):
            return Snapshot(None)
        weight = len(begin.background_job.request.text) if begin.background_job is not None else 0
        snapshot = await self._writer.do(begin, weight)
        assert isinstance(snapshot, Snapshot)  # noqa: S101 - a begin gives nothing else
        return snapshot

    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        return bool(await self._writer.do(lambda db: renew_lease(db, begin, self._clock())))

    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        await self._writer.do(lambda db: release_lease(db, begin))

    async def load(self, key: SessionKey, *, turns: int) -> Snapshot:
        """See `SessionStore.load`."""
        if not is_key(key):
            return Snapshot(None)
        snapshot = await self._reader.do(Load(key, turns))
        assert isinstance(snapshot, Snapshot)  # noqa: S101 - a load gives nothing else
        return snapshot

    async def commit(self, commit: Commit) -> None:
        """See `SessionStore.commit`."""
        if commit.turn.number != commit.expected_version + 1:
            raise ValueError("a turn's number must be the expected version + 1")
        await self._writer.do(commit, check_commit(commit))

    async def orphaned_jobs(self, *, limit: int) -> tuple[BackgroundJob, ...]:
        """See `SessionStore.orphaned_jobs`."""
        check_limit(limit)
        now = self._clock()
        return await self.ask(
            lambda db: find_orphaned_jobs(db, limit, now, latest_lease_end(now, self._lease))
        )

    async def claim(self, background_job: BackgroundJob, *, until: float) -> BackgroundJob | None:
        """See `SessionStore.claim`."""
        now = self._clock()
        latest = latest_lease_end(now, max(self._lease, until - now))
        claimed = await self._writer.do(
            lambda db: claim_job(db, background_job, until, now, latest)
        )
        return cast("BackgroundJob | None", claimed)

    async def hand_over(self, background_job: BackgroundJob) -> None:
        """See `SessionStore.hand_over`."""
        await self._writer.do(lambda db: hand_over_job(db, background_job))

    async def fail(
        self, background_job: BackgroundJob, failure: JobFailure, *, until: float
    ) -> None:
        """See `SessionStore.fail`."""
        await self._writer.do(lambda db: fail_job(db, background_job, failure, until))

    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """See `SessionStore.find_job`."""
        if not (is_owner(owner) and is_name(turn)):
            return None
        return await self.ask(lambda db: find_job(db, owner, turn, self._clock()))

    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """See `SessionStore.turns`."""
        check_limit(limit)
        before = read_cursor(cursor, NUMBER) if cursor is not None else 1 << 62
        snapshot = await self.load(key, turns=0)
        if snapshot.session is None:
            raise SessionNotFound
        kept, more = await self.ask(lambda db: list_turns(db, key, before, limit))
        return TurnPage(snapshot.session, kept, write_cursor(kept[-1].number) if more else None)

    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        check_limit(limit)
        before = read_cursor(cursor, str) if cursor is not None else None
        if before is not None and not is_name(before):
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        found = await self.ask(
            lambda db: list_sessions(db, owner, before, limit + 1, self._clock())
        )
        more = len(found) > limit
        kept = tuple(found[:limit])
        return SessionPage(kept, write_cursor(kept[-1].key.session) if more else None)

    async def delete(self, key: SessionKey) -> None:
        """See `SessionStore.delete`."""
        if not is_key(key):
            raise SessionNotFound
        if not await self._writer.do(lambda db: delete_session(db, key, self._clock())):
            raise SessionNotFound

    async def erase(self, owner: Principal) -> int:
        """See `SessionStore.erase`."""
        count = await self._writer.do(lambda db: erase_subject(db, owner, self._clock()))
        assert isinstance(count, int)  # noqa: S101 - what erase_subject gives
        return count

    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """See `SessionStore.archives`."""
        check_limit(limit)
        after = read_cursor(cursor, tuple[str, str, str]) if cursor is not None else ("", "", "")
        found = await self.ask(lambda db: read_archives(db, after, limit + 1, self._clock()))
        more = len(found) > limit
        kept = tuple(found[:limit])
        if not more:
            return ArchivePage(kept, None)
        last = kept[-1].session.key
        return ArchivePage(kept, write_cursor((last.tenant, last.subject, last.session)))

    async def restore(self, archive: Archive) -> bool:
        """See `SessionStore.restore`."""
        return bool(await self._writer.do(lambda db: write_archive(db, archive, self._clock())))

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have something else written beside the sessions, all of it or nothing."""

        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return cast("T", await self._writer.do(whole))

    async def ask(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Have something read."""
        return cast("T", await self._reader.do(query))  # a thread of jobs of all kinds knows none

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=self._busy_seconds, isolation_level=None, uri=self._uri
            )
            try:
                self._write_ahead(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA temp_store = MEMORY")
                prepare(connection, self._path)
                connection.execute(CREATE_COMMITS_TABLE)
                connection.execute(CREATE_BEGINS_TABLE)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise ConfigError(f"sessions.path: {self._path} is not a database") from error
            if self._unwritable():
                raise self._read_only_error() from error
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

    def _connect_to_write(self) -> sqlite3.Connection:
        if not self._read_only_allowed and self._unwritable():
            raise self._read_only_error()
        return self._connect()

    def _read_only_error(self) -> ConfigError:
        return ConfigError(
            f"sessions.path: {self._path} cannot be written: make the file, those beside it "
            "(-wal, -shm) and their folder writable for this user, or name another path"
        )

    def _unwritable(self) -> bool:
        """Whether there is a file, or a folder for one, that this user may not write to."""
        if self._uri:
            return False
        path = Path(self._path)
        names = (path, path.with_name(path.name + "-wal"), path.absolute().parent)
        return not all(
            os.access(each, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
            for each in names
            if each.exists()
        )

    def _purge(self, connection: sqlite3.Connection) -> None:
        """Forget what has expired, unless the clock may be wrong: what is gone is gone."""
        from seawall.storage.sqlite.clock_trust import ClockTrust  # noqa: PLC0415 - not at the start

        now, steady = self._clock(), self._steady()
        noted = last_trusted_time(connection)
        first = self._clock_trust is None
        if self._clock_trust is None:
            self._clock_trust = ClockTrust(now, steady, noted)
        before = self._clock_trust.until
        if not self._clock_trust.check(now, steady):
            if first or self._clock_trust.until != before:
                _log.error(
                    "sessions: the clock was set, or is far ahead of when this database was used "
                    "last: nothing is purged until it has gone on evenly for a day"
                )
            return
        if noted is None or abs(now - noted) > _NOTED_SECONDS:
            record_trusted_time(connection, now)
        while purge_expired(connection, now, _PURGE) == _PURGE:
            pass

    def _write(self, connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[object]:
        if self._file.check():  # before: what is written hides that a log was cut
            return [store_unavailable() for _ in jobs]
        results: list[object] = [None] * len(jobs)
        for positions in _rounds(jobs):
            # The rounds before are durable and must be reported so, whatever becomes of this one.
            outcomes = run_isolated(
                lambda some: self._write_round(connection, some),
                [jobs[each] for each in positions],
            )
            for position, outcome in zip(positions, outcomes, strict=True):
                results[position] = outcome
        if self._file.check():
            return [_unknown() if isinstance(job, Commit) else store_unavailable() for job in jobs]
        return results

    def _write_round(
        self, connection: sqlite3.Connection, jobs: Sequence[_Job]
    ) -> Sequence[object]:
        now = self._clock()
        commits = [job for job in jobs if isinstance(job, Commit)]
        begins = [job for job in jobs if isinstance(job, Begin)]
        if begins:
            asked = max(each.until - now if each.until is not None else 0.0 for each in begins)
            return begin_turns(
                connection, begins, now, latest_lease_end(now, max(self._lease, asked))
            )
        if not commits:
            return [job(connection) for job in jobs if not isinstance(job, Commit | Begin)]
        try:
            applied = apply_commits(connection, commits, now, latest_lease_end(now, self._lease))
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
            _log.error("sessions: %s", error)
            return [_unknown() for _ in commits]  # it may be in the log all the same
        return [
            None
            if index in applied
            else SessionConflict("Another turn of this session was committed first.")
            for index in range(len(commits))
        ]

    def _read(
        self, connection: sqlite3.Connection, jobs: Sequence[Load | _Query]
    ) -> Sequence[object]:
        if self._file.fault and self._file.check():
            return [store_unavailable() for _ in jobs]  # what is read is not what is kept
        loads = [job for job in jobs if isinstance(job, Load)]
        snapshots = iter(
            run_isolated(lambda some: load_snapshots(connection, some, self._clock()), loads)
            if loads
            else ()
        )
        return [
            next(snapshots)
            if isinstance(job, Load)
            else run_isolated(lambda some: [each(connection) for each in some], [job])[0]
            for job in jobs
        ]


def _steady() -> float:
    """Seconds of a clock that is never set; it goes on while the machine sleeps, where it can."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _unknown() -> CommitUnknown:
    return CommitUnknown(
        "The session store failed while the turn was being stored; it may be stored, or not.",
        retry_after=1.0,
    )


def _rounds(jobs: Sequence[_Job]) -> list[list[int]]:
    """Positions of jobs that can be done together, in order.

    Commits of one session, or with one idempotency key, must see each other, so they go into
    different rounds. Turns that begin go together. Anything else goes by itself.
    """
    rounds: list[list[int]] = []
    taken: set[object] = set()
    for position, job in enumerate(jobs):
        last = jobs[rounds[-1][0]] if rounds else None
        if isinstance(job, Begin) and isinstance(last, Begin):
            rounds[-1].append(position)
            continue
        names: set[object] = set()
        if isinstance(job, Commit):
            names.add(job.key)
            if job.idempotency_key is not None:
                names.add((job.key.tenant, job.key.subject, job.idempotency_key))
            if isinstance(last, Commit) and taken.isdisjoint(names):
                rounds[-1].append(position)
                taken |= names
                continue
        rounds.append([position])
        taken = names
    return rounds
