"""Counters in the session table of DynamoDB: an item for each counter and window.

Each item is a partition of its own, so counters do not share one partition's throughput, and a
quota's counter moves to another partition with every window. One partition takes a thousand writes
a second
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html);
processes add blocks, about one a second each, not single calls.
"""

import os

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import ConditionFailed, Item
from seawall.storage.counters import Addition, Count, fit_to_limits
from seawall.storage.dynamodb import text, time_to_live
from seawall.storage.dynamodb.table import SessionTable, translate_errors

__all__ = ["DynamoDBCounters"]

_ATTEMPTS = 8
_SLOTS = 32
_MEASURE = "m#"

_translated = translate_errors("counters", "The shared counters")


class DynamoDBCounters:
    """Implements `Counters`."""

    def __init__(self, client: DynamoDBClient, table: str, *, seconds: float = 3.0) -> None:
        """Count in an existing table.

        Args:
            client: For the table's region and endpoint.
            table: The session table's name.
            seconds: The longest that one call to DynamoDB may take, retries included.
        """
        self._table = SessionTable(client, table, seconds=seconds)
        # An addition whose answer is lost is sent again. It is recognised by the token that it
        # leaves in one of a few slots, so an item does not grow; another addition in the same slot
        # at the same time would hide it, and the amount counts twice then: on the safe side.
        self._slot = f"t{os.urandom(1)[0] % _SLOTS}"

    async def open(self) -> None:
        """See `Counters.open`. The table is the session store's."""

    @_translated
    async def add(self, addition: Addition) -> Count:
        """See `Counters.add`."""
        used: dict[str, int] = {}
        for _ in range(_ATTEMPTS):
            granted = fit_to_limits(addition.amounts, addition.limits, used)
            if not any(granted.values()):
                return Count(granted, used)
            counted, used = await self._attempt(addition, granted)
            if counted:
                return Count(granted, used)
        # Others were first each time: near the limit, where there is hardly anything left.
        return Count(dict.fromkeys(addition.amounts, 0), used)

    @_translated
    async def read(self, counter: str, window: str) -> dict[str, int]:
        """See `Counters.read`."""
        return _used(await self._table.get(_key(counter, window)) or {})

    async def _attempt(
        self, addition: Addition, amounts: dict[str, int]
    ) -> tuple[bool, dict[str, int]]:
        """Whether all of the amounts were added, and what is used now."""
        token = os.urandom(6).hex()
        names = {"#t": "ttl", "#s": self._slot}
        values: Item = {":ttl": time_to_live(addition.expires_at), ":token": text(token)}
        conditions = ["(attribute_not_exists(#s) OR #s <> :token)"]
        added: list[str] = []
        for index, (measure, amount) in enumerate(sorted(amounts.items())):
            if not amount:
                continue
            names[f"#m{index}"] = _MEASURE + measure
            values[f":a{index}"] = _whole(amount)
            added.append(f"#m{index} :a{index}")
            if amount > 0 and measure in addition.limits:
                values[f":r{index}"] = _whole(addition.limits[measure] - amount)
                conditions.append(f"(attribute_not_exists(#m{index}) OR #m{index} <= :r{index})")
        try:
            written = await self._table.update(
                _key(addition.counter, addition.window),
                f"SET #t = :ttl, #s = :token ADD {', '.join(added)}",
                " AND ".join(conditions),
                values,
                names,
                returns="ALL_NEW",
            )
        except ConditionFailed as error:
            item: Item = error.item or {}
            return item.get(self._slot) == text(token), _used(item)
        return True, _used(written)


def _key(counter: str, window: str) -> Item:
    """In a key space of its own: sessions' partitions begin with `O#` and `T#`."""
    parts = [part.replace("%", "%25").replace("#", "%23") for part in (counter, window)]
    return {"pk": text(f"C#{parts[0]}#{parts[1]}"), "sk": text("C")}


def _whole(amount: int) -> dict[str, str]:
    return {"N": str(amount)}


def _used(item: Item) -> dict[str, int]:
    return {
        name.removeprefix(_MEASURE): int(value["N"])
        for name, value in item.items()
        if name.startswith(_MEASURE)
    }
