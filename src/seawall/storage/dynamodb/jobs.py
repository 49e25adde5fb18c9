"""Background turns in DynamoDB: items of a few partitions that contain nothing else.

So the scan for orphans reads only the background turns that are in progress, with one query for
each partition; if there are none, that is the cheapest query there is.
"""

import asyncio
import zlib
from collections.abc import Callable

import msgspec

from seawall.aws.dynamodb_calls import Delete, Item, Put, Update
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
from seawall.storage.dynamodb.table import SessionTable
from seawall.storage.port import BackgroundJob, JobFailure
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
    """The background turns of a table; see `SessionStore`."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    async def insert(self, job: BackgroundJob, until: float) -> None:
        """Store an accepted turn. Idempotent.

        Raises:
            InvalidField: the request is larger than an item may be.
        """
        record = encode_job(job)
        if len(record) > _MAX_RECORD_BYTES:
            raise InvalidField(
                f"A background turn may have {_MAX_RECORD_BYTES} bytes in DynamoDB, including "
                f"its history; this one has {len(record)}.",
                field="text",
            )
        item: Item = {
            **_turn_key(job.request.id),
            "r": text(record.decode()),
            "n": number(job.attempt),
            "h": number(job.handovers),
            "held": number(until),
            "ttl": time_to_live(job.ends_at + 7 * _DAY),
        }
        try:
            await self._table.put(item, "attribute_not_exists(pk)")
        except ConditionFailed:
            return

    async def renew(self, job: BackgroundJob, until: float) -> bool:
        """Extend the attempt's lease; False when another attempt has taken over."""
        return await self._update(job, "SET held = :until", {":until": number(until)})

    async def orphaned(self, limit: int) -> tuple[BackgroundJob, ...]:
        """See `SessionStore.orphaned_jobs`."""
        now, latest = self._table.now(), self._table.latest_lease_end()
        expired: Item = {":now": number(now), ":latest": number(latest)}
        async with asyncio.TaskGroup() as group:
            queries = [
                group.create_task(self._items(partition, expired=expired))
                for partition in range(_PARTITIONS)
            ]
        found = [item for query in queries for item in query.result()]
        found.sort(key=lambda item: float(item["held"]["N"]))
        return tuple(_read_job(item) for item in found[:limit])

    async def claim(self, job: BackgroundJob, until: float) -> BackgroundJob | None:
        """See `SessionStore.claim_job`. Interrupted halfway it is claimed, until its lease ends."""
        claimed = msgspec.structs.replace(job, attempt=job.attempt + 1)
        won = await self._update(
            job,
            "SET held = :until, n = :next",
            {
                ":until": number(until),
                ":next": number(claimed.attempt),
                ":now": number(self._table.now()),
                ":latest": number(self._table.latest_lease_end(until)),
            },
            " AND (held <= :now OR held > :latest)",
        )
        if not won:
            return None
        values: Item = {
            ":until": number(until),
            ":me": text(claimed.lease_owner),
            ":before": text(job.lease_owner),
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._transfer(head_key(job.key), values))
            if (key := job.request.idempotency_key) is not None:
                group.create_task(self._transfer(key_record_key(job.key, key), values))
        return claimed

    async def hand_over(self, job: BackgroundJob) -> None:
        """See `SessionStore.hand_over_job`."""
        values: Item = {":zero": number(0), ":handovers": number(job.handovers + 1)}
        await self._update(job, "SET held = :zero, h = :handovers", values)

    async def fail(self, job: BackgroundJob, failure: JobFailure, until: float) -> None:
        """See `SessionStore.fail_job`."""
        reason: Item = {
            **_failure_key(job.key, job.request.id),
            "p": text(_encode(failure).decode()),
            "s": text(job.key.session),
            "e": number(until),
            "ttl": time_to_live(until),
        }
        parts: list[Put | Update | Delete] = [
            delete_job_part(self._table.name, job.request.id, job.attempt),
            Put(table_name=self._table.name, item=reason),
        ]
        try:
            await self._table.client.transact_write(parts, deadline=self._table.deadline())
        except TransactionCancelled as error:
            if all(each.code != "ConditionalCheckFailed" for each in error.reasons):
                raise

    async def find(self, owner: Principal, turn: str) -> BackgroundJob | JobFailure | None:
        """See `SessionStore.find_job`."""
        async with asyncio.TaskGroup() as group:
            stored = group.create_task(self._table.get(_turn_key(turn)))
            failed = group.create_task(self._table.get(_failure_key(owner, turn)))
        item, reason = stored.result(), failed.result()
        if item is not None:
            job = _read_job(item)
            if (job.key.tenant, job.key.subject) == (owner.tenant, owner.subject):
                return job
        if reason is not None and float(reason["e"]["N"]) > self._table.now():
            return _decode_failure(reason["p"]["S"])
        return None

    async def delete(self, matches: Callable[[SessionKey], bool]) -> None:
        """Delete the background turns of the sessions that match."""
        for partition in range(_PARTITIONS):
            items = await self._items(partition)
            await self._table.delete_all([item for item in items if matches(_read_job(item).key)])

    async def _items(self, partition: int, *, expired: Item | None = None) -> list[Item]:
        """All of a partition; with `expired`, those whose lease has ended by these times."""
        return await self._table.query_all(
            "pk = :pk",
            {":pk": text(f"P#{partition}"), **(expired or {})},
            filter_expression="held <= :now OR held > :latest" if expired else None,
            limit=_PAGE,
            consistent_read=expired is None,  # of orphans, the claim decides
        )

    async def _transfer(self, key: Item, values: Item) -> None:
        """Pass the lease of a head, or of a key record, from one attempt to the next."""
        owned = "holder = :before OR holder = :me"
        try:
            await self._table.update(key, "SET holder = :me, held = :until", owned, values)
        except ConditionFailed:
            return

    async def _update(
        self, job: BackgroundJob, expression: str, values: Item, condition: str = ""
    ) -> bool:
        """Change the job's item; False when a newer attempt owns it.

        A claim whose answer was lost counts as lost too: after `held` it is claimed again.
        """
        values = values | {":mine": number(job.attempt)}
        try:
            await self._table.update(
                _turn_key(job.request.id), expression, f"n = :mine{condition}", values
            )
        except ConditionFailed:
            return False
        return True


def delete_job_part(table: str, turn: str, attempt: int) -> Delete:
    """The part of a commit's transaction that deletes the job that is done."""
    return Delete(
        table_name=table,
        key=_turn_key(turn),
        condition_expression="n = :mine",
        expression_attribute_values={":mine": number(attempt)},
    )


def _turn_key(turn: str) -> Item:
    return {"pk": text(f"P#{zlib.crc32(turn.encode()) % _PARTITIONS}"), "sk": text(turn)}


def _failure_key(owner: Principal | SessionKey, turn: str) -> Item:
    """In the owner's partition, so that it is erased with it."""
    return {"pk": text(owner_partition(owner)), "sk": text(f"F#{turn}")}


def _read_job(item: Item) -> BackgroundJob:
    return msgspec.structs.replace(
        _decode_job(item["r"]["S"]),
        attempt=int(float(item["n"]["N"])),
        handovers=int(float(item["h"]["N"])),
    )
