"""Counters of one process: where there is no store that others share."""

import time
from collections.abc import Callable

from seawall.storage.counters import Addition, Count, fit_to_limits

__all__ = ["MemoryCounters"]


class MemoryCounters:
    """Implements `Counters`. clock: Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._used: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    async def open(self) -> None:
        """See `Counters.open`."""

    async def add(self, addition: Addition) -> Count:
        """See `Counters.add`."""
        key = (addition.counter, addition.window)
        if key not in self._used:
            self._forget()
        _, used = self._used.setdefault(key, (addition.expires_at, {}))
        granted = fit_to_limits(addition.amounts, addition.limits, used)
        for measure, amount in granted.items():
            used[measure] = used.get(measure, 0) + amount
        return Count(granted, dict(used))

    async def read(self, counter: str, window: str) -> dict[str, int]:
        """See `Counters.read`."""
        found = self._used.get((counter, window))
        return dict(found[1]) if found else {}

    def _forget(self) -> None:
        now = self._clock()
        self._used = {key: each for key, each in self._used.items() if each[0] > now}
