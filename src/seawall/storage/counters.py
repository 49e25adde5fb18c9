"""Counters shared by all processes: the port, and an implementation in memory.

A counter has a name and starts from zero in each window. It counts one or several measures, such as
requests and tokens, in whole units. An addition under a limit is granted up to the limit, in one
atomic step, so that processes that add at the same time do not exceed it together.
"""

import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

__all__ = ["Addition", "Count", "Counters", "MemoryCounters", "fit_to_limits"]


class Addition(Struct, frozen=True, kw_only=True):
    """An amount to be added to a counter.

    Attributes:
        counter: Its name, 1 to 512 characters.
        window: Name of the window, 1 to 512 characters.
        amounts: By measure; negative to give back.
        expires_at: End of the window in Unix seconds; then the counter may be deleted.
        limits: Of measures that must not exceed them; negative amounts, and measures without a
            limit, are always added.
    """

    counter: str
    window: str
    amounts: dict[str, int]
    expires_at: float
    limits: dict[str, int] = {}


class Count(Struct, frozen=True):
    """The result of an addition.

    Attributes:
        granted: What was added, by measure.
        used: The total of all processes, by measure.
    """

    granted: dict[str, int]
    used: dict[str, int]


class Counters(Protocol):
    """Counters in a store. Callers put a deadline around every call.

    Every method raises StoreUnavailable when the store cannot answer; the amount may have been
    added nevertheless.
    """

    async def open(self) -> None:
        """Create what is missing. Called once, before anything else."""
        ...

    async def add(self, addition: Addition) -> Count:
        """Add as much as fits."""
        ...

    async def read(self, counter: str, window: str) -> dict[str, int]:
        """The totals so far, by measure; empty if nothing was added."""
        ...


def fit_to_limits(
    amounts: dict[str, int], limits: dict[str, int], used: dict[str, int]
) -> dict[str, int]:
    """How much of each amount fits under its limit, given the totals used so far."""
    return {
        measure: amount
        if amount <= 0 or measure not in limits
        else max(0, min(amount, limits[measure] - used.get(measure, 0)))
        for measure, amount in amounts.items()
    }


class MemoryCounters:
    """Implements `Counters` within one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Start without counters.

        Args:
            clock: Unix time in seconds.
        """
        self._clock = clock
        self._used: dict[tuple[str, str], tuple[float, dict[str, int]]] = {}

    async def open(self) -> None:
        """See `Counters.open`."""

    async def add(self, addition: Addition) -> Count:
        """See `Counters.add`."""
        key = (addition.counter, addition.window)
        if key not in self._used:
            self._purge()
        _, used = self._used.setdefault(key, (addition.expires_at, {}))
        granted = fit_to_limits(addition.amounts, addition.limits, used)
        for measure, amount in granted.items():
            used[measure] = used.get(measure, 0) + amount
        return Count(granted, dict(used))

    async def read(self, counter: str, window: str) -> dict[str, int]:
        """See `Counters.read`."""
        found = self._used.get((counter, window))
        return dict(found[1]) if found else {}

    def _purge(self) -> None:
        now = self._clock()
        self._used = {key: each for key, each in self._used.items() if each[0] > now}
