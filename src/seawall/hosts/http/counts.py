"""What a worker says of its turns when it stops; the supervisor adds it up."""

from collections.abc import Callable, MutableSequence, Sequence

from msgspec import Struct

__all__ = ["COMPLETED", "FAILED", "IN_FLIGHT", "ServerCallbacks", "TurnCounts", "sum_counts"]

COMPLETED, FAILED, IN_FLIGHT = range(3)

TurnCounts = MutableSequence[int]
"""Turns completed and failed so far, and in flight when the stop was asked for."""


class ServerCallbacks(Struct, frozen=True):
    """What is called of a server's life.

    Attributes:
        ready: With the URL and the number of workers, once turns are taken.
        stopping: With the turns in flight and the seconds that they have.
        stopped: With the turns completed and failed since the start.
    """

    ready: Callable[[str, int], None]
    stopping: Callable[[int, float], None] = lambda _in_flight, _seconds: None
    stopped: Callable[[int, int], None] = lambda _completed, _failed: None


def sum_counts(counts: Sequence[TurnCounts], which: int) -> int:
    """The sum over all workers."""
    return sum(each[which] for each in counts)
