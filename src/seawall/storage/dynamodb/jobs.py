"""Background turns in DynamoDB: items of a few partitions that contain nothing else.

So the scan for orphans reads only the background turns that are in progress, with one query for
each partition; if there are none, that is the cheapest query there is.

A job that sleeps is an item of its owner's partition; its alarm, behind the jobs of their
partitions and ordered by time, leads the scan to it when its time has come. Waking it makes it an
ordinary job again.
"""

import asyncio
import zlib

import msgspec

from seawall.aws.dynamodb_calls import (
    ConditionCheck,
    ConditionFailed,
    Delete,
    Item,
    Put,
    TransactionCancelled,
    Update,
    Value,
)
from seawall.errors import InvalidField, TurnLimitReached
from seawall.storage.dynamodb import (
    head_key,
    key_record_key,
    number,
    owner_partition,
    text,
    time_to_live,
)
from seawall.storage.dynamodb.table import SessionTable
from seawall.storage.port import BackgroundJob, JobFailure, JournalWrite
from seawall.storage.values import encode_job
from seawall.turn import Principal, SessionKey

__all__ = ["JobTable", "delete_job_part"]

_PARTITIONS = 4
_ALARMS = "~"  # they begin so, and follow the ids of turns
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
        async with asyncio.TaskGroup() as group:
            queries = [
                group.create_task(self._due(partition, limit)) for partition in range(_PARTITIONS)
            ]
        due = [item for query in queries for item in query.result()]
        found = [item for item in due if not _is_alarm(item)]
        found.sort(key=lambda item: float(item["held"]["N"]))
        rung = sorted(filter(_is_alarm, due), key=lambda item: item["sk"]["S"])
        asleep = await self._asleep(rung[: max(0, limit - len(found))])
        return tuple(_read_job(item) for item in [*found[:limit], *asleep])

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
            return await self._claim_sleeping(job, claimed, until)
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
            sleeping = group.create_task(self._table.get(_sleeping_key(owner, turn)))
        item, reason = stored.result() or sleeping.result(), failed.result()
        if item is not None:
            job = _read_job(item)
            if (job.key.tenant, job.key.subject) == (owner.tenant, owner.subject):
                return job
        if reason is not None and float(reason["e"]["N"]) > self._table.now():
            return _decode_failure(reason["p"]["S"])
        return None

    async def delete(self, owner: Principal | SessionKey, sessions: set[str] | None = None) -> None:
        """Delete the background turns of an owner, or of some sessions; also those asleep.

        An alarm goes before its job, which leads to it, so that this can be repeated.
        """

        def matches(item: Item) -> bool:
            key = _read_job(item).key
            return (key.tenant, key.subject) == (owner.tenant, owner.subject) and (
                sessions is None or key.session in sessions
            )

        for partition in range(_PARTITIONS):
            items = await self._items(partition)
            await self._table.delete_all([item for item in items if matches(item)])
        sleeping = await self._table.query_all(
            "pk = :pk AND begins_with(sk, :prefix)",
            {":pk": text(owner_partition(owner)), ":prefix": text("Z#")},
            consistent_read=True,
        )
        sleeping = [item for item in sleeping if matches(item)]
        await self._table.delete_all([_alarm_of(item) for item in sleeping])
        await self._table.delete_all(sleeping)

    def journal_parts(self, write: JournalWrite) -> list[Put | Update | Delete | ConditionCheck]:
        """The parts of a journal's transaction that are about its job."""
        name, turn, job = self._table.name, write.turn.id, write.sleeps
        parts: list[Put | Update | Delete | ConditionCheck] = []
        if job is not None:
            record = encode_job(job)
            if len(record) > _MAX_RECORD_BYTES:
                raise TurnLimitReached(
                    f"A turn that pauses may have {_MAX_RECORD_BYTES} bytes in DynamoDB, including "
                    f"its history; this one has {len(record)}."
                )
            ends = time_to_live(max(job.ends_at, write.sleeps_until) + 7 * _DAY)
            alarm = _alarm_key(turn, write.sleeps_until, job.attempt)
            item: Item = {
                **_sleeping_key(job.key, turn),
                "r": text(record.decode()),
                "n": number(job.attempt),
                "h": number(job.handovers),
                "s": text(job.key.session),
                "due": number(write.sleeps_until),
                "ttl": ends,
            }
            target = {"o": item["pk"], "s": item["sk"], "ttl": ends}
            parts += [
                Put(table_name=name, item=item),
                Put(table_name=name, item={**alarm, **target}),
            ]
        if write.attempt and (write.ends_job or job is not None):
            parts.append(delete_job_part(name, turn, write.attempt))
        elif write.attempt:
            parts.append(
                ConditionCheck(
                    table_name=name,
                    key=_turn_key(turn),
                    condition_expression="n = :mine",
                    expression_attribute_values={":mine": number(write.attempt)},
                )
            )
        return parts

    async def wake_parts(
        self, owner: Principal | SessionKey, turn: str
    ) -> list[Put | Update | Delete | ConditionCheck]:
        """The parts of a transaction that wake a job, if it sleeps."""
        item = await self._table.get(_sleeping_key(owner, turn))
        if item is None:
            return [
                ConditionCheck(
                    table_name=self._table.name,
                    key=_sleeping_key(owner, turn),
                    condition_expression="attribute_not_exists(pk)",
                )
            ]
        return self._awake(item, turn, attempt=item["n"], held=0.0)

    async def _claim_sleeping(
        self, job: BackgroundJob, claimed: BackgroundJob, until: float
    ) -> BackgroundJob | None:
        """Claim a job that sleeps, if its time has come."""
        turn = job.request.id
        item = await self._table.get(_sleeping_key(job.key, turn))
        if item is None or int(float(item["n"]["N"])) != job.attempt:
            return None
        if float(item["due"]["N"]) > self._table.now():
            return None
        parts = self._awake(item, turn, attempt=number(claimed.attempt), held=until)
        try:
            await self._table.client.transact_write(parts, deadline=self._table.deadline())
        except TransactionCancelled as error:
            if all(each.code != "ConditionalCheckFailed" for each in error.reasons):
                raise
            return None
        return claimed

    def _awake(
        self, item: Item, turn: str, *, attempt: Value, held: float
    ) -> list[Put | Update | Delete | ConditionCheck]:
        """A sleeping job becomes an ordinary one."""
        name, due = self._table.name, item["due"]
        return [
            Delete(
                table_name=name,
                key={"pk": item["pk"], "sk": item["sk"]},
                condition_expression="n = :n AND due = :due",
                expression_attribute_values={":n": item["n"], ":due": due},
            ),
            Delete(table_name=name, key=_alarm_of(item)),
            Put(
                table_name=name,
                item={
                    **_turn_key(turn),
                    "r": item["r"],
                    "n": attempt,
                    "h": item["h"],
                    "held": number(held),
                    "ttl": item["ttl"],
                },
            ),
        ]

    async def _due(self, partition: int, limit: int) -> list[Item]:
        """Jobs whose lease has ended, and the first alarms whose time has come."""
        now = self._table.now()
        values: Item = {
            ":pk": text(f"P#{partition}"),
            ":end": text(f"{_ALARMS}{now:018.6f}$"),  # "$" follows "#"
            ":now": number(now),
            ":latest": number(self._table.latest_lease_end()),
        }
        found: list[Item] = []
        start: Item | None = None
        while True:
            page = await self._table.query(
                "pk = :pk AND sk < :end",
                values,
                filter_expression="attribute_not_exists(held) OR held <= :now OR held > :latest",
                exclusive_start_key=start,
                limit=_PAGE,
            )
            found += page.items
            start = page.last_evaluated_key
            if start is None or sum(map(_is_alarm, found)) >= limit:
                return found

    async def _asleep(self, alarms: list[Item]) -> list[Item]:
        """The jobs of these alarms; alarms whose job is gone are deleted."""
        if not alarms:
            return []
        async with asyncio.TaskGroup() as group:
            reads = [
                group.create_task(self._table.get({"pk": alarm["o"], "sk": alarm["s"]}))
                for alarm in alarms[:_PAGE]
            ]
        found: list[Item] = []
        gone: list[Item] = []
        for alarm, read in zip(alarms, reads, strict=False):
            item = read.result()
            if item is not None and alarm["sk"] == _alarm_of(item)["sk"]:
                found.append(item)
            else:
                gone.append(alarm)
        await self._table.delete_all(gone)
        return found

    async def _items(self, partition: int) -> list[Item]:
        """All jobs of a partition that do not sleep."""
        return await self._table.query_all(
            "pk = :pk AND sk < :alarms",
            {":pk": text(f"P#{partition}"), ":alarms": text(_ALARMS)},
            limit=_PAGE,
            consistent_read=True,
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


def _sleeping_key(owner: Principal | SessionKey, turn: str) -> Item:
    """In the owner's partition, so that it is erased with it."""
    return {"pk": text(owner_partition(owner)), "sk": text(f"Z#{turn}")}


def _alarm_key(turn: str, due: float, attempt: int) -> Item:
    return _turn_key(turn) | {"sk": text(f"{_ALARMS}{due:018.6f}#{turn}#{attempt}")}


def _is_alarm(item: Item) -> bool:
    name: str = item["sk"]["S"]
    return name.startswith(_ALARMS)


def _alarm_of(item: Item) -> Item:
    turn = item["sk"]["S"].removeprefix("Z#")
    return _alarm_key(turn, float(item["due"]["N"]), int(float(item["n"]["N"])))


def _failure_key(owner: Principal | SessionKey, turn: str) -> Item:
    """In the owner's partition, so that it is erased with it."""
    return {"pk": text(owner_partition(owner)), "sk": text(f"F#{turn}")}


def _read_job(item: Item) -> BackgroundJob:
    return msgspec.structs.replace(
        _decode_job(item["r"]["S"]),
        attempt=int(float(item["n"]["N"])),
        handovers=int(float(item["h"]["N"])),
    )
