"""Leases of sessions and keys in DynamoDB: conditional updates of heads and key records.

In an item, `holder` is the lease's owner and `held` its end.
"""

import asyncio

from msgspec import structs

from seawall.aws.dynamodb_calls import ConditionFailed, Contended, Item
from seawall.storage.dynamodb import (
    alive,
    head_key,
    key_record_key,
    number,
    read_head,
    read_lease,
    text,
    time_to_live,
)
from seawall.storage.dynamodb.jobs import JobTable
from seawall.storage.dynamodb.table import SessionTable, TableReader
from seawall.storage.port import Begin, Lease, Replay, Snapshot

__all__ = ["Leases"]

_ATTEMPTS = 3
_DAY = 86_400.0

_CAN_LEASE_HEAD = (
    "(v > :zero AND e > :now AND (attribute_not_exists(holder) OR held <= :now OR held > :latest"
    " OR holder = :me))"
    " OR (v = :zero AND held > :now AND holder = :me)"
)
_CAN_OPEN_HEAD = (
    "attribute_not_exists(pk) OR (v > :zero AND e <= :now)"
    " OR (v = :zero AND (held <= :now OR held > :latest OR holder = :me))"
)
_CAN_LEASE_KEY = (
    "attribute_not_exists(pk) OR (attribute_not_exists(n) AND (held <= :now OR held > :latest"
    " OR holder = :me))"
)


class Leases:
    """The leases of a table; see `SessionStore`.

    An update that is repeated because its answer was lost changes nothing: all conditions are true
    for the present owner.
    """

    def __init__(self, table: SessionTable, reader: TableReader, jobs: JobTable) -> None:
        self._table = table
        self._reader = reader
        self._jobs = jobs

    async def begin(self, begin: Begin) -> Snapshot:
        """All at the same time: lease the head, lease the key, query the history."""
        async with asyncio.TaskGroup() as group:
            heading = group.create_task(self._lease_or_read_head(begin))
            keying = group.create_task(self._lease_key(begin))
            # A session that is being opened has no history.
            turns = 0 if begin.opens else begin.turns
            querying = group.create_task(self._reader.newest_items(begin.key, turns))
        head, leased = heading.result()
        replay, key_lease = keying.result()
        if leased and (replay is not None or key_lease is not None):
            await self._release_head(begin)
        elif leased and begin.background_job is not None and begin.background_job.attempt == 1:
            await self._jobs.insert(begin.background_job, begin.until or 0.0)
        session = read_head(begin.key, head) if head is not None else None
        page = querying.result()
        if begin.opens and session is not None:  # a client chose its name, and another was first
            page = await self._reader.newest_items(begin.key, begin.turns)
        history = await self._reader.history(begin.key, session, begin.turns, page)
        lease = read_lease(head, begin.key.session) if head is not None else None
        # What was in the way counts, even if it has ended meanwhile: this turn has no lease.
        refused = begin.until is not None and not leased
        if lease is not None and not refused and not self._lasts(lease, begin):
            lease = None
        if lease is not None and lease.owner == begin.turn:
            lease = None
        return Snapshot(session, history, replay, key_lease, lease)

    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        async with asyncio.TaskGroup() as group:
            renewals = [
                group.create_task(self._renew_head(begin)),
                group.create_task(self._renew_key(begin)),
            ]
            if begin.background_job is not None:
                renewals.append(
                    group.create_task(self._jobs.renew(begin.background_job, begin.until or 0.0))
                )
        return all(each.result() for each in renewals)

    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._release_head(begin))
            if begin.idempotency_key is not None:
                group.create_task(self._release_key(begin, begin.idempotency_key))

    async def _lease_or_read_head(self, begin: Begin) -> tuple[Item | None, bool]:
        """The head, if there is a session or a leased name; whether this turn leases it now."""
        if begin.until is None:
            return await self._reader.head(begin.key), False
        head: Item | None = None
        for _ in range(_ATTEMPTS):
            try:
                leasing = self._open_head(begin) if begin.opens else self._lease_head(begin)
                return await leasing, True
            except ConditionFailed as failure:
                head = failure.item
            if begin.opens and head and head["v"]["N"] != "0":
                return await self._lease_or_read_head(structs.replace(begin, opens=False))
            if not self._has_just_ended(head, begin):
                break
        return (head if self._is_alive(head, begin) else None), False

    def _has_just_ended(self, item: Item | None, begin: Begin) -> bool:
        """Whether the lease that was in the way does not last any more: then it is to be had."""
        lease = read_lease(item, "") if item else None
        return lease is not None and lease.owner != begin.turn and not self._lasts(lease, begin)

    async def _lease_head(self, begin: Begin) -> Item:
        return await self._table.update(
            head_key(begin.key),
            "SET holder = :me, held = :until",
            _CAN_LEASE_HEAD,
            {**self._values(begin), **self._latest(begin), ":zero": number(0)},
            returns="ALL_NEW",
        )

    async def _open_head(self, begin: Begin) -> Item:
        until = begin.until or 0.0
        return await self._table.update(
            head_key(begin.key),
            "SET holder = :me, held = :until, v = :zero, c = :now, u = :now, e = :until, "
            "#s = :state, #t = :ttl REMOVE a, #l",
            _CAN_OPEN_HEAD,
            {
                **self._values(begin),
                **self._latest(begin),
                ":zero": number(0),
                ":state": text("{}"),
                ":ttl": time_to_live(until + _DAY),
            },
            {"#s": "state", "#t": "ttl", "#l": "last"},
            returns="ALL_NEW",
        )

    async def _lease_key(self, begin: Begin) -> tuple[Replay | None, Lease | None]:
        """The turn committed under the key, or another turn's lease; else it is leased now."""
        key = begin.idempotency_key
        if key is None:
            return None, None
        stale: Item | None = None
        for _ in range(_ATTEMPTS):
            record = await self._try_key(begin, key, stale)
            if record is None:
                return None, None
            if "n" not in record:
                if begin.until is not None and self._has_just_ended(record, begin):
                    continue
                lease = read_lease(record, record["s"]["S"])
                mine = lease is None or lease.owner == begin.turn
                over = lease is not None and begin.until is None and not self._lasts(lease, begin)
                return None, None if mine or over else lease
            replay = await self._reader.replay(begin.key, record)
            if replay is not None or begin.until is None:
                return replay, None
            stale = record
        raise Contended("an idempotency key keeps changing")

    async def _try_key(self, begin: Begin, key: str, stale: Item | None) -> Item | None:
        """None when this turn has leased the key; else its record.

        stale: the record of a session that no longer exists, which may be replaced.
        """
        if begin.until is None:
            return await self._reader.key_record(begin.key, key)
        condition = _CAN_LEASE_KEY
        values = {
            **self._values(begin),
            **self._latest(begin),
            ":f": text(begin.fingerprint or ""),
            ":s": text(begin.key.session),
            ":ttl": time_to_live(begin.until + _DAY),
        }
        if stale is not None:
            condition += " OR (b = :b AND n = :n)"
            values |= {":b": stale["b"], ":n": stale["n"]}
        try:
            await self._table.update(
                key_record_key(begin.key, key),
                "SET holder = :me, held = :until, f = :f, s = :s, #t = :ttl REMOVE n, b, i",
                condition,
                values,
                {"#t": "ttl"},
                returns="ALL_NEW",
            )
        except ConditionFailed as failure:
            return failure.item
        return None

    async def _renew_head(self, begin: Begin) -> bool:
        try:
            await self._table.update(
                head_key(begin.key),
                "SET held = :until",
                "holder = :me AND (v > :zero OR held > :now)",
                {**self._values(begin), ":zero": number(0)},
                returns="ALL_NEW",
            )
        except ConditionFailed as failure:
            # A session whose first turn this is may have no head yet, and no other owner.
            return not self._is_alive(failure.item, begin)
        return True

    async def _renew_key(self, begin: Begin) -> bool:
        if begin.idempotency_key is None:
            return True
        try:
            await self._table.update(
                key_record_key(begin.key, begin.idempotency_key),
                "SET held = :until",
                "holder = :me AND attribute_not_exists(n)",
                {":me": text(begin.turn), ":until": number(begin.until or 0.0)},
            )
        except ConditionFailed:
            return False
        return True

    async def _release_head(self, begin: Begin) -> None:
        values: Item = {":me": text(begin.turn), ":zero": number(0)}
        owned = "holder = :me AND v > :zero"
        try:
            await self._table.update(
                head_key(begin.key), "REMOVE holder, held", owned, values, returns="ALL_NEW"
            )
        except ConditionFailed as failure:
            if failure.item and failure.item["v"]["N"] == "0":
                unused = "holder = :me AND v = :zero"
                await self._table.delete(head_key(begin.key), unused, values)

    async def _release_key(self, begin: Begin, key: str) -> None:
        await self._table.delete(
            key_record_key(begin.key, key),
            "holder = :me AND attribute_not_exists(n)",
            {":me": text(begin.turn)},
        )

    def _values(self, begin: Begin) -> Item:
        return {
            ":me": text(begin.turn),
            ":now": number(self._table.now()),
            ":until": number(begin.until or 0.0),
        }

    def _latest(self, begin: Begin) -> Item:
        return {":latest": number(self._table.latest_lease_end(begin.until))}

    def _lasts(self, lease: Lease, begin: Begin) -> bool:
        return self._table.now() < lease.until <= self._table.latest_lease_end(begin.until)

    def _is_alive(self, head: Item | None, begin: Begin) -> bool:
        return alive(head, self._table.now(), self._table.latest_lease_end(begin.until))
