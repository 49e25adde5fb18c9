"""Where the counters are kept: with the sessions, since that is what all pods share already."""

import logging

from seawall.storage.counters import Counters
from seawall.storage.memory_counters import MemoryCounters
from seawall.storage.port import SessionStore
from seawall.storage.settings import SessionSettings

__all__ = ["open_counters"]

_log = logging.getLogger("seawall.counters")


async def open_counters(settings: SessionSettings, store: SessionStore) -> Counters:
    """Counters in the open store; in this process alone where the store is of another kind.

    Raises:
        StoreUnavailable: they cannot be prepared.
    """
    counters: Counters | None = None
    # Each only where it is configured: each start pays for what it imports.
    if settings.store == "sqlite":
        from seawall.storage.sqlite.counters import SqliteCounters  # noqa: PLC0415
        from seawall.storage.sqlite.store import SqliteStore  # noqa: PLC0415

        if isinstance(store, SqliteStore):
            counters = SqliteCounters(store)
    elif settings.store == "dynamodb":
        from seawall.storage.dynamodb.counters import DynamoDBCounters  # noqa: PLC0415
        from seawall.storage.dynamodb.store import DynamoDBStore  # noqa: PLC0415

        if isinstance(store, DynamoDBStore):
            counters = DynamoDBCounters(store.client, store.table)
    if counters is None:
        _log.warning("quotas and budgets are counted in this process only")
        counters = MemoryCounters()
    await counters.open()
    return counters
