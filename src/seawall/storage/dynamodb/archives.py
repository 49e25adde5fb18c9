"""Whole sessions in DynamoDB: taken out, put in, removed. Not on a turn's path."""

from collections.abc import Callable

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_batches import MAX_WRITES, batch_delete, batch_put
from seawall.aws.dynamodb_calls import DELETE, PUT, QUERY, UPDATE, Delete, Item, Put, Query, Update
from seawall.aws.dynamodb_errors import ConditionFailed, InvalidCall
from seawall.errors import InvalidField
from seawall.storage.cursors import read_cursor, write_cursor
from seawall.storage.dynamodb.items import (
    DELETED,
    head_key,
    head_time_to_live,
    key_record_key,
    number,
    owner_partition,
    read_head,
    session_key_of,
    text,
    time_to_live,
    turn_items,
    turn_partition,
)
from seawall.storage.dynamodb.reader import TableReader
from seawall.storage.port import Archive, ArchivePage, KeyRecord, latest_lease_end
from seawall.storage.values import encode_state
from seawall.turn import Principal, SessionKey

__all__ = ["delete_session", "erase_subject", "read_archives", "write_archive"]

_PAGE = 500
_ALL = 1 << 40


async def delete_session(
    client: DynamoDBClient,
    table: str,
    key: SessionKey,
    deadline: Callable[[], float],
    now: float,
) -> bool:
    """Remove a session; whether there was one, or one whose deletion was cut off.

    Its head is emptied first, which ends the session, and goes last, since only the head leads
    to turns that are left.
    """
    values: Item = {":zero": number(0), ":now": number(now), ":buried": text(DELETED)}
    try:
        head = await _mark_deleted(
            client,
            table,
            key,
            "(v > :zero AND e > :now) OR holder = :buried",
            values=values,
            deadline=deadline,
        )
    except ConditionFailed:
        return False
    await _delete_rest(client, table, key, float(head["c"]["N"]), deadline)
    return True


async def erase_subject(
    client: DynamoDBClient,
    table: str,
    owner: Principal,
    deadline: Callable[[], float],
    now: float,
) -> int:
    """Remove everything of a subject; how many sessions it had.

    Cut off in the middle, it can be done again: the heads that are left lead to the rest.
    """
    count = 0
    start: Item | None = None
    while True:
        page = await client.call(
            QUERY, _partition(table, owner_partition(owner), start), deadline=deadline()
        )
        for item in page.items:
            if not item["sk"]["S"].startswith("S#"):
                continue
            key = session_key_of(item)
            values: Item = {":zero": number(0), ":buried": text(DELETED)}
            try:
                head = await _mark_deleted(
                    client, table, key, "attribute_exists(v)", values=values, deadline=deadline
                )
            except ConditionFailed:  # deleted by another, in this moment
                continue
            count += head["v"]["N"] != "0" and float(head["e"]["N"]) > now
            await _delete_rest(client, table, key, float(head["c"]["N"]), deadline)
        keys = [item for item in page.items if not item["sk"]["S"].startswith("S#")]
        await _delete_items(client, table, keys, deadline)
        start = page.last_evaluated_key
        if start is None:
            return count


async def read_archives(reader: TableReader, limit: int, cursor: str | None) -> ArchivePage:
    """See `SessionStore.archives`; in the order in which DynamoDB has them."""
    start: Item | None = None
    if cursor is not None:
        partition, sort = read_cursor(cursor, tuple[str, str])
        start = {"pk": text(partition), "sk": text(sort)}
    archives: list[Archive] = []
    keys = _OwnerKeys(reader)
    while True:
        try:
            page = await reader.scan(start)
        except InvalidCall as error:
            if cursor is None:
                raise
            raise InvalidField("This is not a cursor of this list.", field="cursor") from error
        for head in page.items:
            if not reader.alive(head) or head["v"]["N"] == "0":
                continue
            if len(archives) == limit:
                last = head_key(archives[-1].session.key)
                return ArchivePage(
                    tuple(archives), write_cursor((last["pk"]["S"], last["sk"]["S"]))
                )
            archives.append(await _archive(reader, keys, head))
        start = page.last_evaluated_key
        if start is None:
            return ArchivePage(tuple(archives), None)


async def write_archive(
    client: DynamoDBClient,
    table: str,
    archive: Archive,
    *,
    deadline: Callable[[], float],
    now: float,
    keep: float,
    lease: float,
) -> bool:
    """See `SessionStore.restore`. The head comes last: until then nothing shows."""
    session = archive.session
    items: list[Item] = []
    for turn in archive.turns:
        items += turn_items(
            session.key, turn, born=session.created_at, expires_at=session.expires_at + keep
        )
    ids = {turn.number: turn.id for turn in archive.turns}
    for each in archive.keys:
        items.append(
            {
                **key_record_key(session.key, each.key),
                "i": text(ids.get(each.number, "")),
                "n": number(each.number),
                "s": text(session.key.session),
                "f": text(each.fingerprint),
                "b": number(session.created_at),
                "ttl": time_to_live(session.expires_at + keep),
            }
        )
    head: Item = {
        **head_key(session.key),
        "v": number(session.version),
        "state": text(encode_state(session.state).decode()),
        "c": number(session.created_at),
        "u": number(session.updated_at),
        "e": number(session.expires_at),
        "last": text(archive.turns[-1].id if archive.turns else ""),
        "ttl": head_time_to_live(session.expires_at, keep),
    }
    if session.agent is not None:
        head["a"] = text(session.agent)
    reader = TableReader(client, table, lambda: now, deadline, lease)
    if await reader.head(session.key) is not None:
        return False
    for start in range(0, len(items), MAX_WRITES):
        await batch_put(client, table, items[start : start + MAX_WRITES], deadline=deadline())
    try:
        await client.call(
            PUT,
            Put(
                table_name=table,
                item=head,
                condition_expression="attribute_not_exists(pk) OR (v > :zero AND e <= :now) "
                "OR (v = :zero AND (held <= :now OR held > :latest))",
                expression_attribute_values={
                    ":zero": number(0),
                    ":now": number(now),
                    ":latest": number(latest_lease_end(now, lease)),
                },
            ),
            deadline=deadline(),
        )
    except ConditionFailed as error:
        return error.uncertain  # else it may have failed by its own first attempt
    return True


class _OwnerKeys:
    """The keys of the owner asked for last: a scan has an owner's sessions one after another."""

    def __init__(self, reader: TableReader) -> None:
        self._reader = reader
        self._owner: Principal | None = None
        self._items: list[Item] = []

    async def of(self, key: SessionKey) -> list[Item]:
        """Those of one of its sessions."""
        owner = Principal(key.tenant, key.subject)
        if owner != self._owner:
            self._items = await self._reader.owner_items(owner, "K#")
            self._owner = owner
        return [item for item in self._items if item["s"]["S"] == key.session and "n" in item]


async def _archive(reader: TableReader, keys: _OwnerKeys, head: Item) -> Archive:
    key = session_key_of(head)
    session = read_head(key, head)
    if session is None:
        raise ValueError("a name that is only held is not a session")
    turns = await reader.turns(key, session.created_at, _ALL, before=session.version + 1, size=_ALL)
    records = [
        KeyRecord(item["sk"]["S"].removeprefix("K#"), item["f"]["S"], int(float(item["n"]["N"])))
        for item in await keys.of(key)
    ]
    records.sort(key=lambda each: each.number)
    return Archive(session, tuple(reversed(turns)), tuple(records))


async def _mark_deleted(
    client: DynamoDBClient,
    table: str,
    key: SessionKey,
    condition: str,
    *,
    values: Item,
    deadline: Callable[[], float],
) -> Item:
    """End a session: to all others its name is free. The head as it was.

    Raises:
        ConditionFailed: the condition does not hold.
    """
    asked = Update(
        table_name=table,
        key=head_key(key),
        update_expression="SET v = :zero, #s = :nothing, holder = :buried, held = :zero "
        "REMOVE a, #l",
        condition_expression=condition,
        expression_attribute_names={"#s": "state", "#l": "last"},
        expression_attribute_values={**values, ":nothing": text("{}")},
        return_values="ALL_OLD",
    )
    return (await client.call(UPDATE, asked, deadline=deadline())).attributes or {}


async def _delete_rest(
    client: DynamoDBClient, table: str, key: SessionKey, born: float, deadline: Callable[[], float]
) -> None:
    """Remove the turns of a session that is over, then its head.

    born: what was made later belongs to a new session of the same name.
    """
    start: Item | None = None
    while True:
        page = await client.call(
            QUERY, _partition(table, turn_partition(key), start), deadline=deadline()
        )
        old = [item for item in page.items if float(item["b"]["N"]) <= born]
        await _delete_items(client, table, old, deadline)
        start = page.last_evaluated_key
        if start is None:
            break
    last = Delete(
        table_name=table,
        key=head_key(key),
        condition_expression="holder = :buried",
        expression_attribute_values={":buried": text(DELETED)},
    )
    try:
        await client.call(DELETE, last, deadline=deadline())
    except ConditionFailed:
        return  # there is a new session of this name


async def _delete_items(
    client: DynamoDBClient, table: str, items: list[Item], deadline: Callable[[], float]
) -> None:
    """Each batch has a deadline of its own: a table with little capacity takes its time."""
    keys: list[Item] = [{"pk": item["pk"], "sk": item["sk"]} for item in items]
    for start in range(0, len(keys), MAX_WRITES):
        await batch_delete(client, table, keys[start : start + MAX_WRITES], deadline=deadline())


def _partition(table: str, partition: str, start: Item | None) -> Query:
    return Query(
        table_name=table,
        key_condition_expression="pk = :pk",
        expression_attribute_values={":pk": text(partition)},
        projection_expression="pk, sk, b",
        exclusive_start_key=start,
        consistent_read=True,
        limit=_PAGE,
    )
