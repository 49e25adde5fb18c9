"""Notifications in DynamoDB.

A notification is an item of its owner's partition, so that it is erased with it; its alarm, in a
few partitions ordered by time, leads to it when its next delivery may begin.
"""

import asyncio
import zlib
from collections.abc import Sequence

import msgspec
from msgspec import structs

from seawall.aws.dynamodb_calls import (
    ConditionCheck,
    Delete,
    Item,
    Put,
    TransactionCancelled,
    Update,
)
from seawall.storage.dynamodb import number, owner_partition, text, time_to_live
from seawall.storage.dynamodb.table import SessionTable
from seawall.storage.port import Notification
from seawall.storage.values import encode_record
from seawall.turn import Principal, SessionKey

__all__ = ["NotificationTable", "notification_parts"]

_PARTITIONS = 4
_PAGE = 100
_DAY = 86_400.0

_decode = msgspec.json.Decoder(Notification).decode


def notification_parts(
    table: str, added: Sequence[Notification]
) -> list[Put | Update | Delete | ConditionCheck]:
    """The parts of a transaction that store notifications."""
    parts: list[Put | Update | Delete | ConditionCheck] = []
    for each in added:
        record = encode_record(structs.replace(each, tries=1, due=0.0)).decode()
        item: Item = {
            **_key(each),
            "r": text(record),
            "n": number(each.tries),
            "due": number(each.due),
            "s": text(each.key.session),
            "ttl": time_to_live(each.ends_at + 7 * _DAY),
        }
        parts += [Put(table_name=table, item=item), _alarm_put(table, each)]
    return parts


class NotificationTable:
    """The notifications of a table; see `SessionStore`."""

    def __init__(self, table: SessionTable) -> None:
        self._table = table

    async def due(self, limit: int) -> tuple[Notification, ...]:
        """See `SessionStore.due_notifications`. Alarms whose item is gone are deleted."""
        now = self._table.now()
        async with asyncio.TaskGroup() as group:
            queries = [
                group.create_task(self._alarms(partition, now, limit))
                for partition in range(_PARTITIONS)
            ]
        alarms = [alarm for query in queries for alarm in query.result()]
        alarms = sorted(alarms, key=lambda alarm: alarm["sk"]["S"])[: min(limit, _PAGE)]
        if not alarms:
            return ()
        async with asyncio.TaskGroup() as group:
            reads = [
                group.create_task(self._table.get({"pk": alarm["o"], "sk": alarm["s"]}))
                for alarm in alarms
            ]
        found: list[Notification] = []
        gone: list[Item] = []
        for alarm, read in zip(alarms, reads, strict=True):
            item = read.result()
            notification = _read(item) if item is not None else None
            if notification is not None and _alarm_key(notification)["sk"] == alarm["sk"]:
                found.append(notification)
            else:
                gone.append(alarm)
        await self._table.delete_all(gone)
        return tuple(found)

    async def claim(self, notification: Notification, due: float) -> Notification | None:
        """See `SessionStore.claim_notification`."""
        if notification.due > self._table.now():
            return None
        claimed = structs.replace(notification, tries=notification.tries + 1, due=due)
        name = self._table.name
        parts: list[Put | Update | Delete | ConditionCheck] = [
            Update(
                table_name=name,
                key=_key(notification),
                update_expression="SET n = :next, due = :due",
                condition_expression="n = :n",
                expression_attribute_values={
                    ":n": number(notification.tries),
                    ":next": number(claimed.tries),
                    ":due": number(due),
                },
            ),
            Delete(table_name=name, key=_alarm_key(notification)),
            _alarm_put(name, claimed),
        ]
        try:
            await self._table.client.transact_write(parts, deadline=self._table.deadline())
        except TransactionCancelled as error:
            if all(each.code != "ConditionalCheckFailed" for each in error.reasons):
                raise
            return None  # another was first; or the answer to its own attempt was lost
        return claimed

    async def end(self, notification: Notification) -> None:
        """See `SessionStore.end_notification`. The alarm goes first, as its item leads to it."""
        await self._table.delete_all([_alarm_key(notification)])
        await self._table.delete_all([_key(notification)])

    async def delete(self, owner: Principal | SessionKey, session: str | None = None) -> None:
        """Delete the notifications of an owner, or of one of its sessions."""
        items = await self._table.query_all(
            "pk = :pk AND begins_with(sk, :prefix)",
            {":pk": text(owner_partition(owner)), ":prefix": text("N#")},
            consistent_read=True,
        )
        items = [each for each in items if session in (None, each["s"]["S"])]
        await self._table.delete_all([_alarm_key(_read(each)) for each in items])
        await self._table.delete_all(items)

    async def _alarms(self, partition: int, now: float, limit: int) -> list[Item]:
        """The first alarms whose time has come."""
        page = await self._table.query(
            "pk = :pk AND sk < :now",
            {":pk": text(f"E#{partition}"), ":now": text(f"{now:018.6f}$")},  # "$" follows "#"
            limit=min(limit, _PAGE),
        )
        return page.items


def _key(notification: Notification) -> Item:
    return {"pk": text(owner_partition(notification.key)), "sk": text(f"N#{notification.id}")}


def _alarm_key(notification: Notification) -> Item:
    partition = zlib.crc32(notification.id.encode()) % _PARTITIONS
    sort = f"{notification.due:018.6f}#{notification.id}#{notification.tries}"
    return {"pk": text(f"E#{partition}"), "sk": text(sort)}


def _alarm_put(table: str, notification: Notification) -> Put:
    key = _key(notification)
    ends = time_to_live(notification.ends_at + 7 * _DAY)
    item: Item = {**_alarm_key(notification), "o": key["pk"], "s": key["sk"], "ttl": ends}
    return Put(table_name=table, item=item)


def _read(item: Item) -> Notification:
    return structs.replace(
        _decode(item["r"]["S"]), tries=int(float(item["n"]["N"])), due=float(item["due"]["N"])
    )
