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
from seawall.storage.dynamodb.items import (
    head_key,
    key_record_key,
    number,
    owner_partition,
    text,
    time_to_live,
)
from seawall.storage.port import BackgroundJob, JobFailure, latest_lease_end
from seawall.storage.values import encode_job
from seawall.turn import Principal, SessionKey

__all__ = ["JobTable", "delete_job_part"]

_PARTITIONS = 4
_PAGE = 100
_DAY = 86_400.0
_MAX_RECORD_BYTES = 390_000  # of an item's 400 KB

_encode = msgspec.json.Encoder().encode
_decode_job = msgspec.json.Decoder(BackgroundJob).decode
_decode_failure = msgspec.json.Decoder(JobFailure).decode


class JobTable:
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

    async def keep(self, background_job: BackgroundJob, until: float) -> None:
        """From now on it is promised. Done twice, it is as done once.

        Raises:
            InvalidField: the request is larger than an item may be.
        """
        record = encode_job(background_job)
        if len(record) > _MAX_RECORD_BYTES:
            raise InvalidField(
                f"A turn in the background may have {_MAX_RECORD_BYTES} bytes in DynamoDB, with "
                f"all that belongs to it; this has {len(record)}.",
                field="text",
            )
        asked = Put(
            table_name=self._table,
            item={
                **_key(background_job),
                "r": text(record.decode()),
                "n": number(background_job.attempt),
                "h": number(background_job.handed),
                "held": number(until),
                "ttl": time_to_live(background_job.ends_at + 7 * _DAY),
            },
            condition_expression="attribute_not_exists(pk)",
        )
        try:
            await self._client.call(PUT, asked, deadline=self._deadline())
        except ConditionFailed:
            return

    async def renew(self, background_job: BackgroundJob, until: float) -> bool:
        """Run on until then; False when it was taken over."""
        return await self._update(background_job, "SET held = :until", {":until": number(until)})

    async def orphaned_jobs(self, limit: int) -> tuple[BackgroundJob, ...]:
        """See `SessionStore.orphaned_jobs`."""
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(self._items(number, orphaned_jobs=True))
                for number in range(_PARTITIONS)
            ]
        found = [item for each in asking for item in each.result()]
        found.sort(key=lambda item: float(item["held"]["N"]))
        return tuple(_read_job(item) for item in found[:limit])

    async def claim(self, background_job: BackgroundJob, until: float) -> BackgroundJob | None:
        """See `SessionStore.claim`. Cut off in the middle, it is claimed, and waited for."""
        claimed = msgspec.structs.replace(background_job, attempt=background_job.attempt + 1)
        now = self._clock()
        won = await self._update(
            background_job,
            "SET held = :until, n = :next",
            {
                ":until": number(until),
                ":next": number(claimed.attempt),
                ":now": number(now),
                ":latest": number(latest_lease_end(now, max(self._lease, until - now))),
            },
            "(held <= :now OR held > :latest)",
        )
        if not won:
            return None
        values: Item = {
            ":until": number(until),
            ":me": text(claimed.lease_owner),
            ":before": text(background_job.lease_owner),
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._move(head_key(background_job.key), values))
            if (key := background_job.request.idempotency_key) is not None:
                group.create_task(self._move(key_record_key(background_job.key, key), values))
        return claimed

    async def hand_over(self, background_job: BackgroundJob) -> None:
        """See `SessionStore.hand_over`."""
        handed = {":zero": number(0), ":handed": number(background_job.handed + 1)}
        await self._update(background_job, "SET held = :zero, h = :handed", handed)

    async def fail(self, background_job: BackgroundJob, failure: JobFailure, until: float) -> None:
        """See `SessionStore.fail`."""
        reason: Item = {
            **_failure_key(background_job.key, background_job.request.id),
            "p": text(_encode(failure).decode()),
            "s": text(background_job.key.session),
            "e": number(until),
            "ttl": time_to_live(until),
        }
        parts: list[Put | Update | Delete] = [
            delete_job_part(self._table, background_job.request.id, background_job.attempt),
            Put(table_name=self._table, item=reason),
        ]
        try:
            await self._client.transact_write(parts, deadline=self._deadline())
        except TransactionCancelled as error:
            if all(each.code != "ConditionalCheckFailed" for each in error.reasons):
                raise

    async def find_job(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """See `SessionStore.find_job`."""
        async with asyncio.TaskGroup() as group:
            background_job = group.create_task(self._get(_turn_key(turn)))
            failed = group.create_task(self._get(_failure_key(owner, turn)))
        item, reason = background_job.result(), failed.result()
        if item is not None:
            found = _read_job(item)
            if (found.key.tenant, found.key.subject) == (owner.tenant, owner.subject):
                return found
        if reason is not None and float(reason["e"]["N"]) > self._clock():
            return _decode_failure(reason["p"]["S"])
        return None

    async def forget(self, of: Callable[[SessionKey], bool]) -> None:
        """Remove the promises of these sessions."""
        for partition in range(_PARTITIONS):
            items = [item for item in await self._items(partition) if of(_read_job(item).key)]
            keys: list[Item] = [{"pk": item["pk"], "sk": item["sk"]} for item in items]
            for start in range(0, len(keys), MAX_WRITES):
                await batch_delete(
                    self._client,
                    self._table,
                    keys[start : start + MAX_WRITES],
                    deadline=self._deadline(),
                )

    async def _items(self, partition: int, *, orphaned_jobs: bool = False) -> list[Item]:
        values: Item = {":pk": text(f"P#{partition}")}
        if orphaned_jobs:
            now = self._clock()
            values |= {":now": number(now), ":latest": number(latest_lease_end(now, self._lease))}
        found: list[Item] = []
        start: Item | None = None
        while True:
            asked = Query(
                table_name=self._table,
                key_condition_expression="pk = :pk",
                filter_expression="held <= :now OR held > :latest" if orphaned_jobs else None,
                expression_attribute_values=values,
                limit=_PAGE,
                exclusive_start_key=start,
                consistent_read=not orphaned_jobs,  # the claim decides
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
        self, background_job: BackgroundJob, expression: str, values: Item, condition: str = ""
    ) -> bool:
        """Change the promise; False when it is not this attempt's any more.

        A claim whose answer was lost counts as lost too: after `held` it is claimed again.
        """
        asked = Update(
            table_name=self._table,
            key=_key(background_job),
            update_expression=expression,
            condition_expression="n = :mine" + (f" AND {condition}" if condition else ""),
            expression_attribute_values=values | {":mine": number(background_job.attempt)},
        )
        return await _tried(self._client.call(UPDATE, asked, deadline=self._deadline()))


def delete_job_part(table: str, turn: str, attempt: int) -> Delete:
    """What forgets the promise, in the transaction of the commit that keeps it."""
    return Delete(
        table_name=table,
        key=_turn_key(turn),
        condition_expression="n = :mine",
        expression_attribute_values={":mine": number(attempt)},
    )


def _turn_key(turn: str) -> Item:
    return {"pk": text(f"P#{zlib.crc32(turn.encode()) % _PARTITIONS}"), "sk": text(turn)}


def _key(background_job: BackgroundJob) -> Item:
    return _turn_key(background_job.request.id)


def _failure_key(owner: Principal | SessionKey, turn: str) -> Item:
    """Beside the owner's keys, so that it is erased with them."""
    return {"pk": text(owner_partition(owner)), "sk": text(f"F#{turn}")}


def _read_job(item: Item) -> BackgroundJob:
    return msgspec.structs.replace(
        _decode_job(item["r"]["S"]),
        attempt=int(float(item["n"]["N"])),
        handed=int(float(item["h"]["N"])),
    )


async def _tried(call: Coroutine[Any, Any, object]) -> bool:
    try:
        await call
    except ConditionFailed:
        return False
    return True
