"""Sessions in SQLite, the embedded default: durable, off the event loop, with group commit."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from msgspec import Struct

from seawall.errors import (
    CommitUnknown,
    ConfigError,
    InvalidField,
    SessionConflict,
    SessionNotFound,
    StoreUnavailable,
)
from seawall.storage.port import (
    Archive,
    ArchivePage,
    AuditPage,
    AuditRecord,
    BackgroundJob,
    Begin,
    Commit,
    JobFailure,
    JournalWrite,
    Notification,
    SessionPage,
    Snapshot,
    TurnPage,
    Wait,
    WaitPage,
    latest_lease_end,
)
from seawall.storage.sqlite.batches import (
    CREATE_COMMITS_TABLE,
    Load,
    apply_commits,
    load_snapshots,
)
from seawall.storage.sqlite.file import DatabaseFile, prepare
from seawall.storage.sqlite.leases import (
    CREATE_BEGINS_TABLE,
    begin_turns,
    claim_job,
    fail_job,
    find_job,
    find_orphaned_jobs,
    hand_over_job,
    release_lease,
    renew_lease,
)
from seawall.storage.sqlite.thread import (
    BatchThread,
    run_isolated,
    store_unavailable,
    transaction,
)
from seawall.storage.values import (
    NUMBER,
    check_audit,
    check_commit,
    check_idempotency_key,
    check_journal,
    check_limit,
    is_key,
    is_name,
    is_owner,
    read_cursor,
    write_cursor,
)
from seawall.turn import Decision, Principal, SessionKey

if TYPE_CHECKING:
    from seawall.storage.sqlite.counters import SqliteCounters
    from seawall.storage.sqlite.facts import SqliteFacts
    from seawall.storage.sqlite.purge import ClockTrust

__all__ = ["SqliteStore"]

_log = logging.getLogger("seawall.sessions")

_MAX_QUEUED = 20_000
_MAX_BATCH = 512
_MAX_QUEUED_BYTES = 256 << 20
_MAX_BATCH_BYTES = 16 << 20
_PURGE = 500
_RECORD_SECONDS = 3_600.0
_RETRY_SECONDS = 0.01

T = TypeVar("T")
_Query = Callable[[sqlite3.Connection], object]
_Request = Commit | Begin | JournalWrite | _Query


class SqliteStore:
    """Implements `SessionStore` on one file, which several processes may share.

    A commit is on disk when it is acknowledged: the write-ahead log is synced once per batch
    (https://www.sqlite.org/pragma.html#pragma_synchronous, FULL). Before that, the file is checked:
    nothing survives in one that was deleted or replaced while it is open.
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
        audit_keep_seconds: float = 400 * 86_400.0,
    ) -> None:
        """Create a store; `open` opens the file.

        Args:
            path: The database file.
            clock: Unix time in seconds.
            busy_seconds: How long another process may lock the file.
            idle_seconds: Expired sessions are purged when nothing was written for so long.
            uri: The path is one of SQLite's URIs (https://www.sqlite.org/uri.html).
            lease_seconds: How long a lease lasts from one renewal on, as configured.
            read_only: Accept a database that is not writable.
            steady: Seconds of a clock that is never set; by default the system's.
            audit_keep_seconds: How long audit records are kept.
        """
        self._path = str(path)
        self._uri = uri
        self._lease_seconds = lease_seconds
        self._read_only = read_only
        self._audit_keep_seconds = audit_keep_seconds
        self._steady = steady or _steady
        self._clock_trust: ClockTrust | None = None
        ours = not uri and self._path != ":memory:"
        self._file = DatabaseFile(os.path.abspath(path) if ours else "")  # noqa: PTH100
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._writer: BatchThread[_Request, object] = BatchThread(
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
        self._file.close()

    def counters(self) -> "SqliteCounters":
        """See `SessionStore.counters`."""
        from seawall.storage.sqlite.counters import SqliteCounters  # noqa: PLC0415 - seldom used

        return SqliteCounters(self)

    def facts(self) -> "SqliteFacts":
        """See `SessionStore.facts`."""
        from seawall.storage.sqlite.facts import SqliteFacts  # noqa: PLC0415 - seldom used

        return SqliteFacts(self)

    async def begin(self, begin: Begin) -> Snapshot:
        """See `SessionStore.begin`."""
        check_idempotency_key(begin.idempotency_key)
        if not is_key(begin.key, begin.turn):
            return Snapshot(None)
        weight = len(begin.background_job.request.text) if begin.background_job is not None else 0
        snapshot = await self._writer.submit(begin, weight)
        assert isinstance(snapshot, Snapshot)  # noqa: S101 - the result of a begin
        return snapshot

    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        return bool(await self._writer.submit(lambda db: renew_lease(db, begin, self._clock())))

    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        await self._writer.submit(lambda db: release_lease(db, begin))

    async def load(self, key: SessionKey, *, turns: int) -> Snapshot:
        """See `SessionStore.load`."""
        if not is_key(key):
            return Snapshot(None)
        snapshot = await self._reader.submit(Load(key, turns))
        assert isinstance(snapshot, Snapshot)  # noqa: S101 - the result of a load
        return snapshot

    async def commit(self, commit: Commit) -> None:
        """See `SessionStore.commit`."""
        if commit.turn.number != commit.expected_version + 1:
            raise ValueError("a turn's number must be the expected version + 1")
        await self._writer.submit(commit, check_commit(commit))

    async def journal(self, write: JournalWrite) -> None:
        """See `SessionStore.journal`."""
        await self._writer.submit(write, check_journal(write))

    async def waits(
        self, tenant: str, *, turn: str | None = None, limit: int, cursor: str | None = None
    ) -> WaitPage:
        """See `SessionStore.waits`."""
        from seawall.storage.sqlite import journals  # noqa: PLC0415 - only with effects

        check_limit(limit)
        after = read_cursor(cursor, str) if cursor is not None else ""
        if not is_name(after):
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        if not is_name(tenant, turn or ""):
            return WaitPage((), None)
        found = await self.read(lambda db: journals.list_waits(db, tenant, turn, after, limit + 1))
        page = tuple(found[:limit])
        return WaitPage(page, write_cursor(page[-1].id) if len(found) > limit else None)

    async def find_wait(self, tenant: str, wait: str) -> Wait | None:
        """See `SessionStore.find_wait`."""
        from seawall.storage.sqlite import journals  # noqa: PLC0415 - only with effects

        if not is_name(tenant, wait):
            return None
        return await self.read(lambda db: journals.find_wait(db, tenant, wait))

    async def decide(self, wait: Wait, decision: Decision, audit: AuditRecord) -> bool:
        """See `SessionStore.decide`."""
        from seawall.storage.sqlite import journals  # noqa: PLC0415 - only with effects

        check_audit(audit)
        if not is_key(wait.key, wait.id, wait.turn):
            return False
        keep_until = self._clock() + self._audit_keep_seconds
        return await self.write(lambda db: journals.decide(db, wait, decision, audit, keep_until))

    async def append_audit(self, record: AuditRecord) -> None:
        """See `SessionStore.append_audit`."""
        from seawall.storage.sqlite import journals  # noqa: PLC0415 - only with effects

        check_audit(record)
        keep_until = self._clock() + self._audit_keep_seconds
        await self.write(lambda db: journals.append_audit(db, record, keep_until))

    async def audit(
        self, *, tenant: str | None = None, limit: int, cursor: str | None = None
    ) -> AuditPage:
        """See `SessionStore.audit`."""
        from seawall.storage.sqlite import journals  # noqa: PLC0415 - only with effects

        check_limit(limit)
        after = (
            read_cursor(cursor, tuple[str, str, str, NUMBER])
            if cursor is not None
            else ("", "", "", 0)
        )
        if not is_name(tenant or ""):
            return AuditPage((), None)
        found = await self.read(lambda db: journals.list_audit(db, tenant, after, limit + 1))
        page = tuple(found[:limit])
        if len(found) <= limit:
            return AuditPage(page, None)
        last = page[-1]
        key = last.key
        return AuditPage(page, write_cursor((key.tenant, key.subject, key.session, last.number)))

    async def due_notifications(self, *, limit: int) -> tuple[Notification, ...]:
        """See `SessionStore.due_notifications`."""
        from seawall.storage.sqlite import notifications  # noqa: PLC0415 - only with hand-overs

        check_limit(limit)
        now = self._clock()
        return await self.read(lambda db: notifications.due_notifications(db, limit, now))

    async def claim_notification(
        self, notification: Notification, *, due: float
    ) -> Notification | None:
        """See `SessionStore.claim_notification`."""
        from seawall.storage.sqlite import notifications  # noqa: PLC0415 - only with hand-overs

        now = self._clock()
        return await self.write(
            lambda db: notifications.claim_notification(db, notification, due, now)
        )

    async def end_notification(self, notification: Notification) -> None:
        """See `SessionStore.end_notification`."""
        from seawall.storage.sqlite import notifications  # noqa: PLC0415 - only with hand-overs

        await self.write(lambda db: notifications.end_notification(db, notification))

    async def orphaned_jobs(self, *, limit: int) -> tuple[BackgroundJob, ...]:
        """See `SessionStore.orphaned_jobs`."""
        check_limit(limit)
        now = self._clock()
        latest = latest_lease_end(now, self._lease_seconds)
        return await self.read(lambda db: find_orphaned_jobs(db, limit, now, latest))

    async def claim_job(self, job: BackgroundJob, *, until: float) -> BackgroundJob | None:
        """See `SessionStore.claim_job`."""
        now = self._clock()
        latest = latest_lease_end(now, max(self._lease_seconds, until - now))
        claimed = await self._writer.submit(lambda db: claim_job(db, job, until, now, latest))
        return cast("BackgroundJob | None", claimed)

    async def hand_over_job(self, job: BackgroundJob) -> None:
        """See `SessionStore.hand_over_job`."""
        await self._writer.submit(lambda db: hand_over_job(db, job))

    async def fail_job(self, job: BackgroundJob, failure: JobFailure, *, until: float) -> None:
        """See `SessionStore.fail_job`."""
        await self._writer.submit(lambda db: fail_job(db, job, failure, until))

    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """See `SessionStore.find_job`."""
        if not (is_owner(owner) and is_name(turn)):
            return None
        return await self.read(lambda db: find_job(db, owner, turn, self._clock()))

    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """See `SessionStore.turns`."""
        from seawall.storage.sqlite import archives  # noqa: PLC0415 - not on a turn's path

        check_limit(limit)
        before = read_cursor(cursor, NUMBER) if cursor is not None else 1 << 62
        snapshot = await self.load(key, turns=0)
        if snapshot.session is None:
            raise SessionNotFound
        page, more = await self.read(lambda db: archives.list_turns(db, key, before, limit))
        return TurnPage(snapshot.session, page, write_cursor(page[-1].number) if more else None)

    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        from seawall.storage.sqlite import archives  # noqa: PLC0415 - not on a turn's path

        check_limit(limit)
        before = read_cursor(cursor, str) if cursor is not None else None
        if before is not None and not is_name(before):
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        found = await self.read(
            lambda db: archives.list_sessions(db, owner, before, limit + 1, self._clock())
        )
        more = len(found) > limit
        page = tuple(found[:limit])
        return SessionPage(page, write_cursor(page[-1].key.session) if more else None)

    async def delete(self, key: SessionKey) -> None:
        """See `SessionStore.delete`."""
        from seawall.storage.sqlite import archives  # noqa: PLC0415 - not on a turn's path

        if not is_key(key) or not await self._writer.submit(
            lambda db: archives.delete_session(db, key, self._clock())
        ):
            raise SessionNotFound

    async def erase(self, owner: Principal) -> int:
        """See `SessionStore.erase`."""
        from seawall.storage.sqlite import archives  # noqa: PLC0415 - not on a turn's path

        count = await self._writer.submit(
            lambda db: archives.erase_subject(db, owner, self._clock())
        )
        assert isinstance(count, int)  # noqa: S101 - the result of erase_subject
        return count

    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """See `SessionStore.archives`."""
        from seawall.storage.sqlite import archives  # noqa: PLC0415 - not on a turn's path

        check_limit(limit)
        after = read_cursor(cursor, tuple[str, str, str]) if cursor is not None else ("", "", "")
        found = await self.read(
            lambda db: archives.read_archives(db, after, limit + 1, self._clock())
        )
        more = len(found) > limit
        page = tuple(found[:limit])
        if not more:
            return ArchivePage(page, None)
        last = page[-1].session.key
        return ArchivePage(page, write_cursor((last.tenant, last.subject, last.session)))

    async def restore(self, archive: Archive) -> bool:
        """See `SessionStore.restore`."""
        from seawall.storage.sqlite import archives  # noqa: PLC0415 - not on a turn's path

        return bool(
            await self._writer.submit(lambda db: archives.write_archive(db, archive, self._clock()))
        )

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the writer's thread, in a transaction of its own; its result."""

        def whole(connection: sqlite3.Connection) -> T:
            with transaction(connection):
                return work(connection)

        return cast("T", await self._writer.submit(whole))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` on the reader's thread; its result."""
        return cast("T", await self._reader.submit(query))  # the thread's results are of any type

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
                raise self._not_writable() from error
            raise StoreUnavailable(
                f"The session store {self._path} cannot be opened: {error}."
            ) from error
        return connection

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Switch to write-ahead logging.

        Of several processes that open a new file at the same time only one can; the others get
        "locked" from SQLite at once, whatever its timeout (https://www.sqlite.org/c3ref/busy_handler.html).
        """
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _connect_to_write(self) -> sqlite3.Connection:
        if not self._read_only and self._unwritable():
            raise self._not_writable()
        return self._connect()

    def _not_writable(self) -> ConfigError:
        return ConfigError(
            f"sessions.path: {self._path} cannot be written: make the file, those beside it "
            "(-wal, -shm) and their folder writable for this user, or name another path"
        )

    def _unwritable(self) -> bool:
        """Whether the file, or the folder for it, is not writable for this user."""
        if self._uri:
            return False
        path = Path(self._path)
        names = (path, path.with_name(path.name + "-wal"), path.absolute().parent)
        # Asked twice: meanwhile another process may have created the log, or deleted it.
        return not all(
            _is_writable(each) or not each.exists() or _is_writable(each) for each in names
        )

    def _purge(self, connection: sqlite3.Connection) -> None:
        """Delete what has expired, unless the clock may be wrong."""
        from seawall.storage.sqlite import purge  # noqa: PLC0415 - not at the start

        now, steady = self._clock(), self._steady()
        seen = purge.last_trusted_time(connection)
        first = self._clock_trust is None
        if self._clock_trust is None:
            self._clock_trust = purge.ClockTrust(now, steady, seen)
        before = self._clock_trust.until
        if not self._clock_trust.check(now, steady):
            if first or self._clock_trust.until != before:
                _log.error(
                    "sessions: the clock was set, or is far ahead of the last use of this "
                    "database: nothing is purged until it has advanced evenly for a day"
                )
            return
        if seen is None or abs(now - seen) > _RECORD_SECONDS:
            purge.record_trusted_time(connection, now)
        while purge.purge_expired(connection, now, _PURGE) == _PURGE:
            pass

    def _write(
        self, connection: sqlite3.Connection, requests: Sequence[_Request]
    ) -> Sequence[object]:
        if self._file.check():  # before: a write hides that the log was truncated
            return [store_unavailable() for _ in requests]
        results: list[object] = [None] * len(requests)
        for positions in _rounds(requests):
            # Earlier rounds are durable and must be reported so, whatever happens to this one.
            outcomes = run_isolated(
                lambda some: self._write_round(connection, some),
                [requests[each] for each in positions],
            )
            for position, outcome in zip(positions, outcomes, strict=True):
                results[position] = outcome
        if self._file.check():
            return [
                _unknown() if isinstance(request, Commit | JournalWrite) else store_unavailable()
                for request in requests
            ]
        return results

    def _write_round(
        self, connection: sqlite3.Connection, requests: Sequence[_Request]
    ) -> Sequence[object]:
        now = self._clock()
        commits = [request for request in requests if isinstance(request, Commit)]
        begins = [request for request in requests if isinstance(request, Begin)]
        if begins:
            asked = max(each.until - now if each.until is not None else 0.0 for each in begins)
            return begin_turns(
                connection, begins, now, latest_lease_end(now, max(self._lease_seconds, asked))
            )
        journals = [request for request in requests if isinstance(request, JournalWrite)]
        if journals:
            return self._write_journals(connection, journals, now)
        if not commits:
            return [
                request(connection)
                for request in requests
                if not isinstance(request, Commit | Begin | JournalWrite)
            ]
        try:
            applied = apply_commits(
                connection, commits, now, latest_lease_end(now, self._lease_seconds)
            )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
            _log.error("sessions: %s", error)
            return [_unknown() for _ in commits]  # it may be in the log nevertheless
        return [
            None
            if index in applied
            else SessionConflict("Another turn of this session was committed first.")
            for index in range(len(commits))
        ]

    def _write_journals(
        self, connection: sqlite3.Connection, writes: Sequence[JournalWrite], now: float
    ) -> Sequence[Exception | None]:
        from seawall.storage.sqlite import journals  # noqa: PLC0415 - only with effects

        keep_until = now + self._audit_keep_seconds
        try:
            return journals.apply_journals(connection, writes, now, self._lease_seconds, keep_until)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR:
                raise
            _log.error("sessions: %s", error)
            return [_unknown() for _ in writes]

    def _read(
        self, connection: sqlite3.Connection, requests: Sequence[Load | _Query]
    ) -> Sequence[object]:
        if self._file.fault and self._file.check():
            return [store_unavailable() for _ in requests]  # what is read is not what is stored
        loads = [request for request in requests if isinstance(request, Load)]
        snapshots = iter(
            run_isolated(lambda some: load_snapshots(connection, some, self._clock()), loads)
            if loads
            else ()
        )
        return [
            next(snapshots)
            if isinstance(request, Load)
            else run_isolated(lambda some: [each(connection) for each in some], [request])[0]
            for request in requests
        ]


def _steady() -> float:
    """Seconds of a clock that is never set; if possible, one that includes sleep of the machine."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _unknown() -> CommitUnknown:
    return CommitUnknown(
        "The session store failed while the turn was being committed; it may be stored or not.",
        retry_after=1.0,
    )


class _Round(Struct):
    """Requests that are done together: their kind, positions, and what they may change."""

    kind: type
    positions: list[int]
    names: set[object]


def _rounds(requests: Sequence[_Request]) -> list[list[int]]:
    """Positions of requests that can be done together.

    Commits of one session, or with one idempotency key, must see each other, so they go into
    different rounds. Journals are written one after the other and so see each other. Neither is
    done before an earlier request of its session or key. Turns that begin are one round. Any other
    request is a round of its own, and keeps its place.
    """
    rounds: list[_Round] = []
    for position, request in enumerate(requests):
        kind = type(request)
        last = rounds[-1] if rounds else None
        if isinstance(request, Begin) and last is not None and last.kind is Begin:
            last.positions.append(position)
            continue
        if not isinstance(request, Commit | JournalWrite):
            rounds.append(_Round(kind, [position], set()))
            continue
        names: set[object] = {request.key}
        if request.idempotency_key is not None:
            names.add((request.key.tenant, request.key.subject, request.idempotency_key))
        joined = None
        for each in reversed(rounds):
            free = each.names.isdisjoint(names)
            if each.kind is kind and (free or kind is JournalWrite):
                joined = each
                break
            if not (free and each.kind in (Commit, JournalWrite)):
                break
        if joined is None:
            rounds.append(_Round(kind, [position], names))
        else:
            joined.positions.append(position)
            joined.names |= names
    return [each.positions for each in rounds]
