"""Who holds which session and key, in DynamoDB: conditional updates of heads and key records."""

import asyncio
from collections.abc import Callable

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import DELETE, UPDATE, Delete, Item, Update
from seawall.aws.dynamodb_errors import ConditionFailed, Contended
from seawall.storage.dynamodb.items import (
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
from seawall.storage.dynamodb.reader import TableReader
from seawall.storage.port import Begin, Lease, Replay, Snapshot, latest_lease_end

__all__ = ["Leases"]

_TRIES = 3
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
    """Holds in one table; see `SessionStore`."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        clock: Callable[[], float],
        deadline: Callable[[], float],
        *,
        lease: float,
        reader: TableReader,
        jobs: JobTable,
    ) -> None:
        """lease: how long a turn holds its session from one renewal, in seconds."""
        self._lease = lease
        self._client = client
        self._table = table
        self._clock = clock
        self._deadline = deadline
        self._reader = reader
        self._jobs = jobs

    async def begin(self, begin: Begin) -> Snapshot:
        """Everything at once: hold the head, hold the key, query the history."""
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._head(begin))
            keying = group.create_task(self._key(begin))
            # A session that is being opened has no history.
            turns = 0 if begin.opens else begin.turns
            querying = group.create_task(self._reader.newest_items(begin.key, turns))
        head, held = holding.result()
        replay, running = keying.result()
        if held and (replay is not None or running is not None):
            await self._release_head(begin)
        elif held and begin.background_job is not None and begin.background_job.attempt == 1:
            await self._jobs.keep(begin.background_job, begin.until or 0.0)
        session = read_head(begin.key, head) if head is not None else None
        history = await self._reader.history(begin.key, session, begin.turns, querying.result())
        hold = read_lease(head, begin.key.session) if head is not None else None
        busy = hold if hold and hold.turn != begin.turn and self._lasts(hold, begin) else None
        return Snapshot(session, history, replay, running, busy)

    async def renew(self, begin: Begin) -> bool:
        """See `SessionStore.renew`."""
        async with asyncio.TaskGroup() as group:
            heading = group.create_task(self._renew_head(begin))
            keying = group.create_task(self._renew_key(begin))
            promising = group.create_task(self._renew_job(begin))
        return heading.result() and keying.result() and promising.result()

    async def release(self, begin: Begin) -> None:
        """See `SessionStore.release`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._release_head(begin))
            if begin.idempotency_key is not None:
                group.create_task(self._release_key(begin, begin.idempotency_key))

    async def _head(self, begin: Begin) -> tuple[Item | None, bool]:
        """The head, if there is a session or a held name; whether this turn holds it now."""
        if begin.until is None:
            return await self._reader.head(begin.key), False
        try:
            return await (self._open_head(begin) if begin.opens else self._hold_head(begin)), True
        except ConditionFailed as failure:
            if begin.opens and failure.item and failure.item["v"]["N"] != "0":
                return await self._head(_without_opening(begin))
            head = failure.item
            return (head if self._alive(head, begin) else None), False

    async def _hold_head(self, begin: Begin) -> Item | None:
        return await self._update(
            head_key(begin.key),
            "SET holder = :me, held = :until",
            _CAN_LEASE_HEAD,
            {**self._values(begin), **self._latest(begin), ":zero": number(0)},
        )

    async def _open_head(self, begin: Begin) -> Item | None:
        until = begin.until or 0.0
        return await self._update(
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
        )

    async def _key(self, begin: Begin) -> tuple[Replay | None, Lease | None]:
        """What became of the turn that had the key, or who has it; else it is this turn's now."""
        key = begin.idempotency_key
        if key is None:
            return None, None
        dead: Item | None = None
        for _ in range(_TRIES):
            record = await self._try_key(begin, key, dead)
            if record is None:
                return None, None
            if "n" not in record:
                hold = read_lease(record, record["s"]["S"])
                free = hold is None or hold.turn == begin.turn or not self._lasts(hold, begin)
                return None, None if free else hold
            replay = await self._reader.replay(begin.key, record)
            if replay is not None or begin.until is None:
                return replay, None
            dead = record
        raise Contended("an idempotency key keeps changing")

    async def _try_key(self, begin: Begin, key: str, dead: Item | None) -> Item | None:
        """None when this turn has the key; else what is there.

        dead: the record of a session that is no more, which may be taken over.
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
        if dead is not None:
            condition += " OR (b = :b AND n = :n)"
            values |= {":b": dead["b"], ":n": dead["n"]}
        try:
            await self._update(
                key_record_key(begin.key, key),
                "SET holder = :me, held = :until, f = :f, s = :s, #t = :ttl REMOVE n, b, i",
                condition,
                values,
                {"#t": "ttl"},
            )
        except ConditionFailed as failure:
            return failure.item
        return None

    async def _renew_head(self, begin: Begin) -> bool:
        try:
            await self._update(
                head_key(begin.key),
                "SET held = :until",
                "holder = :me AND (v > :zero OR held > :now)",
                {**self._values(begin), ":zero": number(0)},
            )
        except ConditionFailed as failure:
            # A session whose first turn this is has no head yet, and is nobody else's.
            return not self._alive(failure.item, begin)
        return True

    async def _renew_key(self, begin: Begin) -> bool:
        if begin.idempotency_key is None:
            return True
        values = self._values(begin)
        del values[":now"]
        try:
            await self._update(
                key_record_key(begin.key, begin.idempotency_key),
                "SET held = :until",
                "holder = :me AND attribute_not_exists(n)",
                values,
            )
        except ConditionFailed:
            return False
        return True

    async def _renew_job(self, begin: Begin) -> bool:
        if begin.background_job is None:
            return True
        return await self._jobs.renew(begin.background_job, begin.until or 0.0)

    async def _release_head(self, begin: Begin) -> None:
        values: Item = {":me": text(begin.turn), ":zero": number(0)}
        try:
            await self._update(
                head_key(begin.key),
                "REMOVE holder, held",
                "holder = :me AND v > :zero",
                values,
            )
        except ConditionFailed as failure:
            if failure.item and failure.item["v"]["N"] == "0":
                await self._delete(head_key(begin.key), "holder = :me AND v = :zero", values)

    async def _release_key(self, begin: Begin, key: str) -> None:
        await self._delete(
            key_record_key(begin.key, key),
            "holder = :me AND attribute_not_exists(n)",
            {":me": text(begin.turn)},
        )

    def _values(self, begin: Begin) -> Item:
        return {
            ":me": text(begin.turn),
            ":now": number(self._clock()),
            ":until": number(begin.until or 0.0),
        }

    def _latest(self, begin: Begin) -> Item:
        return {":latest": number(latest_lease_end(self._clock(), self._longest(begin)))}

    def _lasts(self, hold: Lease, begin: Begin) -> bool:
        now = self._clock()
        return now < hold.until <= latest_lease_end(now, self._longest(begin))

    def _alive(self, head: Item | None, begin: Begin) -> bool:
        return alive(head, self._clock(), self._longest(begin))

    def _longest(self, begin: Begin) -> float:
        """The longest lease that is known of: as configured, or what this turn asks for."""
        return max(self._lease, (begin.until or 0.0) - self._clock())

    async def _update(
        self,
        key: Item,
        expression: str,
        condition: str,
        values: Item,
        names: dict[str, str] | None = None,
    ) -> Item | None:
        """The item as it is afterwards.

        Done twice, because an answer was lost, it is as done once: all conditions hold for who
        holds already.
        """
        asked = Update(
            table_name=self._table,
            key=key,
            update_expression=expression,
            condition_expression=condition,
            expression_attribute_names=names,
            expression_attribute_values=values,
            return_values="ALL_NEW",
            return_values_on_condition_check_failure="ALL_OLD",
        )
        written = await self._client.call(UPDATE, asked, deadline=self._deadline())
        return written.attributes

    async def _delete(self, key: Item, condition: str, values: Item) -> None:
        asked = Delete(
            table_name=self._table,
            key=key,
            condition_expression=condition,
            expression_attribute_values=values,
        )
        try:
            await self._client.call(DELETE, asked, deadline=self._deadline())
        except ConditionFailed:
            return  # it is somebody else's, or gone


def _without_opening(begin: Begin) -> Begin:
    import msgspec  # noqa: PLC0415 - two turns that open one name: next to never

    return msgspec.structs.replace(begin, opens=False)
