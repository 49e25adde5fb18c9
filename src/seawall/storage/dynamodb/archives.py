"""Whole sessions in DynamoDB: exported, restored, deleted. Not on a turn's path."""

from seawall.aws.dynamodb_calls import ConditionFailed, InvalidCall, Item
from seawall.errors import InvalidField
from seawall.storage.dynamodb import (
    DELETED,
    audit_partition,
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
    wait_key,
)
from seawall.storage.dynamodb.table import SessionTable, TableReader
from seawall.storage.port import Archive, ArchivePage, KeyRecord
from seawall.storage.values import encode_state, read_cursor, write_cursor
from seawall.turn import Principal, SessionKey

__all__ = ["delete_session", "erase_subject", "read_archives", "write_archive"]

_PAGE = 500
_ALL = 1 << 40


async def delete_session(table: SessionTable, key: SessionKey) -> bool:
    """Delete a session; False when there is none, nor one whose deletion was interrupted.

    Its head is emptied first, which ends the session, and is deleted last, since only the head
    leads to turns that are left.
    """
    condition = "(v > :zero AND e > :now) OR holder = :deleted"
    try:
        head = await _mark_deleted(table, key, condition, {":now": number(table.now())})
    except ConditionFailed:
        return False
    await _delete_rest(table, key, float(head["c"]["N"]))
    await _delete_waits(table, key.tenant, key.subject, key.session)
    return True


async def erase_subject(table: SessionTable, owner: Principal) -> tuple[int, set[str]]:
    """Delete everything of a subject; the number of its sessions, and all their names.

    If it is interrupted it can be repeated: the heads that are left lead to the rest.
    """
    count = 0
    sessions: set[str] = set()
    now = table.now()
    start: Item | None = None
    while True:
        items, start = await _partition(table, owner_partition(owner), start)
        for item in items:
            if not item["sk"]["S"].startswith("S#"):
                continue
            key = session_key_of(item)
            sessions.add(key.session)
            try:
                head = await _mark_deleted(table, key, "attribute_exists(v)", {})
            except ConditionFailed:  # deleted concurrently
                continue
            count += head["v"]["N"] != "0" and float(head["e"]["N"]) > now
            await _delete_rest(table, key, float(head["c"]["N"]))
        await _delete_audits(table, owner, items)
        await table.delete_all([item for item in items if not item["sk"]["S"].startswith("S#")])
        if start is None:
            break
    await _delete_waits(table, owner.tenant, owner.subject)
    # Until then a decision may have been recorded, and an outcome until its session had ended.
    pointers = await table.query_all(
        "pk = :pk AND begins_with(sk, :prefix)",
        {":pk": text(owner_partition(owner)), ":prefix": text("A#")},
        projection_expression="pk, sk",
        consistent_read=True,
    )
    late = [item for item in pointers if item["sk"]["S"].removeprefix("A#") in sessions]
    await _delete_audits(table, owner, late)
    await table.delete_all(late)
    return count, sessions


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
            if not reader.is_alive(head) or head["v"]["N"] == "0":
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
    table: SessionTable, reader: TableReader, archive: Archive, *, keep_seconds: float
) -> bool:
    """See `SessionStore.restore`. The head is written last: until then nothing is visible."""
    session, now = archive.session, table.now()
    keep = session.expires_at + keep_seconds
    items: list[Item] = []
    for turn in archive.turns:
        items += turn_items(session.key, turn, created_at=session.created_at, expires_at=keep)
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
                "ttl": time_to_live(keep),
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
        "ttl": head_time_to_live(session.expires_at, keep_seconds),
    }
    if session.agent is not None:
        head["a"] = text(session.agent)
    if await reader.head(session.key) is not None:
        return False
    await table.put_all(items)
    try:
        await table.put(
            head,
            "attribute_not_exists(pk) OR (v > :zero AND e <= :now) "
            "OR (v = :zero AND (held <= :now OR held > :latest))",
            {
                ":zero": number(0),
                ":now": number(now),
                ":latest": number(table.latest_lease_end()),
            },
        )
    except ConditionFailed as error:
        return error.uncertain  # else its own first attempt may have made the condition false
    return True


class _OwnerKeys:
    """The keys of the owner asked for last: a scan returns an owner's sessions together."""

    def __init__(self, reader: TableReader) -> None:
        self._reader = reader
        self._owner: Principal | None = None
        self._items: list[Item] = []

    async def of(self, key: SessionKey) -> list[Item]:
        """The committed keys of one of its sessions."""
        owner = Principal(key.tenant, key.subject)
        if owner != self._owner:
            self._items = await self._reader.owner_keys(owner)
            self._owner = owner
        return [item for item in self._items if item["s"]["S"] == key.session and "n" in item]


async def _archive(reader: TableReader, keys: _OwnerKeys, head: Item) -> Archive:
    key = session_key_of(head)
    session = read_head(key, head)
    if session is None:
        raise ValueError("a name that is only leased is not a session")
    turns = await reader.turns(key, session.created_at, _ALL, before=session.version + 1, size=_ALL)
    records = [
        KeyRecord(item["sk"]["S"].removeprefix("K#"), item["f"]["S"], int(float(item["n"]["N"])))
        for item in await keys.of(key)
    ]
    records.sort(key=lambda each: each.number)
    return Archive(session, tuple(reversed(turns)), tuple(records))


async def _mark_deleted(table: SessionTable, key: SessionKey, condition: str, values: Item) -> Item:
    """End a session: its name is free from now on. The head as it was.

    Raises:
        ConditionFailed: the condition is not met.
    """
    return await table.update(
        head_key(key),
        "SET v = :zero, #s = :nothing, holder = :deleted, held = :zero REMOVE a, #l",
        condition,
        {**values, ":zero": number(0), ":deleted": text(DELETED), ":nothing": text("{}")},
        {"#s": "state", "#l": "last"},
        returns="ALL_OLD",
    )


async def _delete_rest(table: SessionTable, key: SessionKey, created_at: float) -> None:
    """Delete the turns of a session that has ended, then its head.

    created_at: of that session; later turns belong to a new session of the same name.
    """
    start: Item | None = None
    while True:
        items, start = await _partition(table, turn_partition(key), start)
        await table.delete_all([each for each in items if float(each["b"]["N"]) <= created_at])
        if start is None:
            break
    # Unless there is a new session of this name.
    await table.delete(head_key(key), "holder = :deleted", {":deleted": text(DELETED)})


async def _delete_audits(table: SessionTable, owner: Principal, items: list[Item]) -> None:
    """Delete the audit records to which those of these items lead that are pointers."""
    for item in items:
        if item["sk"]["S"].startswith("A#"):
            session = item["sk"]["S"].removeprefix("A#")
            await _delete_audit(table, SessionKey(owner.tenant, owner.subject, session))


async def _delete_audit(table: SessionTable, key: SessionKey) -> None:
    start: Item | None = None
    while True:
        items, start = await _partition(table, audit_partition(key), start)
        await table.delete_all(items)
        if start is None:
            return


async def _delete_waits(
    table: SessionTable, tenant: str, subject: str, session: str | None = None
) -> None:
    """Delete the waits of a subject, or of one session."""
    waits = await table.query_all(
        "pk = :pk",
        {":pk": wait_key(tenant, "")["pk"]},
        projection_expression="pk, sk, o, s",
        consistent_read=True,
    )
    await table.delete_all(
        [each for each in waits if each["o"]["S"] == subject and session in (None, each["s"]["S"])]
    )


async def _partition(
    table: SessionTable, partition: str, start: Item | None
) -> tuple[list[Item], Item | None]:
    """The keys of a page of a partition, and where the next page starts."""
    page = await table.query(
        "pk = :pk",
        {":pk": text(partition)},
        projection_expression="pk, sk, b",
        exclusive_start_key=start,
        consistent_read=True,
        limit=_PAGE,
    )
    return page.items, page.last_evaluated_key
