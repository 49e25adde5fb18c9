"""What is read of the session table, and how consistently."""

import asyncio
from collections.abc import Callable

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import GET, QUERY, Get, Item, Page, Query
from seawall.storage.dynamodb.items import (
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
from seawall.storage.port import Replay, Session, Snapshot
from seawall.storage.values import MAX_LOADED_BYTES, MAX_PAGE_BYTES
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = ["TableReader"]

_PAGE = 100
_MOST = 1_000  # items a page; a page of DynamoDB ends at 1 MB anyway


class TableReader:
    """Reads of one table.

    Heads and keys are read consistently: they decide. Turns are read eventually consistently, at
    half the price, since the head's version tells whether something is missing; only then they
    are read again, consistently.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Callable[[], float],
        deadline: Callable[[], float],
        lease: float,
    ) -> None:
        """lease: how long a turn holds its session from one renewal, in seconds."""
        self._client = client
        self._table = table
        self._clock = clock
        self._deadline = deadline
        self._lease = lease

    async def head(self, key: SessionKey) -> Item | None:
        """The session's head, if there is a session or a held name."""
        asked = Get(table_name=self._table, key=head_key(key), consistent_read=True)
        head = (await self._client.call(GET, asked, deadline=self._deadline())).item
        return head if self.alive(head) else None

    def alive(self, head: Item | None) -> bool:
        """Whether there is a session, or a name that is held for one."""
        return alive(head, self._clock(), self._lease)

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
        """The first page of the newest turns, as far as DynamoDB's nearest copy knows."""
        if not turns:
            return None
        return await self._query_turns(key, turns, _highest(), None, consistent=False)

    async def history(
        self, key: SessionKey, session: Session | None, count: int, page: Page[Item] | None
    ) -> tuple[TurnRecord, ...]:
        """The newest turns of a session whose first page has been read already."""
        if session is None or page is None or not count:
            return ()
        wanted = min(count, session.version)
        turns = _history_of(session.created_at)
        turns.take(page.items)
        while len(turns.found) < count and page.last_evaluated_key is not None and not turns.full:
            page = await self._query_turns(
                key, count, _highest(), page.last_evaluated_key, consistent=False
            )
            turns.take(page.items)
        newest = turns.newest(session.version, count)
        if turns.full:
            wanted = len(newest)
        numbers = [turn.number for turn in newest]
        if numbers and numbers == list(range(session.version - wanted + 1, session.version + 1)):
            return newest
        again = _history_of(session.created_at)
        found = await self._take(again, key, count, session.version + 1, consistent=True)
        return tuple(reversed(found))

    async def turns(
        self,
        key: SessionKey,
        born: float,
        count: int,
        *,
        before: int,
        consistent: bool = True,
        size: int = MAX_PAGE_BYTES,
    ) -> list[TurnRecord]:
        """Up to `count` turns with a number less than `before`, newest first.

        size: no more, once they have reached so many bytes.
        """
        turns = TurnAssembler(born, size=size)
        return await self._take(turns, key, count, before, consistent=consistent)

    async def _take(
        self, turns: TurnAssembler, key: SessionKey, count: int, before: int, *, consistent: bool
    ) -> list[TurnRecord]:
        start: Item | None = None
        while True:
            page = await self._query_turns(
                key, count, turn_sort(before - 1) + "#99", start, consistent=consistent
            )
            turns.take(page.items)
            start = page.last_evaluated_key
            if len(turns.found) >= count or start is None or turns.full:
                return turns.found[:count]

    async def sessions(self, owner: Principal, count: int, before: str | None) -> list[Session]:
        """Up to `count` sessions whose id comes before `before`, last first."""
        found: list[Session] = []
        start: Item | None = None
        highest = "S$" if before is None else f"S#{before}"  # "$" comes after "#"
        while True:
            page = await self._client.call(
                QUERY,
                Query(
                    table_name=self._table,
                    key_condition_expression="pk = :pk AND sk BETWEEN :low AND :high",
                    expression_attribute_values={
                        ":pk": text(owner_partition(owner)),
                        ":low": text("S#"),
                        ":high": text(highest),
                    },
                    scan_index_forward=False,
                    limit=max(count + 1, 2),
                    exclusive_start_key=start,
                    consistent_read=True,
                ),
                deadline=self._deadline(),
            )
            for head in page.items:
                name = head["sk"]["S"].removeprefix("S#")
                if name == before or not self.alive(head):
                    continue
                session = read_head(SessionKey(owner.tenant, owner.subject, name), head)
                if session is not None:
                    found.append(session)
            start = page.last_evaluated_key
            if len(found) >= count or start is None:
                return found[:count]

    async def key_record(self, owner: SessionKey, key: str) -> Item | None:
        """What is known of an idempotency key."""
        asked = Get(table_name=self._table, key=key_record_key(owner, key), consistent_read=True)
        return (await self._client.call(GET, asked, deadline=self._deadline())).item

    async def replay(self, owner: SessionKey, record: Item) -> Replay | None:
        """The turn of a key's record; None where its session is no more."""
        session = SessionKey(owner.tenant, owner.subject, record["s"]["S"])
        born = float(record["b"]["N"])
        position = int(float(record["n"]["N"]))
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self.head(session))
            finding = group.create_task(self.turns(session, born, 1, before=position + 1))
        head, found = reading.result(), finding.result()
        if head is None or float(head["c"]["N"]) != born or head["v"]["N"] == "0":
            return None
        if not found or found[0].id != record["i"]["S"]:
            return None
        return Replay(session.session, record["f"]["S"], found[0])

    async def owner_items(self, owner: Principal | SessionKey, prefix: str) -> list[Item]:
        """All items of an owner's partition whose sort key begins so."""
        found: list[Item] = []
        start: Item | None = None
        while True:
            page = await self._client.call(
                QUERY,
                Query(
                    table_name=self._table,
                    key_condition_expression="pk = :pk AND begins_with(sk, :prefix)",
                    expression_attribute_values={
                        ":pk": text(owner_partition(owner)),
                        ":prefix": text(prefix),
                    },
                    exclusive_start_key=start,
                    consistent_read=True,
                ),
                deadline=self._deadline(),
            )
            found += page.items
            start = page.last_evaluated_key
            if start is None:
                return found

    async def scan(self, start: Item | None) -> Page[Item]:
        """A page of the heads of all sessions."""
        from seawall.aws.dynamodb_calls import Operation  # noqa: PLC0415 - not on a turn's path

        request: dict[str, object] = {
            "TableName": self._table,
            "FilterExpression": "attribute_exists(v)",  # which only heads have
            "ConsistentRead": True,
            "Limit": _PAGE,
        }
        if start is not None:
            request["ExclusiveStartKey"] = start
        operation = Operation("Scan", Page[Item])
        return await self._client.call(operation, request, deadline=self._deadline())

    async def _query_turns(
        self, key: SessionKey, count: int, highest: str, start: Item | None, *, consistent: bool
    ) -> Page[Item]:
        return await self._client.call(
            QUERY,
            Query(
                table_name=self._table,
                key_condition_expression="pk = :pk AND sk <= :high",
                expression_attribute_values={
                    ":pk": text(turn_partition(key)),
                    ":high": text(highest),
                },
                scan_index_forward=False,
                limit=min(max(1, count), _MOST),
                exclusive_start_key=start,
                consistent_read=consistent,
            ),
            deadline=self._deadline(),
        )


def _history_of(born: float) -> TurnAssembler:
    return TurnAssembler(born, size=MAX_PAGE_BYTES, largest=MAX_LOADED_BYTES)


def _highest() -> str:
    return "9" * 13
