"""Sessions in DynamoDB, shared by all servers. docs/sessions-dynamodb.md describes the table.

A turn of a session costs two round trips: lease its head and query its history at the same time,
then one transaction. What is written does not depend on the history's length.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import (
    ConditionCheck,
    Contended,
    Delete,
    DynamoDBError,
    Item,
    Put,
    TransactionCancelled,
    Update,
)
from seawall.errors import (
    CommitUnknown,
    InvalidField,
    SessionConflict,
    SessionNotFound,
    TurnLimitReached,
)
from seawall.storage.dynamodb import (
    head_key,
    head_time_to_live,
    key_record_key,
    number,
    text,
    time_to_live,
    turn_items,
)
from seawall.storage.dynamodb.jobs import JobTable, delete_job_part
from seawall.storage.dynamodb.leases import Leases
from seawall.storage.dynamodb.table import (
    SessionTable,
    TableReader,
    prepare_table,
    translate_errors,
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
)
from seawall.storage.values import (
    NUMBER,
    check_audit,
    check_commit,
    check_idempotency_key,
    check_journal,
    check_limit,
    encode_state,
    is_key,
    is_name,
    is_owner,
    read_cursor,
    write_cursor,
)
from seawall.turn import Decision, Principal, SessionKey

if TYPE_CHECKING:
    from seawall.storage.dynamodb.counters import DynamoDBCounters
    from seawall.storage.dynamodb.facts import DynamoDBFacts
    from seawall.storage.dynamodb.journals import JournalTable
    from seawall.storage.dynamodb.notifications import NotificationTable

__all__ = ["DynamoDBStore"]

_log = logging.getLogger("seawall.sessions")

_BEFORE_ALL = 1 << 62
_ATTEMPTS = 3
_JOURNAL_ATTEMPTS = 8
_MAX_STATE_BYTES = 300_000  # with the largest turn, within the 4 MB of a transaction

_translated = translate_errors("sessions", "The session store")


class DynamoDBStore:
    """Implements `SessionStore` on one table.

    If the clock is off by so much that DynamoDB rejects signatures, the store uses DynamoDB's: what
    is written then expires no earlier, or later, than it should.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        *,
        create: bool = False,
        seconds: float = 5.0,
        keep_seconds: float = 30 * 86_400.0,
        lease_seconds: float = 20.0,
        clock: Callable[[], float] = time.time,
        closing: Callable[[], Awaitable[None]] | None = None,
        audit_keep_seconds: float = 400 * 86_400.0,
    ) -> None:
        """Create a store; `open` connects it.

        Args:
            client: For the table's region and endpoint, with its credentials.
            table: The table's name.
            create: Create the table if there is none.
            seconds: The longest that one call to DynamoDB may take, retries included.
            keep_seconds: A turn may be deleted this long after the expiry time that its session had
                when it was committed.
            lease_seconds: How long a lease lasts from one renewal on, as configured.
            clock: Unix time in seconds.
            closing: Awaited by `close`; closes the client.
            audit_keep_seconds: How long audit records are kept.
        """
        self.table = SessionTable(
            client, table, seconds=seconds, lease_seconds=lease_seconds, clock=clock
        )
        self._create = create
        self._keep_seconds = keep_seconds
        self._audit_keep_seconds = audit_keep_seconds
        self._closing = closing
        self._reader = TableReader(self.table)
        self._jobs = JobTable(self.table)
        self._leases = Leases(self.table, self._reader, self._jobs)

    @_translated
    async def open(self) -> None:
        """See `SessionStore.open`."""
        await prepare_table(self.table, create=self._create)

    async def close(self) -> None:
        """See `SessionStore.close`."""
        if self._closing is not None:
            await self._closing()

    def counters(self) -> "DynamoDBCounters":
        """See `SessionStore.counters`."""
        from seawall.storage.dynamodb.counters import DynamoDBCounters  # noqa: PLC0415 - not in turns

        return DynamoDBCounters(self.table.client, self.table.name)

    def facts(self) -> "DynamoDBFacts":
        """See `SessionStore.facts`."""
        from seawall.storage.dynamodb.facts import DynamoDBFacts  # noqa: PLC0415 - seldom used

        return DynamoDBFacts(self.table)

    @_translated
    async def begin(self, begin: Begin) -> Snapshot:
        """See `SessionStore.begin`."""
        check_idempotency_key(begin.idempotency_key)
        if not is_key(begin.key, begin.turn):
            return Snapshot(None)
        return await self._leases.begin(self._corrected(begin))

    @_translated
    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        return await self._leases.renew(self._corrected(begin))

    @_translated
    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        await self._leases.release(begin)

    @_translated
    async def load(self, key: SessionKey, *, turns: int) -> Snapshot:
        """See `SessionStore.load`."""
        if not is_key(key):
            return Snapshot(None)
        return await self._reader.load(key, turns)

    @_translated
    async def commit(self, commit: Commit) -> None:
        """See `SessionStore.commit`."""
        if commit.turn.number != commit.expected_version + 1:
            raise ValueError("a turn's number must be the expected version + 1")
        check_commit(commit)
        if skew := self.table.client.skew:
            commit = structs.replace(commit, expires_at=commit.expires_at + skew)
        created_at = await self._session_created_at(commit)
        stale: Item | None = None
        for _ in range(_ATTEMPTS):
            refused = await self._transact(self._parts(commit, created_at, stale))
            if refused is None:
                return
            if await self._already_applied(commit, uncertain=refused.uncertain):
                return
            stale = await self._stale_key_record(commit, refused)
            if stale is None:
                break
        raise _conflict()

    @_translated
    async def journal(self, write: JournalWrite) -> None:
        """See `SessionStore.journal`."""
        check_journal(write)
        if skew := self.table.client.skew:
            write = structs.replace(
                write,
                until=write.until + skew if write.until is not None else None,
                expires_at=write.expires_at + skew,
                sleeps_until=write.sleeps_until + skew,
                notifications=tuple(
                    structs.replace(each, due=each.due + skew) for each in write.notifications
                ),
            )
        journals = self._journals()
        opens = write.turn.journal and write.turn.journal.revision == 1
        stale: Item | None = None
        for _ in range(_JOURNAL_ATTEMPTS):
            made = await journals.parts(write)
            parts = made.parts
            if opens and write.idempotency_key is not None:
                now = self.table.now()
                parts = [*parts, self._key_part(write, made.created_at, stale, now)]
            refused = await self._transact(parts, repeatable=True)
            if refused is None or await self._is_written(write, uncertain=refused.uncertain):
                return
            if made.only_audit_refused(refused):
                continue
            stale = await self._stale_key_record(write, refused) if opens else None
            if stale is None:
                break
        raise _conflict()

    @_translated
    async def waits(
        self, tenant: str, *, turn: str | None = None, limit: int, cursor: str | None = None
    ) -> WaitPage:
        """See `SessionStore.waits`."""
        check_limit(limit)
        after = read_cursor(cursor, str) if cursor is not None else None
        if after is not None and not (after and is_name(after)):
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        if not is_name(tenant, turn or ""):
            return WaitPage((), None)
        found = await self._journals().waits(tenant, turn, after, limit + 1)
        page = tuple(found[:limit])
        return WaitPage(page, write_cursor(page[-1].id) if len(found) > limit else None)

    @_translated
    async def find_wait(self, tenant: str, wait: str) -> Wait | None:
        """See `SessionStore.find_wait`."""
        if not (wait and is_name(tenant, wait)):
            return None
        return await self._journals().find_wait(tenant, wait)

    @_translated
    async def decide(self, wait: Wait, decision: Decision, audit: AuditRecord) -> bool:
        """See `SessionStore.decide`."""
        check_audit(audit)
        if not (wait.id and is_key(wait.key, wait.id, wait.turn)):
            return False
        return await self._journals().decide(wait, decision, audit)

    @_translated
    async def append_audit(self, record: AuditRecord) -> None:
        """See `SessionStore.append_audit`."""
        check_audit(record)
        await self._journals().append(record)

    @_translated
    async def audit(
        self, *, tenant: str | None = None, limit: int, cursor: str | None = None
    ) -> AuditPage:
        """See `SessionStore.audit`."""
        check_limit(limit)
        if not is_name(tenant or ""):
            return AuditPage((), None)
        return await self._journals().audit(tenant, limit, cursor)

    @_translated
    async def due_notifications(self, *, limit: int) -> tuple[Notification, ...]:
        """See `SessionStore.due_notifications`."""
        check_limit(limit)
        return await self._notifications().due(limit)

    @_translated
    async def claim_notification(
        self, notification: Notification, *, due: float
    ) -> Notification | None:
        """See `SessionStore.claim_notification`."""
        return await self._notifications().claim(notification, due + self.table.client.skew)

    @_translated
    async def end_notification(self, notification: Notification) -> None:
        """See `SessionStore.end_notification`."""
        await self._notifications().end(notification)

    @_translated
    async def orphaned_jobs(self, *, limit: int) -> tuple[BackgroundJob, ...]:
        """See `SessionStore.orphaned_jobs`."""
        check_limit(limit)
        return await self._jobs.orphaned(limit)

    @_translated
    async def claim_job(self, job: BackgroundJob, *, until: float) -> BackgroundJob | None:
        """See `SessionStore.claim_job`."""
        return await self._jobs.claim(job, until + self.table.client.skew)

    @_translated
    async def hand_over_job(self, job: BackgroundJob) -> None:
        """See `SessionStore.hand_over_job`."""
        await self._jobs.hand_over(job)

    @_translated
    async def fail_job(self, job: BackgroundJob, failure: JobFailure, *, until: float) -> None:
        """See `SessionStore.fail_job`."""
        await self._jobs.fail(job, failure, until + self.table.client.skew)

    @_translated
    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """See `SessionStore.find_job`."""
        if not (is_owner(owner) and is_name(turn)):
            return None
        return await self._jobs.find(owner, turn)

    @_translated
    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """See `SessionStore.turns`."""
        check_limit(limit)
        before = read_cursor(cursor, NUMBER) if cursor is not None else _BEFORE_ALL
        snapshot = await self.load(key, turns=0)
        session = snapshot.session
        if session is None:
            raise SessionNotFound
        before = min(before, session.version + 1)
        found = await self._reader.turns(key, session.created_at, limit + 1, before=before)
        page = tuple(found[:limit])
        more = bool(page) and page[-1].number > 1
        return TurnPage(session, page, write_cursor(page[-1].number) if more else None)

    @_translated
    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        check_limit(limit)
        before = read_cursor(cursor, str) if cursor is not None else None
        if before is not None and not is_name(before):
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        found = await self._reader.sessions(owner, limit + 1, before)
        page = tuple(found[:limit])
        more = len(found) > limit
        return SessionPage(page, write_cursor(page[-1].key.session) if more else None)

    @_translated
    async def delete(self, key: SessionKey) -> None:
        """See `SessionStore.delete`. If it is interrupted it can be repeated."""
        from seawall.storage.dynamodb.archives import delete_session  # noqa: PLC0415 - not in turns

        if not (is_key(key) and await delete_session(self.table, key)):
            raise SessionNotFound
        await self._jobs.delete(key, {key.session})
        await self._notifications().delete(key, key.session)

    @_translated
    async def erase(self, owner: Principal) -> int:
        """See `SessionStore.erase`."""
        from seawall.storage.dynamodb.archives import erase_subject  # noqa: PLC0415 - as above
        from seawall.storage.dynamodb.facts import memory_key  # noqa: PLC0415 - as above

        await self._jobs.delete(owner)
        await self._notifications().delete(owner)
        count, sessions = await erase_subject(self.table, owner)
        if sessions:  # their turns may have written a job until they ended
            await self._jobs.delete(owner, sessions)
        await self.table.delete_all([memory_key(owner)])  # as above, something was remembered
        return count

    @_translated
    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """See `SessionStore.archives`."""
        from seawall.storage.dynamodb.archives import read_archives  # noqa: PLC0415 - as above

        check_limit(limit)
        return await read_archives(self._reader, limit, cursor)

    @_translated
    async def restore(self, archive: Archive) -> bool:
        """See `SessionStore.restore`."""
        from seawall.storage.dynamodb.archives import write_archive  # noqa: PLC0415 - as above

        keep = self._keep_seconds
        return await write_archive(self.table, self._reader, archive, keep_seconds=keep)

    def _journals(self) -> "JournalTable":
        from seawall.storage.dynamodb.journals import JournalTable  # noqa: PLC0415 - only with effects

        return JournalTable(
            self.table,
            self._reader,
            self._jobs,
            keep_seconds=self._keep_seconds,
            audit_keep_seconds=self._audit_keep_seconds,
        )

    def _notifications(self) -> "NotificationTable":
        from seawall.storage.dynamodb.notifications import (  # noqa: PLC0415 - only with hand-overs
            NotificationTable,
        )

        return NotificationTable(self.table)

    async def _is_written(self, write: JournalWrite, *, uncertain: bool) -> bool:
        """As `_already_applied`, of a journal."""
        try:
            return await self._journals().is_applied(write)
        except DynamoDBError as error:
            if uncertain:
                raise _unknown(error) from error
            raise

    def _corrected(self, begin: Begin) -> Begin:
        """With times by DynamoDB's clock, if ours is known to be wrong."""
        skew = self.table.client.skew
        if not skew or begin.until is None:
            return begin
        return structs.replace(begin, until=begin.until + skew)

    async def _transact(
        self,
        parts: Sequence[Put | Update | Delete | ConditionCheck],
        *,
        repeatable: bool = False,
    ) -> TransactionCancelled | None:
        """None when it is applied; else which conditions are not met.

        Args:
            parts: The writes.
            repeatable: Whether the caller repeats it later if nothing was written.

        Raises:
            SessionConflict: another transaction uses the items, for longer than we retry, and it is
                not repeatable.
            CommitUnknown: the answer to an attempt was lost.
            DynamoDBError: nothing was written, and not because another turn was first.
        """
        try:
            await self.table.client.transact_write(parts, deadline=self.table.deadline())
        except TransactionCancelled as error:
            if any(each.code == "ConditionalCheckFailed" for each in error.reasons):
                return error
            if error.uncertain:
                raise _unknown(error) from error
            raise
        except DynamoDBError as error:
            if error.uncertain:
                raise _unknown(error) from error
            if isinstance(error, Contended) and not repeatable:
                raise _conflict() from error
            raise
        return None

    def _parts(
        self, commit: Commit, created_at: float | None, stale: Item | None
    ) -> list[Put | Update | Delete]:
        """The writes of a commit; the key's, if there is one, is the last.

        created_at: of the session; None for one that the commit creates. stale: the record of the
        key, of a session that no longer exists.
        """
        now, keep_until = self.table.now(), commit.expires_at + self._keep_seconds
        since = now if created_at is None else created_at
        parts: list[Put | Update | Delete] = [self._head_part(commit, since, now)]
        parts += [
            Put(table_name=self.table.name, item=item)
            for item in turn_items(commit.key, commit.turn, created_at=since, expires_at=keep_until)
        ]
        if commit.attempt:
            parts.append(delete_job_part(self.table.name, commit.turn.id, commit.attempt))
        if commit.idempotency_key is not None:
            parts.append(self._key_part(commit, since, stale, now))
        return parts

    def _head_part(self, commit: Commit, created_at: float, now: float) -> Update:
        state = encode_state(commit.state)
        if len(state) > _MAX_STATE_BYTES:
            raise TurnLimitReached(
                f"The tools' state is too large to be stored: {len(state)} bytes; "
                f"at most {_MAX_STATE_BYTES} are possible."
            )
        values: Item = {
            ":now": number(now),
            ":me": text(commit.lease_owner),
            ":id": text(commit.turn.id),
            ":next": number(commit.turn.number),
            ":state": text(state.decode()),
            ":created": number(created_at),
            ":ends": number(commit.expires_at),
            ":ttl": head_time_to_live(commit.expires_at, self._keep_seconds),
            ":expected": number(commit.expected_version),
            ":latest": number(self.table.latest_lease_end()),
        }
        over = "held <= :now OR held > :latest"
        if commit.expected_version:
            condition = (
                "v = :expected AND c = :created AND e > :now AND "
                f"(attribute_not_exists(holder) OR holder = :me OR {over})"
            )
        else:
            condition = (
                "attribute_not_exists(pk) OR (v > :expected AND e <= :now) OR "
                f"(v = :expected AND (holder = :me OR {over}))"
            )
        sets = "v = :next, #s = :state, c = :created, u = :now, e = :ends, #t = :ttl, #l = :id"
        removed = "holder, held"
        if commit.agent is None:
            removed += ", a"
        else:
            sets += ", a = :agent"
            values[":agent"] = text(commit.agent)
        return Update(
            table_name=self.table.name,
            key=head_key(commit.key),
            update_expression=f"SET {sets} REMOVE {removed}",
            condition_expression=condition,
            expression_attribute_names={"#s": "state", "#t": "ttl", "#l": "last"},
            expression_attribute_values=values,
        )

    def _key_part(
        self, commit: Commit | JournalWrite, created_at: float, stale: Item | None, now: float
    ) -> Put:
        condition = (
            "attribute_not_exists(pk) OR "
            "(attribute_not_exists(n) AND (holder = :me OR held <= :now OR held > :latest))"
        )
        values: Item = {
            ":me": text(commit.lease_owner),
            ":now": number(now),
            ":latest": number(self.table.latest_lease_end()),
        }
        names = None
        if stale is not None:
            condition += " OR (b = :created AND n = :number AND #s = :session)"
            values |= {":created": stale["b"], ":number": stale["n"], ":session": stale["s"]}
            names = {"#s": "s"}
        return Put(
            table_name=self.table.name,
            item={
                **key_record_key(commit.key, commit.idempotency_key or ""),
                "n": number(commit.turn.number),
                "s": text(commit.key.session),
                "i": text(commit.turn.id),
                "f": text(commit.fingerprint or ""),
                "b": number(created_at),
                "ttl": time_to_live(commit.expires_at + self._keep_seconds),
            },
            condition_expression=condition,
            expression_attribute_names=names,
            expression_attribute_values=values,
        )

    async def _session_created_at(self, commit: Commit) -> float | None:
        """When the session was created; None for one that the commit creates."""
        if not commit.expected_version or commit.opened_at is not None:
            return commit.opened_at
        head = await self._reader.head(commit.key)
        if head is None:
            raise _conflict()
        return float(head["c"]["N"])

    async def _already_applied(self, commit: Commit, *, uncertain: bool) -> bool:
        """Whether this very turn is in the session, from an attempt whose answer was lost.

        Raises:
            CommitUnknown: that cannot be read, and there was such an attempt.
        """
        try:
            return await self._is_applied(commit)
        except DynamoDBError as error:
            if uncertain:
                raise _unknown(error) from error
            raise

    async def _is_applied(self, commit: Commit) -> bool:
        turn = commit.turn
        head = await self.table.get(head_key(commit.key))
        if head is None or int(head["v"]["N"]) < turn.number:
            return False
        created_at = float(head["c"]["N"])
        found = await self._reader.turns(commit.key, created_at, 1, before=turn.number + 1)
        return bool(found) and (found[0].id, found[0].attempt) == (turn.id, turn.attempt)

    async def _stale_key_record(
        self, commit: Commit | JournalWrite, error: TransactionCancelled
    ) -> Item | None:
        """The record of the commit's key, if only that refused it, and is of a deleted session."""
        refused = [index for index, each in enumerate(error.reasons) if each.code != "None"]
        if commit.idempotency_key is None or refused != [len(error.reasons) - 1]:
            return None
        record = await self._reader.key_record(commit.key, commit.idempotency_key)
        if record is None or "n" not in record:
            return None
        return None if await self._reader.replay(commit.key, record) else record


def _unknown(error: DynamoDBError) -> CommitUnknown:
    _log.error("sessions: %s: %s", type(error).__name__, error)
    return CommitUnknown(
        "The session store did not answer while the turn was being committed; it may be stored or "
        "not.",
        retry_after=1.0,
    )


def _conflict() -> SessionConflict:
    return SessionConflict("Another turn of this session was committed first.")
