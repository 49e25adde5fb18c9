"""DynamoDB batches: unprocessed parts are retried.

https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from seawall.aws.dynamodb import DynamoDBClient
from seawall.aws.dynamodb_calls import BATCH_GET, BATCH_WRITE, Item, Throttled
from seawall.resilience import full_jitter

__all__ = ["MAX_READS", "MAX_WRITES", "batch_delete", "batch_get", "batch_put"]

MAX_READS = 100
"""Keys in one BatchGetItem; more are sent as several."""

MAX_WRITES = 25
"""Writes in one BatchWriteItem; more are sent as several."""

_ROUNDS = 8
_BASE_SECONDS = 0.05
_MAX_SECONDS = 2.0


async def batch_get(
    client: DynamoDBClient,
    table: str,
    keys: Sequence[Item],
    *,
    deadline: float,
    consistent_read: bool = False,
    chance: Callable[[], float] = random.random,
) -> list[Item]:
    """Return the items that exist, in no order.

    Args:
        client: The client.
        table: Name of the table.
        keys: All different.
        deadline: On the event loop's clock.
        consistent_read: Read the latest committed values.
        chance: Random numbers in [0, 1), for the jitter.

    Raises:
        Throttled: DynamoDB left some unprocessed until the deadline, or eight times.
        DynamoDBError: See its subclasses.
    """
    found: list[Item] = []
    for start in range(0, len(keys), MAX_READS):
        left: list[Item] = list(keys[start : start + MAX_READS])
        for again in range(1, _ROUNDS + 1):
            asked = {"Keys": left, "ConsistentRead": consistent_read}
            got = await client.call(BATCH_GET, {"RequestItems": {table: asked}}, deadline=deadline)
            found += got.responses.get(table, ())
            left = got.unprocessed_keys.get(table, {}).get("Keys", [])
            if not left:
                break
            await _pause(again, deadline, chance)
    return found


async def batch_put(
    client: DynamoDBClient,
    table: str,
    items: Sequence[Item],
    *,
    deadline: float,
    chance: Callable[[], float] = random.random,
) -> None:
    """Write items with different keys, each by itself and unconditionally.

    Raises:
        Throttled: DynamoDB left some unprocessed until the deadline, or eight times; the others
            are written.
        DynamoDBError: See its subclasses; some may be written.
    """
    await _write(
        client, table, [{"PutRequest": {"Item": item}} for item in items], deadline, chance
    )


async def batch_delete(
    client: DynamoDBClient,
    table: str,
    keys: Sequence[Item],
    *,
    deadline: float,
    chance: Callable[[], float] = random.random,
) -> None:
    """Delete items with different keys, each by itself and unconditionally.

    Raises:
        Throttled: DynamoDB left some unprocessed until the deadline, or eight times; the others
            are deleted.
        DynamoDBError: See its subclasses; some may be deleted.
    """
    requests: list[dict[str, object]] = [{"DeleteRequest": {"Key": key}} for key in keys]
    await _write(client, table, requests, deadline, chance)


async def _write(
    client: DynamoDBClient,
    table: str,
    requests: Sequence[dict[str, object]],
    deadline: float,
    chance: Callable[[], float],
) -> None:
    for start in range(0, len(requests), MAX_WRITES):
        left: Sequence[dict[str, object]] = requests[start : start + MAX_WRITES]
        for again in range(1, _ROUNDS + 1):
            answer = await client.call(
                BATCH_WRITE, {"RequestItems": {table: left}}, deadline=deadline
            )
            left = answer.unprocessed_items.get(table, [])
            if not left:
                break
            await _pause(again, deadline, chance)


async def _pause(again: int, deadline: float, chance: Callable[[], float]) -> None:
    pause = full_jitter(again, base=_BASE_SECONDS, cap=_MAX_SECONDS, chance=chance())
    late = asyncio.get_running_loop().time() + pause >= deadline
    if again == _ROUNDS or late:
        raise Throttled(f"DynamoDB left a part of a batch unprocessed {again} times")
    await asyncio.sleep(pause)
