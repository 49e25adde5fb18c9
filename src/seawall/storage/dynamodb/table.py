"""The session table: calls on it, each with its own deadline; consistency of reads; creation."""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import (
    CREATE_TABLE,
    DELETE,
    DESCRIBE_TABLE,
    DESCRIBE_TTL,
    GET,
    PUT,
    QUERY,
    UPDATE,
    UPDATE_TTL,
    ConditionFailed,
    Delete,
    DynamoDBError,
    Get,
    InvalidCall,
    Item,
    NoSuchTable,
    Page,
    Put,
    Query,
    Returned,
    Table,
    TableInUse,
    TableOutput,
    Update,
)
from seawall.errors import ConfigError, StoreUnavailable
from seawall.storage.dynamodb import (
    TurnAssembler,
    alive,
    head_key,
    key_record_key,
    owner_partition,
    read_head,
    text,
    turn_partition,
    turn_sort,
)
from seawall.storage.port import Replay, Session, Snapshot, latest_lease_end
from seawall.storage.values import MAX_LOADED_BYTES, MAX_PAGE_BYTES
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = [
    "SessionTable",
    "TableReader",
    "prepare_table",
    "translate_errors",
]

_KEYS = [
    {"AttributeName": "pk", "KeyType": "HASH"},
    {"AttributeName": "sk", "KeyType": "RANGE"},
]
_OPEN_SECONDS = 60.0
_POLL_SECONDS = 0.5

P = ParamSpec("P")
T = TypeVar("T")


def translate_errors(
    name: str, subject: str
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Decorate methods of an adapter: errors of DynamoDB are logged, and become errors of the port.

    Args:
        name: The part of the logger's name after `seawall.`.
        subject: What cannot be used, as the message begins.
    """
    log = logging.getLogger(f"seawall.{name}")

    def decorate(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @functools.wraps(method)
        async def translated(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return await method(*args, **kwargs)
            except (DynamoDBError, ExceptionGroup) as raised:
                error: Exception = raised
                while isinstance(error, ExceptionGroup):  # of concurrent calls
                    error = error.exceptions[0]
                if not isinstance(error, DynamoDBError):
                    raise error from None
                log.error("%s: %s: %s", name, type(error).__name__, error)  # noqa: TRY400 - no defect
                raise StoreUnavailable(
                    f"{subject} cannot be used now; try again later.", retry_after=1.0
                ) from error

        return translated

    return decorate


class SessionTable:
    """Calls on one table, as all parts of the store make them."""

    def __init__(
        self,
        client: DynamoDBClient,
        name: str,
        *,
        seconds: float = 5.0,
        lease_seconds: float = 20.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Use a table that exists, or is created by `prepare_table`.

        Args:
            client: For the table's region and endpoint.
            name: The table's name.
            seconds: The longest that one call may take, retries included.
            lease_seconds: The configured lease, from one renewal on.
            clock: Unix time in seconds.
        """
        self.client = client
        self.name = name
        self.lease_seconds = lease_seconds
        self._seconds = seconds
        self._clock = clock

    def now(self) -> float:
        """Unix time, by DynamoDB's clock if ours is known to be wrong."""
        return self._clock() + self.client.skew

    def deadline(self) -> float:
        """The latest end of a call that starts now, on the event loop's clock."""
        return asyncio.get_running_loop().time() + self._seconds

    def latest_lease_end(self, until: float | None = None) -> float:
        """See `port.latest_lease_end`; `until`: the end of a lease that is requested, if one is."""
        now = self.now()
        return latest_lease_end(now, max(self.lease_seconds, (until or 0.0) - now))

    async def get(self, key: Item) -> Item | None:
        """An item, with a consistent read."""
        asked = Get(table_name=self.name, key=key, consistent_read=True)
        return (await self.client.call(GET, asked, deadline=self.deadline())).item

    async def query(self, condition: str, values: Item, **options: Any) -> Page[Item]:  # noqa: ANN401 - of `Query`
        """One page of a partition."""
        asked = Query(
            table_name=self.name,
            key_condition_expression=condition,
            expression_attribute_values=values,
            **options,
        )
        return await self.client.call(QUERY, asked, deadline=self.deadline())

    async def query_all(self, condition: str, values: Item, **options: Any) -> list[Item]:  # noqa: ANN401 - as above
        """All pages."""
        found: list[Item] = []
        start: Item | None = None
        while True:
            page = await self.query(condition, values, exclusive_start_key=start, **options)
            found += page.items
            start = page.last_evaluated_key
            if start is None:
                return found

    async def put(self, item: Item, condition: str, values: Item | None = None) -> None:
        """Write an item.

        Raises:
            ConditionFailed: the condition is not met.
        """
        asked = Put(
            table_name=self.name,
            item=item,
            condition_expression=condition,
            expression_attribute_values=values,
        )
        await self.client.call(PUT, asked, deadline=self.deadline())

    async def update(
        self,
        key: Item,
        expression: str,
        condition: str,
        values: Item,
        names: dict[str, str] | None = None,
        *,
        returns: Returned = "NONE",
    ) -> Item:
        """Change an item; the attributes that `returns` asks for.

        Raises:
            ConditionFailed: the condition is not met; with the item, if attributes were asked
            for.
        """
        asked = Update(
            table_name=self.name,
            key=key,
            update_expression=expression,
            condition_expression=condition,
            expression_attribute_names=names,
            expression_attribute_values=values,
            return_values=returns,
            return_values_on_condition_check_failure="NONE" if returns == "NONE" else "ALL_OLD",
        )
        return (await self.client.call(UPDATE, asked, deadline=self.deadline())).attributes or {}

    async def delete(self, key: Item, condition: str, values: Item) -> None:
        """Delete an item, if the condition is met."""
        asked = Delete(
            table_name=self.name,
            key=key,
            condition_expression=condition,
            expression_attribute_values=values,
        )
        try:
            await self.client.call(DELETE, asked, deadline=self.deadline())
        except ConditionFailed:
            return

    async def put_all(self, items: Sequence[Item]) -> None:
        """Write items, batch by batch, unconditionally."""
        from seawall.aws.dynamodb_batches import MAX_WRITES, batch_put  # noqa: PLC0415 - seldom

        for start in range(0, len(items), MAX_WRITES):
            batch = items[start : start + MAX_WRITES]
            await batch_put(self.client, self.name, batch, deadline=self.deadline())

    async def delete_all(self, items: Sequence[Item]) -> None:
        """Delete items, batch by batch: a table with little capacity takes its time."""
        from seawall.aws.dynamodb_batches import MAX_WRITES, batch_delete  # noqa: PLC0415 - seldom

        keys: list[Item] = [{"pk": item["pk"], "sk": item["sk"]} for item in items]
        for start in range(0, len(keys), MAX_WRITES):
            batch = keys[start : start + MAX_WRITES]
            await batch_delete(self.client, self.name, batch, deadline=self.deadline())


async def prepare_table(table: SessionTable, *, create: bool) -> None:
    """Check the table, or create it, billed on demand and with expiry.

    Raises:
        ConfigError: it does not exist, or is another kind of table.
        DynamoDBError: DynamoDB cannot be reached.
    """
    client, name = table.client, table.name
    deadline = asyncio.get_running_loop().time() + _OPEN_SECONDS
    try:
        described = await _describe(client, name, deadline)
    except NoSuchTable as error:
        if not create:
            raise ConfigError(
                f"sessions.table: there is no table {name}; create it as in "
                "docs/sessions-dynamodb.md, or set sessions.create_table = true"
            ) from error
        described = await _create(client, name, deadline)
    if described.table.key_schema != _KEYS:
        raise ConfigError(f"sessions.table: {name} is a table, but not one of Seawall's")
    while described.table.table_status == "CREATING":
        await asyncio.sleep(_POLL_SECONDS)
        described = await _describe(client, name, deadline)
    if create:
        await _enable_expiry(client, name, deadline)


async def _describe(client: DynamoDBClient, table: str, deadline: float) -> TableOutput:
    return await client.call(DESCRIBE_TABLE, {"TableName": table}, deadline=deadline)


async def _create(client: DynamoDBClient, table: str, deadline: float) -> TableOutput:
    request = Table(
        table_name=table,
        attribute_definitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")
        ],
        key_schema=_KEYS,
        billing_mode="PAY_PER_REQUEST",
    )
    try:
        return await client.call(CREATE_TABLE, request, deadline=deadline)
    except TableInUse:  # another process was first
        return await _describe(client, table, deadline)


async def _enable_expiry(client: DynamoDBClient, table: str, deadline: float) -> None:
    asked = {"TableName": table}
    found = await client.call(DESCRIBE_TTL, asked, deadline=deadline)
    if found.time_to_live_description.time_to_live_status in ("ENABLED", "ENABLING"):
        return
    wanted = {"Enabled": True, "AttributeName": "ttl"}
    try:
        await client.call(
            UPDATE_TTL, asked | {"TimeToLiveSpecification": wanted}, deadline=deadline
        )
    except InvalidCall as error:
        if "already enabled" not in str(error):  # by another process, at the same time
            raise
    except TableInUse:
        return


_PAGE = 100
_MAX_ITEMS = 1_000  # a page; a page of DynamoDB ends at 1 MB anyway
_HIGHEST = "9" * 13
_UNFINISHED = ("open", "paused")


class TableReader:
    """Reads of one table.

    Heads and keys are read with strong consistency: they decide. Turns are read eventually
    consistent, at half the price: the head's version shows whether one is missing, and only then
    they are read again, with strong consistency.
    """

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    async def head(self, key: SessionKey) -> Item | None:
        """The session's head, if there is a session or a leased name."""
        head = await self._table.get(head_key(key))
        return head if self.is_alive(head) else None

    def is_alive(self, head: Item | None) -> bool:
        """Whether there is a session, or a name that is leased for one."""
        return alive(head, self._table.now(), self._table.latest_lease_end())

    async def load(self, key: SessionKey, turns: int) -> Snapshot:
        """See `SessionStore.load`."""
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self.head(key))
            querying = group.create_task(self.newest_items(key, turns))
        head = reading.result()
        if head is None:
            return Snapshot(None)
        session = read_head(key, head)
        return Snapshot(session, await self.history(key, session, turns, querying.result()))

    async def newest_items(self, key: SessionKey, turns: int) -> Page[Item] | None:
        """The first page of the newest turns, eventually consistent."""
        if not turns:
            return None
        return await self._query_turns(key, turns, _HIGHEST, None, consistent=False)

    async def history(
        self, key: SessionKey, session: Session | None, count: int, page: Page[Item] | None
    ) -> tuple[TurnRecord, ...]:
        """The newest turns of a session whose first page has been read already."""
        if session is None or page is None or not count:
            return ()
        wanted = min(count, session.version)
        turns = _history_of(session.created_at)
        turns.add(page.items)
        while len(turns.found) < count and page.last_evaluated_key is not None and not turns.full:
            start = page.last_evaluated_key
            page = await self._query_turns(key, count, _HIGHEST, start, consistent=False)
            turns.add(page.items)
        newest = turns.newest(session.version, count)
        if turns.full:
            wanted = len(newest)
        numbers = [turn.number for turn in newest]
        complete = numbers == list(range(session.version - wanted + 1, session.version + 1))
        # A turn that is not done may have been stored again since.
        if numbers and complete and all(each.status not in _UNFINISHED for each in newest):
            return newest
        again = _history_of(session.created_at)
        found = await self._collect(again, key, count, session.version + 1)
        return tuple(reversed(found))

    async def turns(
        self,
        key: SessionKey,
        created_at: float,
        count: int,
        *,
        before: int,
        size: int = MAX_PAGE_BYTES,
    ) -> list[TurnRecord]:
        """Turns of a session, newest first, with strong consistency.

        Args:
            key: The session.
            created_at: Its creation time, in Unix seconds.
            count: At most so many.
            before: Only turns with a number less than this.
            size: No more turns once they have reached so many bytes.
        """
        return await self._collect(TurnAssembler(created_at, size=size), key, count, before)

    async def _collect(
        self, turns: TurnAssembler, key: SessionKey, count: int, before: int
    ) -> list[TurnRecord]:
        start: Item | None = None
        highest = turn_sort(before - 1) + "#99"
        while True:
            page = await self._query_turns(key, count, highest, start, consistent=True)
            turns.add(page.items)
            start = page.last_evaluated_key
            if len(turns.found) >= count or start is None or turns.full:
                return turns.found[:count]

    async def sessions(self, owner: Principal, count: int, before: str | None) -> list[Session]:
        """Up to `count` sessions whose id comes before `before`, last first."""
        found: list[Session] = []
        start: Item | None = None
        highest = "S$" if before is None else f"S#{before}"  # "$" comes after "#"
        while True:
            page = await self._table.query(
                "pk = :pk AND sk BETWEEN :low AND :high",
                {
                    ":pk": text(owner_partition(owner)),
                    ":low": text("S#"),
                    ":high": text(highest),
                },
                scan_index_forward=False,
                limit=max(count + 1, 2),
                exclusive_start_key=start,
                consistent_read=True,
            )
            for head in page.items:
                name = head["sk"]["S"].removeprefix("S#")
                if name == before or not self.is_alive(head):
                    continue
                session = read_head(SessionKey(owner.tenant, owner.subject, name), head)
                if session is not None:
                    found.append(session)
            start = page.last_evaluated_key
            if len(found) >= count or start is None:
                return found[:count]

    async def key_record(self, owner: SessionKey, key: str) -> Item | None:
        """The record of an idempotency key."""
        return await self._table.get(key_record_key(owner, key))

    async def replay(self, owner: SessionKey, record: Item) -> Replay | None:
        """The turn of a key's record; None if its session no longer exists."""
        session = SessionKey(owner.tenant, owner.subject, record["s"]["S"])
        created_at = float(record["b"]["N"])
        position = int(float(record["n"]["N"]))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self.head(session))
            finding = group.create_task(self.turns(session, created_at, 1, before=position + 1))
        head, found = reading.result(), finding.result()
        if head is None or float(head["c"]["N"]) != created_at or head["v"]["N"] == "0":
            return None
        if not found or found[0].id != record["i"]["S"]:
            return None
        return Replay(session.session, record["f"]["S"], found[0])

    async def owner_keys(self, owner: Principal) -> list[Item]:
        """The records of all idempotency keys of an owner."""
        return await self._table.query_all(
            "pk = :pk AND begins_with(sk, :prefix)",
            {":pk": text(owner_partition(owner)), ":prefix": text("K#")},
            consistent_read=True,
        )

    async def scan(self, start: Item | None) -> Page[Item]:
        """A page of the heads of all sessions."""
        from seawall.aws.dynamodb_calls import Operation  # noqa: PLC0415 - not on a turn's path

        request: dict[str, object] = {
            "TableName": self._table.name,
            "FilterExpression": "attribute_exists(v)",  # which only heads have
            "ConsistentRead": True,
            "Limit": _PAGE,
        }
        if start is not None:
            request["ExclusiveStartKey"] = start
        operation = Operation("Scan", Page[Item])
        deadline = self._table.deadline()
        return await self._table.client.call(operation, request, deadline=deadline)

    async def _query_turns(
        self, key: SessionKey, count: int, highest: str, start: Item | None, *, consistent: bool
    ) -> Page[Item]:
        return await self._table.query(
            "pk = :pk AND sk <= :high",
            {":pk": text(turn_partition(key)), ":high": text(highest)},
            scan_index_forward=False,
            limit=min(max(1, count), _MAX_ITEMS),
            exclusive_start_key=start,
            consistent_read=consistent,
        )


def _history_of(created_at: float) -> TurnAssembler:
    return TurnAssembler(created_at, size=MAX_PAGE_BYTES, largest=MAX_LOADED_BYTES)
