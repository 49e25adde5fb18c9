"""The port of counters that all pods share: amounts of a window, never beyond their limits.

A counter has a name, and starts from zero with each window. It counts one or several measures,
such as requests and tokens, in whole units. What is added under a limit is added as far as it
fits, in one atomic step, so that pods that add at the same time do not exceed it together.
"""

from typing import Protocol

from msgspec import Struct

__all__ = ["Addition", "Count", "Counters", "fit_to_limits"]


class Addition(Struct, frozen=True, kw_only=True):
    """What is to be added.

    counter, window: which counter, each 1 to 512 characters. amounts: by measure; less than
    zero gives back. limits: of measures that must not go beyond; what goes back, and what has no
    limit here, is added whatever is there. expires_at: Unix seconds; the window is over then, and
    the counter may be forgotten.
    """

    counter: str
    window: str
    amounts: dict[str, int]
    expires_at: float
    limits: dict[str, int] = {}


class Count(Struct, frozen=True):
    """What came of it, by measure: what was added, and what all have added together since."""

    granted: dict[str, int]
    used: dict[str, int]


class Counters(Protocol):
    """Counters in a store. Callers put a deadline around every call.

    Every method raises StoreUnavailable when the store cannot answer; what was to be added then
    may have been added.
    """

    async def open(self) -> None:
        """Create what is missing. Called once, before anything else."""
        ...

    async def add(self, addition: Addition) -> Count:
        """Add as much as fits."""
        ...

    async def read(self, counter: str, window: str) -> dict[str, int]:
        """What was added so far, by measure; empty when nothing was."""
        ...


def fit_to_limits(
    amounts: dict[str, int], limits: dict[str, int], used: dict[str, int]
) -> dict[str, int]:
    """How much of each amount fits, with so much used."""
    return {
        measure: amount
        if amount <= 0 or measure not in limits
        else max(0, min(amount, limits[measure] - used.get(measure, 0)))
        for measure, amount in amounts.items()
    }
