"""Whole sessions in DynamoDB: taken out, put in, removed. Not on a turn's path."""

from collections.abc import Callable

import msgspec

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_batches import batch_delete, batch_put
from seawall.aws.dynamodb_calls import PUT, QUERY, Item, Put, Query
from seawall.aws.dynamodb_errors import ConditionFailed
from seawall.sessions.cursors import read_cursor, write_cursor
from seawall.sessions.dynamodb_items import (
    alive,
    head_key,
    key_key,
    number,
    owner_partition,
    read_head,
    session_name,
    text,
    time_to_live,
    turn_items,
    turn_partition,
)
from seawall.sessions.dynamodb_reading import Reading
from seawall.sessions.port import Archive, ArchivePage, KeyRecord
from seawall.turn import Principal, SessionKey

__all__ = ["delete_turns", "erase_subject", "read_archives", "write_archive"]

_PAGE = 500
_ALL = 1 << 40

_encode = msgspec.json.Encoder().encode


async def delete_turns(
    client: DynamoDBClient, table: str, key: SessionKey, deadline: Callable[[], float]
) -> None:
    """Remove what is left of a session whose head is gone."""
    await _delete_partition(client, table, turn_partition(key), deadline)


async def erase_subject(
    client: DynamoDBClient,
    table: str,
    owner: Principal,
    deadline: Callable[[], float],
    now: float,
) -> int:
    """Remove everything of a subject; how many sessions it had.

    Turns go first: cut off in the middle, the heads that are left lead to the rest.
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
            count += alive(item, now) and item["v"]["N"] != "0"
            await delete_turns(client, table, session_name(item), deadline)
        keys: list[Item] = [{"pk": item["pk"], "sk": item["sk"]} for item in page.items]
        await batch_delete(client, table, keys, deadline=deadline())
        start = page.last_evaluated_key
        if start is None:
            return count


async def read_archives(reading: Reading, limit: int, cursor: str | None) -> ArchivePage:
    """See `SessionStore.archives`; in the order in which DynamoDB has them."""
    start: Item | None = None
    if cursor is not None:
        partition, sort = read_cursor(cursor, tuple[str, str])
        start = {"pk": text(partition), "sk": text(sort)}
    archives: list[Archive] = []
    while True:
        page = await reading.scan(start)
        for head in page.items:
            if not alive(head, reading.now) or head["v"]["N"] == "0":
                continue
            if len(archives) == limit:
                last = head_key(archives[-1].session.key)
                return ArchivePage(
                    tuple(archives), write_cursor((last["pk"]["S"], last["sk"]["S"]))
                )
            archives.append(await _archive(reading, head))
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
                **key_key(session.key, each.key),
                "i": text(ids.get(each.number, "")),
                "n": number(each.number),
                "s": text(session.key.session),
                "f": text(each.fingerprint),
                "b": number(session.created_at),
                "ttl": time_to_live(session.expires_at),
            }
        )
    head: Item = {
        **head_key(session.key),
        "v": number(session.version),
        "state": text(_encode(session.state).decode()),
        "c": number(session.created_at),
        "u": number(session.updated_at),
        "e": number(session.expires_at),
        "last": text(archive.turns[-1].id if archive.turns else ""),
        "ttl": time_to_live(session.expires_at),
    }
    if session.agent is not None:
        head["a"] = text(session.agent)
    reading = Reading(client, table, lambda: now, deadline)
    if await reading.head(session.key) is not None:
        return False
    for start in range(0, len(items), _PAGE):
        await batch_put(client, table, items[start : start + _PAGE], deadline=deadline())
    try:
        await client.call(
            PUT,
            Put(
                table_name=table,
                item=head,
                condition_expression="attribute_not_exists(pk) OR (v > :zero AND e <= :now) "
                "OR (v = :zero AND held <= :now)",
                expression_attribute_values={":zero": number(0), ":now": number(now)},
            ),
            deadline=deadline(),
        )
    except ConditionFailed as error:
        return error.uncertain  # else it may have failed by its own first attempt
    return True


async def _archive(reading: Reading, head: Item) -> Archive:
    key = session_name(head)
    session = read_head(key, head)
    if session is None:
        raise ValueError("a name that is only held is not a session")
    turns = await reading.turns(key, session.created_at, _ALL, before=session.version + 1)
    records = [
        KeyRecord(item["sk"]["S"].removeprefix("K#"), item["f"]["S"], int(float(item["n"]["N"])))
        for item in await reading.owner_items(key, "K#")
        if item["s"]["S"] == key.session and "n" in item
    ]
    records.sort(key=lambda each: each.number)
    return Archive(session, tuple(reversed(turns)), tuple(records))


async def _delete_partition(
    client: DynamoDBClient, table: str, partition: str, deadline: Callable[[], float]
) -> None:
    start: Item | None = None
    while True:
        page = await client.call(QUERY, _partition(table, partition, start), deadline=deadline())
        keys: list[Item] = [{"pk": item["pk"], "sk": item["sk"]} for item in page.items]
        await batch_delete(client, table, keys, deadline=deadline())
        start = page.last_evaluated_key
        if start is None:
            return


def _partition(table: str, partition: str, start: Item | None) -> Query:
    return Query(
        table_name=table,
        key_condition_expression="pk = :pk",
        expression_attribute_values={":pk": text(partition)},
        projection_expression="pk, sk, v, e, held",
        exclusive_start_key=start,
        consistent_read=True,
        limit=_PAGE,
    )
