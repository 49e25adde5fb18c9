"""Sessions in DynamoDB. Here are the items of the table: their keys and their content. No I/O.

docs/sessions-dynamodb.md describes the table. In short: the heads of an owner's sessions and its
idempotency keys are one partition; the turns of each session are a partition of their own.
"""

import zlib
from binascii import a2b_base64
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from seawall.aws.dynamodb_calls import Item, Value
from seawall.errors import InvalidField, TurnLimitReached
from seawall.storage.port import Lease, Session
from seawall.storage.values import encode_turn
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = [
    "DELETED",
    "TurnAssembler",
    "alive",
    "audit_partition",
    "audit_pointer_key",
    "audit_prefix",
    "head_key",
    "head_time_to_live",
    "key_record_key",
    "number",
    "owner_partition",
    "read_head",
    "read_lease",
    "session_key_of",
    "text",
    "time_to_live",
    "turn_items",
    "turn_partition",
    "turn_sort",
    "wait_key",
]

# Of an item's 400 KB (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/
# ServiceQuotas.html) this much is for a part of a turn.
_PART_BYTES = 350_000
_MAX_PARTS = 10  # with the head, within the 4 MB of a transaction
_COMPRESS_FROM = 1_024  # capacity is counted per kilobyte: below, nothing is saved

_DAY = 86_400.0
_MAX_PARTITION_BYTES = 2_048

DELETED = "deleted"
"""The lease owner in the head of a deleted session, as long as turns of it may be left."""

_decode_turn = msgspec.json.Decoder(TurnRecord).decode
_decode_state = msgspec.json.Decoder(dict[str, str]).decode


def text(value: str) -> Value:
    """A string."""
    return {"S": value}


def number(value: float) -> Value:
    """A number; floats are read back unchanged."""
    return {"N": repr(value)}


def _safe(part: str) -> str:
    """A name with its separators escaped, so that no two owners share a partition."""
    return part.replace("%", "%25").replace("#", "%23")


def _bounded(partition: str) -> str:
    if len(partition) > _MAX_PARTITION_BYTES // 4 and len(partition.encode()) > (
        _MAX_PARTITION_BYTES
    ):
        raise InvalidField(
            "Tenant, subject and session together are too long to be stored in DynamoDB.",
            field="subject",
        )
    return partition


def owner_partition(owner: Principal | SessionKey) -> str:
    """The partition of an owner's heads and idempotency keys.

    Raises:
        InvalidField: the names are too long for a partition key.
    """
    return _bounded(f"O#{_safe(owner.tenant)}#{_safe(owner.subject)}")


def turn_partition(key: SessionKey) -> str:
    """The partition of a session's turns.

    Raises:
        InvalidField: the names are too long for a partition key.
    """
    return _bounded(f"T#{_safe(key.tenant)}#{_safe(key.subject)}#{_safe(key.session)}")


def head_key(key: SessionKey) -> Item:
    """The key of a session's head."""
    return {"pk": text(owner_partition(key)), "sk": text(f"S#{key.session}")}


def key_record_key(owner: Principal | SessionKey, key: str) -> Item:
    """The key of an idempotency key's record."""
    return {"pk": text(owner_partition(owner)), "sk": text(f"K#{key}")}


def wait_key(tenant: str, wait: str) -> Item:
    """The key of a wait, in the partition of its tenant."""
    return {"pk": text(_bounded(f"W#{_safe(tenant)}")), "sk": text(wait)}


def audit_prefix(tenant: str | None) -> str:
    """How the partitions of audit records begin: all, or a tenant's."""
    return "A#" if tenant is None else f"A#{_safe(tenant)}#"


def audit_partition(key: SessionKey) -> str:
    """The partition of a session's audit records.

    Raises:
        InvalidField: the names are too long for a partition key.
    """
    return _bounded(f"{audit_prefix(key.tenant)}{_safe(key.subject)}#{_safe(key.session)}")


def audit_pointer_key(key: SessionKey) -> Item:
    """The key of the item of an owner's partition that leads to a session's audit records."""
    return {"pk": text(owner_partition(key)), "sk": text(f"A#{key.session}")}


def turn_sort(position: int) -> str:
    """The sort key of a turn; those of its further parts begin with it."""
    return f"{position:012d}"


def session_key_of(head: Item) -> SessionKey:
    """The session of a head."""
    _, tenant, subject = head["pk"]["S"].split("#")
    plain = [part.replace("%23", "#").replace("%25", "%") for part in (tenant, subject)]
    return SessionKey(plain[0], plain[1], head["sk"]["S"].removeprefix("S#"))


def time_to_live(seconds: float) -> Value:
    """When DynamoDB may delete an item: whole Unix seconds."""
    return {"N": str(int(seconds) + 1)}


def head_time_to_live(expires_at: float, keep: float) -> Value:
    """When DynamoDB may delete a head: after its turns, since only the head leads to them.

    DynamoDB deletes within some days, in no order
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/TTL.html).
    """
    return time_to_live(expires_at + keep + 7 * _DAY)


def alive(head: Item | None, now: float, latest: float) -> bool:
    """Whether there is a session, or a name that is leased for one.

    DynamoDB deletes expired items within days, so an item that exists may have expired.

    Args:
        head: The head, if there is one.
        now: Unix seconds.
        latest: See `latest_lease_end`.
    """
    if not head:
        return False
    if head["v"]["N"] != "0":
        return float(head["e"]["N"]) > now
    return now < float(head.get("held", {"N": "0"})["N"]) <= latest


def read_lease(item: Item, session: str) -> Lease | None:
    """The lease of a head or of an idempotency key."""
    if "holder" not in item:
        return None
    fingerprint = item["f"]["S"] if "f" in item else None
    return Lease(item["holder"]["S"], session, float(item["held"]["N"]), fingerprint)


def read_head(key: SessionKey, head: Item) -> Session | None:
    """The session; None for a name that is leased for its first turn."""
    version = int(head["v"]["N"])
    if not version:
        return None
    return Session(
        key=key,
        version=version,
        agent=head["a"]["S"] if "a" in head else None,
        state=_decode_state(head["state"]["S"]),
        created_at=float(head["c"]["N"]),
        updated_at=float(head["u"]["N"]),
        expires_at=float(head["e"]["N"]),
        lease=read_lease(head, key.session),
    )


def turn_items(
    key: SessionKey, turn: TurnRecord, *, created_at: float, expires_at: float
) -> list[Item]:
    """A turn as items: one, or several if it is larger than an item may be.

    Args:
        key: The session.
        turn: The turn.
        created_at: When the session was created, in Unix seconds: it separates the turns from those
            of an earlier session of the same name that are not deleted yet.
        expires_at: When DynamoDB may delete the items, in Unix seconds.

    Raises:
        TurnLimitReached: it is larger than a transaction may be.
    """
    payload: bytes = encode_turn(turn)
    packed = len(payload) >= _COMPRESS_FROM
    if packed:
        payload = zlib.compress(payload, 1)
    parts = [payload[at : at + _PART_BYTES] for at in range(0, len(payload), _PART_BYTES)]
    if len(parts) > _MAX_PARTS:
        raise TurnLimitReached(
            f"The turn is too large to be stored: {len(payload)} bytes, compressed; "
            f"at most {_MAX_PARTS * _PART_BYTES} are possible."
        )
    items: list[Item] = []
    for index, part in enumerate(parts):
        sort = turn_sort(turn.number) + (f"#{index:02d}" if index else "")
        items.append(
            {
                "pk": text(turn_partition(key)),
                "sk": text(sort),
                "b": number(created_at),
                "p": {"B": part},
                "ttl": time_to_live(expires_at),
            }
        )
    if turn.journal is not UNSET:
        for item in items:
            item["j"] = number(turn.journal.revision)
        items[0]["i"] = text(turn.id)
    items[0]["parts"] = number(len(parts))
    items[0]["z"] = {"BOOL": packed}
    return items


class TurnAssembler:
    """Assembles turns from the items of pages.

    The items are ordered newest first, the further parts of a turn before the item they belong to.
    """

    def __init__(self, created_at: float, *, size: int, largest: int | None = None) -> None:
        """Begin without turns.

        Args:
            created_at: When the session was created, in Unix seconds.
            size: No more turns are added once they have reached so many bytes of JSON.
            largest: Turns of more bytes are left out, and all before them.
        """
        self._created_at = created_at
        self._size = size
        self._largest = largest
        self.full = False
        self._parts: dict[int, dict[int, tuple[Value | None, bytes]]] = {}
        self._bytes = 0
        self.found: list[TurnRecord] = []

    def add(self, items: Iterable[Item]) -> None:
        """Add the next items of the pages."""
        for item in items:
            if self.full:
                return
            if float(item["b"]["N"]) != self._created_at:
                continue  # of a deleted session of the same name
            position, _, part = item["sk"]["S"].partition("#")
            parts = self._parts.setdefault(int(position), {})
            parts[int(part or 0)] = item.get("j"), a2b_base64(item["p"]["B"])
            if part:
                continue
            # Of a turn that was stored again, parts of an earlier revision may be left.
            wanted = [parts.get(index) for index in range(int(float(item["parts"]["N"])))]
            same = [each[1] for each in wanted if each is not None and each[0] == item.get("j")]
            if len(same) == len(wanted):
                whole = b"".join(same)
                if item["z"]["BOOL"]:
                    whole = zlib.decompress(whole)
                self._add(whole)
            del self._parts[int(position)]

    def _add(self, whole: bytes) -> None:
        if self._largest is not None and len(whole) > self._largest:
            self.full = True
            return
        self.found.append(_decode_turn(whole))
        self._bytes += len(whole)
        self.full = self._bytes >= self._size

    def newest(self, version: int, count: int) -> tuple[TurnRecord, ...]:
        """The newest of a session of that version, oldest first."""
        kept: Sequence[TurnRecord] = [each for each in self.found if each.number <= version]
        return tuple(reversed(kept[:count]))
