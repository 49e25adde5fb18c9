"""Facts about subjects in DynamoDB: one item in the partition of its owner, erased with it."""

import msgspec

from seawall.aws.dynamodb_calls import ConditionFailed, InvalidCall, Item, Operation, Page
from seawall.errors import InvalidField
from seawall.storage.dynamodb import number, owner_partition, text, time_to_live
from seawall.storage.dynamodb.table import SessionTable, translate_errors
from seawall.storage.facts import Memory, MemoryPage, OwnedMemory
from seawall.storage.values import (
    check_limit,
    check_memory,
    encode_record,
    is_owner,
    read_cursor,
    write_cursor,
)
from seawall.turn import Principal

__all__ = ["DynamoDBFacts", "memory_key"]

_SORT = "M#"
_SCANNED = 500  # items, of which few are memories
_MAX_SCANS = 50

_decode = msgspec.json.Decoder(Memory).decode
_translated = translate_errors("memory", "The store of facts")


class DynamoDBFacts:
    """Implements `Facts` in the table of a session store."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    @_translated
    async def read(self, owner: Principal) -> Memory:
        """See `Facts.read`; with strong consistency."""
        if not is_owner(owner):
            return Memory()
        item = await self._table.get(memory_key(owner))
        return Memory() if item is None else _memory(item)

    @_translated
    async def write(self, owner: Principal, memory: Memory, *, expected: int) -> bool:
        """See `Facts.write`."""
        check_memory(owner, memory)
        item: Item = {
            **memory_key(owner),
            "m": text(encode_record(memory).decode()),
            "mr": number(memory.revision),
            "mt": text(owner.tenant),
            "mo": text(owner.subject),
            "ttl": time_to_live(memory.ends_at + self._table.client.skew),
        }
        condition, values = "attribute_not_exists(pk)", None
        if expected:
            condition, values = "mr = :expected", {":expected": number(expected)}
        try:
            await self._table.put(item, condition, values)
        except ConditionFailed:  # by another writer, or by its own first attempt
            stored = await self._table.get(memory_key(owner))
            return stored is not None and stored["m"] == item["m"]
        return True

    @_translated
    async def page(self, *, limit: int, cursor: str | None = None) -> MemoryPage:
        """See `Facts.page`: a scan of the table."""
        check_limit(limit)
        start: Item | None = None
        if cursor is not None:
            partition, sort = read_cursor(cursor, tuple[str, str])
            start = {"pk": text(partition), "sk": text(sort)}
        found: list[OwnedMemory] = []
        for _ in range(_MAX_SCANS):
            try:
                page = await self._scan(start)
            except InvalidCall as error:
                if cursor is None:
                    raise
                raise InvalidField("This is not a cursor of this list.", field="cursor") from error
            for item in page.items:
                owner = Principal(item["mt"]["S"], item["mo"]["S"])
                if len(found) == limit:
                    last = memory_key(found[-1].owner)
                    return MemoryPage(tuple(found), _cursor(last))
                found.append(OwnedMemory(owner, _memory(item)))
            start = page.last_evaluated_key
            if start is None:
                break
        return MemoryPage(tuple(found), None if start is None else _cursor(start))

    async def _scan(self, start: Item | None) -> Page[Item]:
        request: dict[str, object] = {
            "TableName": self._table.name,
            "FilterExpression": "attribute_exists(mr)",  # which only memories have
            "ConsistentRead": True,
            "Limit": _SCANNED,
        }
        if start is not None:
            request["ExclusiveStartKey"] = start
        operation = Operation("Scan", Page[Item])
        return await self._table.client.call(operation, request, deadline=self._table.deadline())


def memory_key(owner: Principal) -> Item:
    """The key of what is remembered of a subject."""
    return {"pk": text(owner_partition(owner)), "sk": text(_SORT)}


def _cursor(key: Item) -> str:
    return write_cursor((key["pk"]["S"], key["sk"]["S"]))


def _memory(item: Item) -> Memory:
    return _decode(item["m"]["S"])
