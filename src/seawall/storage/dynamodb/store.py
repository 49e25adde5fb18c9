"""Sessions in DynamoDB, shared by all servers. docs/sessions-dynamodb.md describes the table.

A turn of a session costs two round trips: the hold on its head and the query of its history at
the same time, then one transaction. What is written does not depend on the history's length.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from msgspec import structs

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import GET, Delete, Get, Item, Put, Update
from seawall.aws.dynamodb_errors import (
    Contended,
    DynamoDBError,
    TransactionCancelled,
)
from seawall.errors import (
    CommitUnknown,
    InvalidField,
    SessionConflict,
    SessionNotFound,
    StoreUnavailable,
    TurnLimitReached,
)
from seawall.storage.cursors import NUMBER, read_cursor, write_cursor
from seawall.storage.dynamodb.archives import (
    delete_session,
    erase_subject,
    read_archives,
    write_archive,
)
from seawall.storage.dynamodb.items import (
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
from seawall.storage.dynamodb.reader import TableReader
from seawall.storage.dynamodb.table import prepare_table
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
from seawall.storage.values import (
    check_commit,
    check_idempotency_key,
    check_limit,
    encode_state,
    is_key,
    is_name,
    is_owner,
)
from seawall.turn import Principal, SessionKey

__all__ = ["DynamoDBStore"]

_log = logging.getLogger("seawall.storage")

_OPEN_SECONDS = 60.0
_BEFORE_ALL = 1 << 62
_TRIES = 3
_MAX_STATE_BYTES = 300_000  # with the largest turn, within the 4 MB of a transaction

P = ParamSpec("P")
T = TypeVar("T")


def _translated(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """What DynamoDB cannot do is told in the words of the port; the log has the rest."""

    @functools.wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except (DynamoDBError, ExceptionGroup) as raised:
            error: Exception = raised
            while isinstance(error, ExceptionGroup):  # of calls that are made at the same time
                error = error.exceptions[0]
            if not isinstance(error, DynamoDBError):
                raise error from None
            _log.error("sessions: %s: %s", type(error).__name__, error)
            raise StoreUnavailable(
                "The session store cannot be used now; try again later.", retry_after=1.0
            ) from error

    return wrapped


class DynamoDBStore:
    """Implements `SessionStore` on one table.

    client: its region, endpoint and credentials. create: make the table if there is none.
    seconds: the longest that one call to DynamoDB may take, retries included.
    keep_seconds: a turn may be deleted so long after the end that its session had when it was
    committed. lease_seconds: how long a turn holds its session from one renewal, as configured.
    clock: Unix time in seconds. Where it is off by so much that DynamoDB refuses signatures, the
    store goes by DynamoDB's: what is written then expires no earlier, or later, than it should.
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
    ) -> None:
        self._client = self.client = client
        self._table = self.table = table
        self._create = create
        self._seconds = seconds
        self._keep = keep_seconds
        self._lease = lease_seconds
        self._own_clock = clock
        self._closing = closing
        self._reader = TableReader(client, table, self._clock, self._deadline, lease_seconds)
        self._jobs = JobTable(client, table, self._clock, self._deadline, lease_seconds)
        self._holds = Leases(
            client,
            table,
            self._clock,
            self._deadline,
            lease=lease_seconds,
            reader=self._reader,
            jobs=self._jobs,
        )

    @_translated
    async def open(self) -> None:
        """See `SessionStore.open`."""
        await prepare_table(self._client, self._table, create=self._create, seconds=_OPEN_SECONDS)

    async def close(self) -> None:
        """See `SessionStore.close`."""
        if self._closing is not None:
            await self._closing()

    @_translated
    async def begin(self, begin: Begin) -> Snapshot:
        """See `SessionStore.begin`."""
        check_idempotency_key(begin.idempotency_key)
        if not is_key(begin.key, begin.turn):
            return Snapshot(None)
        return await self._holds.begin(self._corrected(begin))

    @_translated
    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        return await self._holds.renew(self._corrected(begin))

    @_translated
    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        await self._holds.release(begin)

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
        if self._client.skew:
            commit = structs.replace(commit, expires_at=commit.expires_at + self._client.skew)
        born = await self._session_created_at(commit)
        dead: Item | None = None
        for _ in range(_TRIES):
            refused = await self._transact(self._parts(commit, born, dead))
            if refused is None:
                return
            if await self._already_applied(commit, uncertain=refused.uncertain):
                return
            dead = await self._stale_key_record(commit, refused)
            if dead is None:
                break
        raise _conflict()

    @_translated
    async def orphaned_jobs(self, *, limit: int) -> tuple[BackgroundJob, ...]:
        """See `SessionStore.orphaned_jobs`."""
        check_limit(limit)
        return await self._jobs.orphaned_jobs(limit)

    @_translated
    async def claim(self, background_job: BackgroundJob, *, until: float) -> BackgroundJob | None:
        """See `SessionStore.claim`."""
        return await self._jobs.claim(background_job, until + self._client.skew)

    @_translated
    async def hand_over(self, background_job: BackgroundJob) -> None:
        """See `SessionStore.hand_over`."""
        await self._jobs.hand_over(background_job)

    @_translated
    async def fail(
        self, background_job: BackgroundJob, failure: JobFailure, *, until: float
    ) -> None:
        """See `SessionStore.fail`."""
        await self._jobs.fail(background_job, failure, until + self._client.skew)

    @_translated
    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """See `SessionStore.find_job`."""
        if not (is_owner(owner) and is_name(turn)):
            return None
        return await self._jobs.find_job(owner, turn)

    @_translated
    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """See `SessionStore.turns`."""
        check_limit(limit)
        before = read_cursor(cursor, NUMBER) if cursor is not None else _BEFORE_ALL
        snapshot = await self.load(key, turns=0)
        session = snapshot.session
        if session is None:
            raise SessionNotFound
        found = await self._reader.turns(
            key,
            session.created_at,
            limit + 1,
            before=min(before, session.version + 1),
        )
        kept = tuple(found[:limit])
        more = bool(kept) and kept[-1].number > 1
        return TurnPage(session, kept, write_cursor(kept[-1].number) if more else None)

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
        kept = tuple(found[:limit])
        more = len(found) > limit
        return SessionPage(kept, write_cursor(kept[-1].key.session) if more else None)

    @_translated
    async def delete(self, key: SessionKey) -> None:
        """See `SessionStore.delete`. Cut off in the middle, it can be done again."""
        if not is_key(key):
            raise SessionNotFound
        now = self._clock()
        if not await delete_session(self._client, self._table, key, self._deadline, now):
            raise SessionNotFound
        await self._jobs.forget(lambda each: each == key)

    @_translated
    async def erase(self, owner: Principal) -> int:
        """See `SessionStore.erase`."""
        await self._jobs.forget(
            lambda each: (each.tenant, each.subject) == (owner.tenant, owner.subject)
        )
        return await erase_subject(self._client, self._table, owner, self._deadline, self._clock())

    @_translated
    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """See `SessionStore.archives`."""
        check_limit(limit)
        return await read_archives(self._reader, limit, cursor)

    @_translated
    async def restore(self, archive: Archive) -> bool:
        """See `SessionStore.restore`."""
        return await write_archive(
            self._client,
            self._table,
            archive,
            deadline=self._deadline,
            now=self._clock(),
            keep=self._keep,
            lease=self._lease,
        )

    def _clock(self) -> float:
        """Unix time, by DynamoDB's clock where ours is known to be wrong."""
        return self._own_clock() + self._client.skew

    def _corrected(self, begin: Begin) -> Begin:
        """With times by DynamoDB's clock, where ours is known to be wrong."""
        skew = self._client.skew
        if not skew or begin.until is None:
            return begin
        return structs.replace(begin, until=begin.until + skew)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._seconds

    async def _transact(self, parts: list[Put | Update | Delete]) -> TransactionCancelled | None:
        """None when it is applied; else which conditions do not hold.

        Raises:
            SessionConflict: another transaction has the items, for longer than we try.
            CommitUnknown: an attempt was made whose answer is lost.
            DynamoDBError: nothing was written, and it is not a matter of who was first.
        """
        try:
            await self._client.transact_write(parts, deadline=self._deadline())
        except TransactionCancelled as error:
            if any(each.code == "ConditionalCheckFailed" for each in error.reasons):
                return error
            if error.uncertain:
                raise _unknown(error) from error
            raise
        except DynamoDBError as error:
            if error.uncertain:
                raise _unknown(error) from error
            if isinstance(error, Contended):
                raise _conflict() from error
            raise
        return None

    async def _head(self, key: SessionKey) -> Item | None:
        asked = Get(table_name=self._table, key=head_key(key), consistent_read=True)
        return (await self._client.call(GET, asked, deadline=self._deadline())).item

    def _parts(
        self, commit: Commit, born: float | None, dead: Item | None
    ) -> list[Put | Update | Delete]:
        """The transaction: head, turn, and the idempotency key where there is one.

        dead: the record of that key, of a session that is no more.
        """
        now = self._clock()
        since = now if born is None else born
        state = encode_state(commit.state)
        if len(state) > _MAX_STATE_BYTES:
            raise TurnLimitReached(
                f"The notes of the tools are too large to be kept: {len(state)} bytes; "
                f"{_MAX_STATE_BYTES} are possible."
            )
        values: Item = {
            ":now": number(now),
            ":me": text(commit.lease_owner),
            ":id": text(commit.turn.id),
            ":next": number(commit.turn.number),
            ":state": text(state.decode()),
            ":born": number(since),
            ":ends": number(commit.expires_at),
            ":ttl": head_time_to_live(commit.expires_at, self._keep),
            ":expected": number(commit.expected_version),
            ":latest": number(latest_lease_end(now, self._lease)),
        }
        over = "held <= :now OR held > :latest"
        free = f"(attribute_not_exists(holder) OR holder = :me OR {over})"
        if commit.expected_version:
            condition = f"v = :expected AND c = :born AND e > :now AND {free}"
        else:
            condition = (
                "attribute_not_exists(pk) OR (v > :expected AND e <= :now) OR "
                f"(v = :expected AND (holder = :me OR {over}))"
            )
        names = {"#s": "state"}
        sets = "v = :next, #s = :state, c = :born, u = :now, e = :ends, #t = :ttl, #l = :id"
        removed = "holder, held"
        names |= {"#t": "ttl", "#l": "last"}
        if commit.agent is None:
            removed += ", a"
        else:
            sets += ", a = :agent"
            values[":agent"] = text(commit.agent)
        parts: list[Put | Update | Delete] = [
            Update(
                table_name=self._table,
                key=head_key(commit.key),
                update_expression=f"SET {sets} REMOVE {removed}",
                condition_expression=condition,
                expression_attribute_names=names,
                expression_attribute_values=values,
            )
        ]
        ends = commit.expires_at + self._keep
        parts += [
            Put(table_name=self._table, item=item)
            for item in turn_items(commit.key, commit.turn, born=since, expires_at=ends)
        ]
        if commit.attempt:
            parts.append(delete_job_part(self._table, commit.turn.id, commit.attempt))
        if commit.idempotency_key is not None:
            parts.append(self._key_part(commit, since, dead, now))
        return parts

    def _key_part(self, commit: Commit, born: float, dead: Item | None, now: float) -> Put:
        key = key_record_key(commit.key, commit.idempotency_key or "")
        condition = (
            "attribute_not_exists(pk) OR "
            "(attribute_not_exists(n) AND (holder = :me OR held <= :now OR held > :latest))"
        )
        values: Item = {
            ":me": text(commit.lease_owner),
            ":now": number(now),
            ":latest": number(latest_lease_end(now, self._lease)),
        }
        names = None
        if dead is not None:
            condition += " OR (b = :born AND n = :number AND #s = :session)"
            values |= {":born": dead["b"], ":number": dead["n"], ":session": dead["s"]}
            names = {"#s": "s"}
        return Put(
            table_name=self._table,
            item={
                **key,
                "n": number(commit.turn.number),
                "s": text(commit.key.session),
                "i": text(commit.turn.id),
                "f": text(commit.fingerprint or ""),
                "b": number(born),
                "ttl": time_to_live(commit.expires_at + self._keep),
            },
            condition_expression=condition,
            expression_attribute_names=names,
            expression_attribute_values=values,
        )

    async def _session_created_at(self, commit: Commit) -> float | None:
        """When the session was created; None for one that the commit creates."""
        if not commit.expected_version or commit.opened_at is not None:
            return commit.opened_at
        head = await self._head(commit.key)
        if head is None or not self._reader.alive(head):
            raise _conflict()
        return float(head["c"]["N"])

    async def _already_applied(self, commit: Commit, *, uncertain: bool) -> bool:
        """Whether this very turn is in the session, from an attempt whose answer was lost.

        Raises:
            CommitUnknown: that cannot be seen, and there was such an attempt.
        """
        try:
            return await self._is_applied(commit)
        except DynamoDBError as error:
            if uncertain:
                raise _unknown(error) from error
            raise

    async def _is_applied(self, commit: Commit) -> bool:
        head = await self._head(commit.key)
        if head is None or int(head["v"]["N"]) < commit.turn.number:
            return False
        found = await self._reader.turns(
            commit.key, float(head["c"]["N"]), 1, before=commit.turn.number + 1, consistent=True
        )
        turn = commit.turn
        return bool(found) and (found[0].id, found[0].attempt) == (turn.id, turn.attempt)

    async def _stale_key_record(self, commit: Commit, error: TransactionCancelled) -> Item | None:
        """The record of the commit's key, when only that is in the way, and means nothing."""
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
        "The session store did not answer while the turn was being stored; it may be stored, or "
        "not.",
        retry_after=1.0,
    )


def _conflict() -> SessionConflict:
    return SessionConflict("Another turn of this session was committed first.")
