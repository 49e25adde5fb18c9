"""Reads of the session table, and how consistent each is."""

import asyncio

from seawall.aws.dynamodb_calls import Item, Page
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
from seawall.storage.dynamodb.table import SessionTable
from seawall.storage.port import Replay, Session, Snapshot
from seawall.storage.values import MAX_LOADED_BYTES, MAX_PAGE_BYTES
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = ["TableReader"]

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
