"""Promised turns in DynamoDB: items of a few partitions that hold nothing else.

So whoever looks for orphans reads only the turns in the background that run just then, with one
query a partition; where there are none that is the least that a query can cost.
"""

import asyncio
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_batches import MAX_WRITES, batch_delete
from seawall.aws.dynamodb_calls import (
    GET,
    PUT,
    QUERY,
    UPDATE,
    Delete,
    Get,
    Item,
    Put,
    Query,
    Update,
)
from seawall.aws.dynamodb_errors import ConditionFailed, TransactionCancelled
from seawall.errors import InvalidField
from seawall.sessions.dynamodb_items import (
    head_key,
    key_key,
    number,
    owner_partition,
    text,
    time_to_live,
)
from seawall.sessions.port import Failure, Pending, latest_end
from seawall.sessions.values import encode_pending
from seawall.turn import Principal, SessionKey

__all__ = ["Promises", "promise_part"]

_PARTITIONS = 4
_PAGE = 100
_DAY = 86_400.0
_MAX_RECORD_BYTES = 390_000  # of an item's 400 KB

_encode = msgspec.json.Encoder().encode
_decode_pending = msgspec.json.Decoder(Pending).decode
_decode_failure = msgspec.json.Decoder(Failure).decode


class Promises:
    """Those in one table; see `SessionStore`."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Callable[[], float],
        deadline: Callable[[], float],
        lease: float,
    ) -> None:
        """lease: how long a turn holds its session from one renewal, in seconds."""
        self._lease = lease
        self._client = client
        self._table = table
        self._clock = clock
        self._deadline = deadline

    async def keep(self, pending: Pending, until: float) -> None:
        """From now on it is promised. Done twice, it is as done once.

        Raises:
            InvalidField: the request is larger than an item may be.
        """
        record = encode_pending(pending)
        if len(record) > _MAX_RECORD_BYTES:
            raise InvalidField(
                f"A turn in the background may have {_MAX_RECORD_BYTES} bytes in DynamoDB, with "
                f"all that belongs to it; this has {len(record)}.",
                field="text",
            )
        asked = Put(
            table_name=self._table,
            item={
                **_key(pending),
                "r": text(record.decode()),
                "n": number(pending.attempt),
                "h": number(pending.handed),
                "held": number(until),
                "ttl": time_to_live(pending.ends_at + 7 * _DAY),
            },
            condition_expression="attribute_not_exists(pk)",
        )
        try:
            await self._client.call(PUT, asked, deadline=self._deadline())
        except ConditionFailed:
            return

    async def renew(self, pending: Pending, until: float) -> bool:
        """Run on until then; False when it was taken over."""
        return await self._update(pending, "SET held = :until", {":until": number(until)})

    async def orphans(self, limit: int) -> tuple[Pending, ...]:
        """See `SessionStore.orphans`."""
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(self._items(number, orphans=True))
                for number in range(_PARTITIONS)
            ]
        found = [item for each in asking for item in each.result()]
        found.sort(key=lambda item: float(item["held"]["N"]))
        return tuple(_pending(item) for item in found[:limit])

    async def claim(self, pending: Pending, until: float) -> Pending | None:
        """See `SessionStore.claim`. Cut off in the middle, it is claimed, and waited for."""
        claimed = msgspec.structs.replace(pending, attempt=pending.attempt + 1)
        now = self._clock()
        won = await self._update(
            pending,
            "SET held = :until, n = :next",
            {
                ":until": number(until),
                ":next": number(claimed.attempt),
                ":now": number(now),
                ":latest": number(latest_end(now, max(self._lease, until - now))),
            },
            "(held <= :now OR held > :latest)",
        )
        if not won:
            return None
        values: Item = {
            ":until": number(until),
            ":me": text(claimed.holder),
            ":before": text(pending.holder),
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._move(head_key(pending.key), values))
            if (key := pending.request.idempotency_key) is not None:
                group.create_task(self._move(key_key(pending.key, key), values))
        return claimed

    async def hand_over(self, pending: Pending) -> None:
        """See `SessionStore.hand_over`."""
        handed = {":zero": number(0), ":handed": number(pending.handed + 1)}
        await self._update(pending, "SET held = :zero, h = :handed", handed)

    async def fail(self, pending: Pending, failure: Failure, until: float) -> None:
        """See `SessionStore.fail`."""
        reason: Item = {
            **_failure_key(pending.key, pending.request.id),
            "p": text(_encode(failure).decode()),
            "s": text(pending.key.session),
            "e": number(until),
            "ttl": time_to_live(until),
        }
        parts: list[Put | Update | Delete] = [
            promise_part(self._table, pending.request.id, pending.attempt),
            Put(table_name=self._table, item=reason),
        ]
        try:
            await self._client.transact_write(parts, deadline=self._deadline())
        except TransactionCancelled as error:
            if all(each.code != "ConditionalCheckFailed" for each in error.reasons):
                raise

    async def promised(self, owner: Principal, turn: str) -> Pending | Failure | None:
        """See `SessionStore.promised`."""
        async with asyncio.TaskGroup() as group:
            pending = group.create_task(self._get(_turn_key(turn)))
            failed = group.create_task(self._get(_failure_key(owner, turn)))
        item, reason = pending.result(), failed.result()
        if item is not None:
            found = _pending(item)
            if (found.key.tenant, found.key.subject) == (owner.tenant, owner.subject):
                return found
        if reason is not None and float(reason["e"]["N"]) > self._clock():
            return _decode_failure(reason["p"]["S"])
        return None

    async def forget(self, of: Callable[[SessionKey], bool]) -> None:
        """Remove the promises of these sessions."""
        for partition in range(_PARTITIONS):
            items = [item for item in await self._items(partition) if of(_pending(item).key)]
            keys: list[Item] = [{"pk": item["pk"], "sk": item["sk"]} for item in items]
            for start in range(0, len(keys), MAX_WRITES):
                await batch_delete(
                    self._client,
                    self._table,
                    keys[start : start + MAX_WRITES],
                    deadline=self._deadline(),
                )

    async def _items(self, partition: int, *, orphans: bool = False) -> list[Item]:
        values: Item = {":pk": text(f"P#{partition}")}
        if orphans:
            now = self._clock()
            values |= {":now": number(now), ":latest": number(latest_end(now, self._lease))}
        found: list[Item] = []
        start: Item | None = None
        while True:
            asked = Query(
                table_name=self._table,
                key_condition_expression="pk = :pk",
                filter_expression="held <= :now OR held > :latest" if orphans else None,
                expression_attribute_values=values,
                limit=_PAGE,
                exclusive_start_key=start,
                consistent_read=not orphans,  # the claim decides
            )
            page = await self._client.call(QUERY, asked, deadline=self._deadline())
            found += page.items
            start = page.last_evaluated_key
            if start is None:
                return found

    async def _get(self, key: Item) -> Item | None:
        asked = Get(table_name=self._table, key=key, consistent_read=True)
        return (await self._client.call(GET, asked, deadline=self._deadline())).item

    async def _move(self, key: Item, values: Item) -> None:
        """A head, or a key record, goes from one attempt to the next."""
        asked = Update(
            table_name=self._table,
            key=key,
            update_expression="SET holder = :me, held = :until",
            condition_expression="holder = :before OR holder = :me",
            expression_attribute_values=values,
        )
        await _tried(self._client.call(UPDATE, asked, deadline=self._deadline()))

    async def _update(
        self, pending: Pending, expression: str, values: Item, condition: str = ""
    ) -> bool:
        """Change the promise; False when it is not this attempt's any more.

        A claim whose answer was lost counts as lost too: after `held` it is claimed again.
        """
        asked = Update(
            table_name=self._table,
            key=_key(pending),
            update_expression=expression,
            condition_expression="n = :mine" + (f" AND {condition}" if condition else ""),
            expression_attribute_values=values | {":mine": number(pending.attempt)},
        )
        return await _tried(self._client.call(UPDATE, asked, deadline=self._deadline()))


def promise_part(table: str, turn: str, attempt: int) -> Delete:
    """What forgets the promise, in the transaction of the commit that keeps it."""
    return Delete(
        table_name=table,
        key=_turn_key(turn),
        condition_expression="n = :mine",
        expression_attribute_values={":mine": number(attempt)},
    )


def _turn_key(turn: str) -> Item:
    return {"pk": text(f"P#{zlib.crc32(turn.encode()) % _PARTITIONS}"), "sk": text(turn)}


def _key(pending: Pending) -> Item:
    return _turn_key(pending.request.id)


def _failure_key(owner: Principal | SessionKey, turn: str) -> Item:
    """Beside the owner's keys, so that it is erased with them."""
    return {"pk": text(owner_partition(owner)), "sk": text(f"F#{turn}")}


def _pending(item: Item) -> Pending:
    return msgspec.structs.replace(
        _decode_pending(item["r"]["S"]),
        attempt=int(float(item["n"]["N"])),
        handed=int(float(item["h"]["N"])),
    )


async def _tried(call: Coroutine[Any, Any, object]) -> bool:
    try:
        await call
    except ConditionFailed:
        return False
    return True
