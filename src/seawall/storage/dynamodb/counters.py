"""Counters in the session table of DynamoDB: an item for each counter and window.

Each item is a partition of its own, so counters do not share one's throughput, and a quota's
moves on with every window. One partition takes a thousand writes a second
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html);
pods add blocks, about one a second each, not single calls.
"""

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import GET, UPDATE, Get, Item, Update
from seawall.aws.dynamodb_errors import ConditionFailed, DynamoDBError
from seawall.errors import StoreUnavailable
from seawall.storage.counters import Addition, Count, fit_to_limits
from seawall.storage.dynamodb.items import text, time_to_live

__all__ = ["DynamoDBCounters"]

_log = logging.getLogger("seawall.counters")

_TRIES = 8
_SLOTS = 32
_MEASURE = "m#"

P = ParamSpec("P")
T = TypeVar("T")


def _translated(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """What DynamoDB cannot do is told in the words of the port; the log has the rest."""

    @functools.wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except DynamoDBError as error:
            _log.error("counters: %s: %s", type(error).__name__, error)
            raise StoreUnavailable(
                "The shared counters cannot be used now; try again later.", retry_after=1.0
            ) from error

    return wrapped


class DynamoDBCounters:
    """Implements `Counters`.

    seconds: the longest that one call to DynamoDB may take, retries included.
    """

    def __init__(self, client: DynamoDBClient, table: str, *, seconds: float = 3.0) -> None:
        self._client = client
        self._table = table
        self._seconds = seconds
        # An addition whose answer is lost is sent again. It is known by the token that it leaves
        # in one of a few slots, so an item does not grow; another addition in the same slot in
        # that very moment would hide it, and the amount counts twice then: on the safe side.
        self._slot = f"t{os.urandom(1)[0] % _SLOTS}"

    async def open(self) -> None:
        """See `Counters.open`. The table is the session store's."""

    @_translated
    async def add(self, addition: Addition) -> Count:
        """See `Counters.add`."""
        used: dict[str, int] = {}
        for _ in range(_TRIES):
            granted = fit_to_limits(addition.amounts, addition.limits, used)
            if not any(granted.values()):
                return Count(granted, used)
            counted, used = await self._attempt(addition, granted)
            if counted:
                return Count(granted, used)
        # Others were quicker each time: near the limit, where there is hardly anything left.
        return Count(dict.fromkeys(addition.amounts, 0), used)

    @_translated
    async def read(self, counter: str, window: str) -> dict[str, int]:
        """See `Counters.read`."""
        asked = Get(table_name=self._table, key=_key(counter, window), consistent_read=True)
        found = await self._client.call(GET, asked, deadline=self._deadline())
        return _used(found.item or {})

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
        update = Update(
            table_name=self._table,
            key=_key(addition.counter, addition.window),
            update_expression=f"SET #t = :ttl, #s = :token ADD {', '.join(added)}",
            condition_expression=" AND ".join(conditions),
            expression_attribute_names=names,
            expression_attribute_values=values,
            return_values="ALL_NEW",
            return_values_on_condition_check_failure="ALL_OLD",
        )
        try:
            written = await self._client.call(UPDATE, update, deadline=self._deadline())
        except ConditionFailed as error:
            item: Item = error.item or {}
            return item.get(self._slot) == text(token), _used(item)
        return True, _used(written.attributes or {})

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._seconds


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
