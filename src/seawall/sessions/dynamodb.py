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

import msgspec

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import GET, Delete, Get, Item, Put, Update
from seawall.aws.dynamodb_errors import (
    Contended,
    DynamoDBError,
    TransactionCancelled,
)
from seawall.errors import (
    InvalidField,
    SessionConflict,
    SessionNotFound,
    StoreUnavailable,
    TurnLimitReached,
)
from seawall.sessions.cursors import read_cursor, write_cursor
from seawall.sessions.dynamodb_archives import (
    delete_session,
    erase_subject,
    read_archives,
    write_archive,
)
from seawall.sessions.dynamodb_holds import Holds
from seawall.sessions.dynamodb_items import (
    alive,
    head_key,
    head_time_to_live,
    key_key,
    number,
    text,
    time_to_live,
    turn_items,
)
from seawall.sessions.dynamodb_pending import Promises, promise_part
from seawall.sessions.dynamodb_reading import Reading
from seawall.sessions.dynamodb_table import prepare_table
from seawall.sessions.port import (
    Archive,
    ArchivePage,
    Begin,
    Commit,
    Failure,
    Pending,
    SessionPage,
    Snapshot,
    TurnPage,
)
from seawall.turn import Principal, SessionKey

__all__ = ["DynamoDBStore"]

_log = logging.getLogger("seawall.sessions")
_encode = msgspec.json.Encoder().encode

_OPEN_SECONDS = 60.0
_BEFORE_ALL = 1 << 62
_TRIES = 3
_MAX_NAME_BYTES = 1_000  # of a sort key's 1,024
_MAX_STATE_BYTES = 300_000  # with the largest turn, within the 4 MB of a transaction

P = ParamSpec("P")
T = TypeVar("T")


def _telling(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """What DynamoDB cannot do is told in the words of the port; the log has the rest."""

    @functools.wraps(method)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T:
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

    return told


class DynamoDBStore:
    """Implements `SessionStore` on one table.

    client: its region, endpoint and credentials. create: make the table if there is none.
    seconds: the longest that one call to DynamoDB may take, retries included.
    keep_seconds: a turn may be deleted so long after the end that its session had when it was
    committed. clock: Unix time in seconds.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        *,
        create: bool = False,
        seconds: float = 5.0,
        keep_seconds: float = 30 * 86_400.0,
        clock: Callable[[], float] = time.time,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._table = table
        self._create = create
        self._seconds = seconds
        self._keep = keep_seconds
        self._clock = clock
        self._closing = closing
        self._reading = Reading(client, table, clock, self._deadline)
        self._promises = Promises(client, table, clock, self._deadline)
        self._holds = Holds(
            client,
            table,
            clock,
            self._deadline,
            reading=self._reading,
            promises=self._promises,
        )

    @_telling
    async def open(self) -> None:
        """See `SessionStore.open`."""
        await prepare_table(self._client, self._table, create=self._create, seconds=_OPEN_SECONDS)

    async def close(self) -> None:
        """See `SessionStore.close`."""
        if self._closing is not None:
            await self._closing()

    @_telling
    async def begin(self, begin: Begin) -> Snapshot:
        """See `SessionStore.begin`."""
        return await self._holds.begin(begin)

    @_telling
    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        return await self._holds.renew(begin)

    @_telling
    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        await self._holds.release(begin)

    @_telling
    async def load(self, key: SessionKey, *, turns: int) -> Snapshot:
        """See `SessionStore.load`."""
        return await self._reading.load(key, turns)

    @_telling
    async def commit(self, commit: Commit) -> None:
        """See `SessionStore.commit`."""
        if commit.turn.number != commit.expected_version + 1:
            raise ValueError("a turn's number must be the expected version + 1")
        born = commit.opened_at
        if commit.expected_version and born is None:
            head = await self._head(commit.key)
            if head is None or not alive(head, self._clock()):
                raise _conflict()
            born = float(head["c"]["N"])
        dead: Item | None = None
        for _ in range(_TRIES):
            refused = await self._transact(self._parts(commit, born, dead))
            if refused is None or await self._done_before(commit):
                return
            dead = await self._dead_key(commit, refused)
            if dead is None:
                break
        raise _conflict()

    @_telling
    async def orphans(self, *, limit: int) -> tuple[Pending, ...]:
        """See `SessionStore.orphans`."""
        return await self._promises.orphans(limit)

    @_telling
    async def claim(self, pending: Pending, *, until: float) -> Pending | None:
        """See `SessionStore.claim`."""
        return await self._promises.claim(pending, until)

    @_telling
    async def hand_over(self, pending: Pending) -> None:
        """See `SessionStore.hand_over`."""
        await self._promises.hand_over(pending)

    @_telling
    async def fail(self, pending: Pending, failure: Failure, *, until: float) -> None:
        """See `SessionStore.fail`."""
        await self._promises.fail(pending, failure, until)

    @_telling
    async def promised(self, owner: Principal, turn: str) -> Pending | Failure | None:
        """See `SessionStore.promised`."""
        return await self._promises.promised(owner, turn)

    @_telling
    async def turns(self, key: SessionKey, *, limit: int, cursor: str | None = None) -> TurnPage:
        """See `SessionStore.turns`."""
        before = read_cursor(cursor, int) if cursor is not None else _BEFORE_ALL
        snapshot = await self._reading.load(key, 0)
        session = snapshot.session
        if session is None:
            raise SessionNotFound
        found = await self._reading.turns(
            key, session.created_at, limit + 1, before=min(before, session.version + 1)
        )
        kept = tuple(found[:limit])
        more = len(found) > limit
        return TurnPage(session, kept, write_cursor(kept[-1].number) if more else None)

    @_telling
    async def sessions(
        self, owner: Principal, *, limit: int, cursor: str | None = None
    ) -> SessionPage:
        """See `SessionStore.sessions`."""
        before = read_cursor(cursor, str) if cursor is not None else None
        if before is not None and len(before.encode()) > _MAX_NAME_BYTES:
            raise InvalidField("This is not a cursor of this list.", field="cursor")
        found = await self._reading.sessions(owner, limit + 1, before)
        kept = tuple(found[:limit])
        more = len(found) > limit
        return SessionPage(kept, write_cursor(kept[-1].key.session) if more else None)

    @_telling
    async def delete(self, key: SessionKey) -> None:
        """See `SessionStore.delete`. Cut off in the middle, it can be done again."""
        now = self._clock()
        if not await delete_session(self._client, self._table, key, self._deadline, now):
            raise SessionNotFound
        await self._promises.forget(lambda each: each == key)

    @_telling
    async def erase(self, owner: Principal) -> int:
        """See `SessionStore.erase`."""
        await self._promises.forget(
            lambda each: (each.tenant, each.subject) == (owner.tenant, owner.subject)
        )
        return await erase_subject(self._client, self._table, owner, self._deadline, self._clock())

    @_telling
    async def archives(self, *, limit: int, cursor: str | None = None) -> ArchivePage:
        """See `SessionStore.archives`."""
        return await read_archives(self._reading, limit, cursor)

    @_telling
    async def restore(self, archive: Archive) -> bool:
        """See `SessionStore.restore`."""
        return await write_archive(
            self._client,
            self._table,
            archive,
            deadline=self._deadline,
            now=self._clock(),
            keep=self._keep,
        )

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._seconds

    async def _transact(self, parts: list[Put | Update | Delete]) -> TransactionCancelled | None:
        """None when it is applied; else which conditions do not hold.

        Raises:
            SessionConflict: another transaction has the items, for longer than we try.
            DynamoDBError: it is not a matter of who was first.
        """
        try:
            await self._client.transact_write(parts, deadline=self._deadline())
        except Contended as error:
            if error.uncertain:
                raise
            raise _conflict() from error
        except TransactionCancelled as error:
            if all(each.code != "ConditionalCheckFailed" for each in error.reasons):
                raise
            return error
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
        state = _encode(commit.state)
        if len(state) > _MAX_STATE_BYTES:
            raise TurnLimitReached(
                f"The notes of the tools are too large to be kept: {len(state)} bytes; "
                f"{_MAX_STATE_BYTES} are possible."
            )
        values: Item = {
            ":now": number(now),
            ":me": text(commit.holder),
            ":id": text(commit.turn.id),
            ":next": number(commit.turn.number),
            ":state": text(state.decode()),
            ":born": number(since),
            ":ends": number(commit.expires_at),
            ":ttl": head_time_to_live(commit.expires_at, self._keep),
            ":expected": number(commit.expected_version),
        }
        free = "(attribute_not_exists(holder) OR holder = :me OR held <= :now)"
        if commit.expected_version:
            condition = f"v = :expected AND c = :born AND e > :now AND {free}"
        else:
            condition = (
                "attribute_not_exists(pk) OR (v > :expected AND e <= :now) OR "
                "(v = :expected AND (holder = :me OR held <= :now))"
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
            parts.append(promise_part(self._table, commit.turn.id, commit.attempt))
        if commit.idempotency_key is not None:
            parts.append(self._key_part(commit, since, dead, now))
        return parts

    def _key_part(self, commit: Commit, born: float, dead: Item | None, now: float) -> Put:
        key = key_key(commit.key, commit.idempotency_key or "")
        condition = (
            "attribute_not_exists(pk) OR "
            "(attribute_not_exists(n) AND (holder = :me OR held <= :now))"
        )
        values: Item = {":me": text(commit.holder), ":now": number(now)}
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

    async def _done_before(self, commit: Commit) -> bool:
        """Whether this very turn is in the session, from an attempt whose answer was lost."""
        head = await self._head(commit.key)
        if head is None or int(head["v"]["N"]) < commit.turn.number:
            return False
        found = await self._reading.turns(
            commit.key, float(head["c"]["N"]), 1, before=commit.turn.number + 1, consistent=True
        )
        return bool(found) and found[0] == commit.turn

    async def _dead_key(self, commit: Commit, error: TransactionCancelled) -> Item | None:
        """The record of the commit's key, when only that is in the way, and means nothing."""
        refused = [index for index, each in enumerate(error.reasons) if each.code != "None"]
        if commit.idempotency_key is None or refused != [len(error.reasons) - 1]:
            return None
        record = await self._reading.key_record(commit.key, commit.idempotency_key)
        if record is None or "n" not in record:
            return None
        return None if await self._reading.replay(commit.key, record) else record


def _conflict() -> SessionConflict:
    return SessionConflict("Another turn of this session was committed first.")
