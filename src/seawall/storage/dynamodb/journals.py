"""Turns with effects in DynamoDB: their journals, waits and audit records.

A wait is an item of its tenant's partition, an audit record one of its session's; a pointer in the
owner's partition leads to the audit records, so that they are erased with it.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct, structs

from seawall.aws.dynamodb_calls import (
    ConditionCheck,
    Delete,
    InvalidCall,
    Item,
    Operation,
    Page,
    Put,
    TransactionCancelled,
    Update,
)
from seawall.errors import InvalidField, SessionConflict, StoreUnavailable, TurnLimitReached
from seawall.storage.audit import chained, decode_audit
from seawall.storage.dynamodb import (
    audit_partition,
    audit_pointer_key,
    audit_prefix,
    head_key,
    head_time_to_live,
    number,
    text,
    time_to_live,
    turn_items,
    turn_sort,
    wait_key,
)
from seawall.storage.dynamodb.jobs import JobTable
from seawall.storage.dynamodb.table import SessionTable, TableReader
from seawall.storage.port import AuditPage, AuditRecord, JournalWrite, Wait
from seawall.storage.values import (
    encode_record,
    encode_state,
    encode_turn,
    read_cursor,
    write_cursor,
)
from seawall.turn import Decision, SessionKey

__all__ = ["JournalParts", "JournalTable"]

Part = Put | Update | Delete | ConditionCheck

_MAX_PARTS = 100  # of a transaction
_MAX_BYTES = 3_900_000  # of its 4 MB
_ATTEMPTS = 8
_PAGE = 100

_decode_wait = msgspec.json.Decoder(Wait).decode
_decode_decision = msgspec.json.Decoder(Decision).decode


class JournalParts(Struct):
    """The parts of a transaction; which of them are of audit records; the session's creation."""

    parts: list[Part]
    audit: range
    created_at: float

    def only_audit_refused(self, error: TransactionCancelled) -> bool:
        """Whether another record was appended to the chain first, and nothing else is wrong."""
        refused = [index for index, each in enumerate(error.reasons) if each.code != "None"]
        return bool(refused) and all(index in self.audit for index in refused)


class JournalTable:
    """What belongs to turns with effects in a table; see `SessionStore`."""

    def __init__(
        self,
        table: SessionTable,
        reader: TableReader,
        jobs: JobTable,
        *,
        keep_seconds: float,
        audit_keep_seconds: float,
    ) -> None:
        self._table = table
        self._reader = reader
        self._jobs = jobs
        self._keep_seconds = keep_seconds
        self._audit_keep_seconds = audit_keep_seconds

    async def parts(self, write: JournalWrite) -> JournalParts:
        """The writes of a journal, without the key's.

        Raises:
            SessionConflict: there is no such session.
            TurnLimitReached: they are more than a transaction may have.
        """
        now, keep_until = self._table.now(), write.expires_at + self._keep_seconds
        created_at = write.opened_at
        items = turn_items(
            write.key, write.turn, created_at=created_at or now, expires_at=keep_until
        )
        first = _revision(write) == 1
        if created_at is None and (write.turn.number > 1 if first else len(items) > 1):
            head = await self._reader.head(write.key)
            if head is None:
                raise SessionConflict("The session has ended.")
            created_at = float(head["c"]["N"])
        for item in items:
            item["b"] = number(created_at if created_at is not None else now)
        parts: list[Part] = [self._head_part(write, created_at, now)]
        parts.append(self._first_put(items[0]) if first else self._replacement(write, items[0]))
        parts += [Put(table_name=self._table.name, item=item) for item in items[1:]]
        parts += self._jobs.journal_parts(write)
        parts += self._wait_parts(write, keep_until)
        if write.notifications:
            from seawall.storage.dynamodb.notifications import (  # noqa: PLC0415 - with hand-overs
                notification_parts,
            )

            parts += notification_parts(self._table.name, write.notifications)
        before = len(parts)
        parts += await self._audit_parts(write.key, write.audit)
        audit = range(before, before + len(write.audit))
        if len(parts) >= _MAX_PARTS or sum(map(_size, parts)) > _MAX_BYTES:
            raise TurnLimitReached("The turn's effects are too many, or too large, to be stored.")
        return JournalParts(parts, audit, created_at if created_at is not None else now)

    async def is_applied(self, write: JournalWrite) -> bool:
        """Whether this very revision is stored."""
        head = await self._table.get(head_key(write.key))
        if head is None or int(float(head["v"]["N"])) < write.turn.number:
            return False
        found = await self._reader.turns(
            write.key, float(head["c"]["N"]), 1, before=write.turn.number + 1
        )
        return bool(found) and encode_turn(found[0]) == encode_turn(write.turn)

    async def waits(
        self, tenant: str, turn: str | None, after: str | None, limit: int
    ) -> list[Wait]:
        """Waits whose id comes after `after`, first first."""
        low = max(after or "", f"{turn}." if turn is not None else "")
        condition, values = "pk = :pk", {":pk": wait_key(tenant, "")["pk"]}
        if turn is not None:
            condition += " AND sk BETWEEN :low AND :high"
            values |= {":low": text(low), ":high": text(f"{turn}/")}  # "/" follows "."
        elif low:
            condition += " AND sk > :low"
            values |= {":low": text(low)}
        found: list[Wait] = []
        start: Item | None = None
        while True:
            page = await self._table.query(
                condition, values, exclusive_start_key=start, consistent_read=True, limit=limit + 1
            )
            found += [_read_wait(item) for item in page.items if item["sk"]["S"] != after]
            start = page.last_evaluated_key
            if start is None or len(found) >= limit:
                return found[:limit]

    async def find_wait(self, tenant: str, wait: str) -> Wait | None:
        """See `SessionStore.find_wait`."""
        item = await self._table.get(wait_key(tenant, wait))
        return _read_wait(item) if item else None

    async def decide(self, wait: Wait, decision: Decision, audit: AuditRecord) -> bool:
        """See `SessionStore.decide`."""
        key = wait.key
        decided = encode_record(decision).decode()
        for _ in range(_ATTEMPTS):
            parts: list[Part] = [
                Update(
                    table_name=self._table.name,
                    key=wait_key(key.tenant, wait.id),
                    update_expression="SET d = :d",
                    condition_expression="attribute_exists(pk) AND attribute_not_exists(d)",
                    expression_attribute_values={":d": text(decided)},
                )
            ]
            parts += await self._jobs.wake_parts(key, wait.turn)
            parts += await self._audit_parts(audit.key, (audit,))
            refused = await self._transact(parts)
            if refused is None:
                return True
            if refused.reasons[0].code == "ConditionalCheckFailed":
                stored = await self._table.get(wait_key(key.tenant, wait.id))
                return bool(refused.uncertain and stored and stored.get("d") == text(decided))
        raise _busy()

    async def append(self, record: AuditRecord) -> None:
        """See `SessionStore.append_audit`."""
        for _ in range(_ATTEMPTS):
            parts = await self._audit_parts(record.key, (record,))
            refused = await self._transact(parts)
            if refused is None:
                return
            put = parts[0]
            if refused.uncertain and isinstance(put, Put):  # by its own attempt before, perhaps
                stored = await self._table.get({"pk": put.item["pk"], "sk": put.item["sk"]})
                if stored and stored["r"] == put.item["r"]:
                    return
        raise _busy()

    async def audit(self, tenant: str | None, limit: int, cursor: str | None) -> AuditPage:
        """See `SessionStore.audit`: a scan of the table."""
        start: Item | None = None
        if cursor is not None:
            partition, sort = read_cursor(cursor, tuple[str, str])
            start = {"pk": text(partition), "sk": text(sort)}
        operation = Operation("Scan", Page[Item])
        records: list[Item] = []
        while True:
            request: dict[str, object] = {
                "TableName": self._table.name,
                "FilterExpression": "begins_with(pk, :prefix)",
                "ExpressionAttributeValues": {":prefix": text(audit_prefix(tenant))},
                "ConsistentRead": True,
            }
            if start is not None:
                request["ExclusiveStartKey"] = start
            try:
                page = await self._table.client.call(
                    operation, request, deadline=self._table.deadline()
                )
            except InvalidCall as error:
                if cursor is None:
                    raise
                raise InvalidField("This is not a cursor of this list.", field="cursor") from error
            records += page.items
            start = page.last_evaluated_key
            if len(records) > limit or (start is None):
                break
        found = tuple(decode_audit(item["r"]["S"]) for item in records[:limit])
        if len(records) <= limit:
            return AuditPage(found, None)
        last = records[limit - 1]
        return AuditPage(found, write_cursor((last["pk"]["S"], last["sk"]["S"])))

    def _head_part(self, write: JournalWrite, created_at: float | None, now: float) -> Update:
        values: Item = {
            ":now": number(now),
            ":me": text(write.lease_owner),
            ":ends": number(write.expires_at),
            ":ttl": head_time_to_live(write.expires_at, self._keep_seconds),
        }
        names = {"#t": "ttl"}
        sets, removed = "u = :now, e = :ends, #t = :ttl", []
        if _revision(write) == 1:
            over = "held <= :now OR held > :latest"
            sets += ", v = :next, c = :created, #l = :id"
            names["#l"] = "last"
            values |= {
                ":next": number(write.turn.number),
                ":expected": number(write.turn.number - 1),
                ":created": number(created_at if created_at is not None else now),
                ":id": text(write.turn.id),
                ":latest": number(self._table.latest_lease_end(write.until)),
            }
            condition = (
                "v = :expected AND c = :created AND e > :now AND "
                f"(attribute_not_exists(holder) OR holder = :me OR {over})"
                if write.turn.number > 1
                else "attribute_not_exists(pk) OR (v > :expected AND e <= :now) OR "
                f"(v = :expected AND (holder = :me OR {over}))"
            )
        else:
            values[":number"] = number(write.turn.number)
            condition = "holder = :me AND v >= :number AND e > :now"
        if write.until is None:
            removed += ["holder", "held"]
        else:
            sets += ", holder = :me, held = :until"
            values[":until"] = number(write.until)
        if write.agent is None:
            removed.append("a")
        else:
            sets += ", a = :agent"
            values[":agent"] = text(write.agent)
        if write.state is not None or (_revision(write) == 1 and write.turn.number == 1):
            sets += ", #s = :state"
            names["#s"] = "state"
            values[":state"] = text(encode_state(write.state or {}).decode())
        return Update(
            table_name=self._table.name,
            key=head_key(write.key),
            update_expression=f"SET {sets}" + (f" REMOVE {', '.join(removed)}" if removed else ""),
            condition_expression=condition,
            expression_attribute_names=names,
            expression_attribute_values=values,
        )

    def _first_put(self, item: Item) -> Put:
        return Put(table_name=self._table.name, item=item)

    def _replacement(self, write: JournalWrite, item: Item) -> Update:
        """The first item of a turn that is stored already: its session's creation stays."""
        return Update(
            table_name=self._table.name,
            key={"pk": item["pk"], "sk": text(turn_sort(write.turn.number))},
            update_expression="SET p = :p, parts = :parts, z = :z, j = :j, #t = :ttl",
            condition_expression="i = :i AND j = :before",
            expression_attribute_names={"#t": "ttl"},
            expression_attribute_values={
                ":p": item["p"],
                ":parts": item["parts"],
                ":z": item["z"],
                ":j": item["j"],
                ":ttl": item["ttl"],
                ":i": text(write.turn.id),
                ":before": number(_revision(write) - 1),
            },
        )

    def _wait_parts(self, write: JournalWrite, keep_until: float) -> list[Part]:
        """Each wait is one item of the transaction, whatever is done with it."""
        tenant, name = write.key.tenant, self._table.name
        undecided = "attribute_exists(pk) AND attribute_not_exists(d)"
        parts: list[Part] = []
        added = {each.id for each in write.waits}
        for each in write.waits:
            item: Item = {
                **wait_key(tenant, each.id),
                "r": text(encode_record(structs.replace(each, decision=None)).decode()),
                "o": text(write.key.subject),
                "s": text(write.key.session),
                "ttl": time_to_live(keep_until),
            }
            if each.decision is not None:
                item["d"] = text(encode_record(each.decision).decode())
            condition = undecided if each.id in write.undecided else None
            parts.append(Put(table_name=name, item=item, condition_expression=condition))
        for wait in sorted({*write.ended, *write.undecided} - added):
            key = wait_key(tenant, wait)
            if wait not in write.ended:
                parts.append(
                    ConditionCheck(table_name=name, key=key, condition_expression=undecided)
                )
            else:
                condition = undecided if wait in write.undecided else None
                parts.append(Delete(table_name=name, key=key, condition_expression=condition))
        return parts

    async def _audit_parts(self, key: SessionKey, records: Sequence[AuditRecord]) -> list[Part]:
        """The records as the next of their session's chain, and the pointer to it."""
        if not records:
            return []
        partition, name = audit_partition(key), self._table.name
        page = await self._table.query(
            "pk = :pk",
            {":pk": text(partition)},
            scan_index_forward=False,
            limit=1,
            consistent_read=True,
        )
        last = decode_audit(page.items[0]["r"]["S"]) if page.items else None
        ends = time_to_live(self._table.now() + self._audit_keep_seconds)
        parts: list[Part] = []
        for record in records:
            last = chained(record, last)
            item: Item = {
                "pk": text(partition),
                "sk": text(turn_sort(last.number)),
                "r": text(encode_record(last).decode()),
                "ttl": ends,
            }
            parts.append(
                Put(table_name=name, item=item, condition_expression="attribute_not_exists(pk)")
            )
        parts.append(Put(table_name=name, item={**audit_pointer_key(key), "ttl": ends}))
        return parts

    async def _transact(self, parts: list[Part]) -> TransactionCancelled | None:
        """None when it is applied; else which conditions are not met."""
        try:
            await self._table.client.transact_write(parts, deadline=self._table.deadline())
        except TransactionCancelled as error:
            if any(each.code == "ConditionalCheckFailed" for each in error.reasons):
                return error
            raise
        return None


def _revision(write: JournalWrite) -> int:
    return write.turn.journal.revision if write.turn.journal is not UNSET else 0


def _size(part: Part) -> int:
    values = part.item if isinstance(part, Put) else part.expression_attribute_values or {}
    return sum(len(each.get("S") or each.get("B") or "") for each in values.values())


def _read_wait(item: Item) -> Wait:
    wait = _decode_wait(item["r"]["S"])
    if "d" not in item:
        return wait
    return structs.replace(wait, decision=_decode_decision(item["d"]["S"]))


def _busy() -> StoreUnavailable:
    return StoreUnavailable("The session's record keeps changing; try again.", retry_after=1.0)
