"""What the connections of a worker may take together: connections, descriptors, unread bytes."""

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from seawall.config import ServerSettings

__all__ = ["READ_BYTES", "Dispensable", "Intake"]

READ_BYTES = 16_384
_RESERVE = 512  # descriptors: a round of the event loop may accept one of each listening socket
_AT_ONCE = 64


class Dispensable(Protocol):
    """A connection, as the intake sees it."""

    @property
    def waiting_since(self) -> float | None:
        """Since when it waits for a request; None while one is being answered."""

    def give_way(self) -> bool:
        """Close, if what it holds is not of a turn; whether it did."""


class Intake:
    """Bounds all connections of a worker together, where each by itself is within its own bounds.

    Beyond a bound the connections that have waited longest give way to new ones.

    Args:
        limits: `max_connections`, and `max_unread_bytes` of all requests that are not whole.
        files: Descriptors that the process may have open.
    """

    __slots__ = ("_files", "_holding", "_limits", "_unread", "reading")

    def __init__(self, limits: ServerSettings, files: int) -> None:
        self._limits = limits
        self._files = files - min(_RESERVE, files // 4)
        self._holding: dict[Dispensable, int] = {}  # in the order in which they began to hold
        self._unread = 0
        self.reading = memoryview(bytearray(READ_BYTES))  # by one connection after the other

    def enter(self, descriptor: int, connections: Iterable[Dispensable], count: int) -> bool:
        """Make room for a connection.

        Returns:
            Whether there is.
        """
        full = count > self._limits.max_connections
        if not full and descriptor < self._files:
            return True
        waiting = [
            (since, id(each), each)
            for each in connections
            if (since := each.waiting_since) is not None
        ]
        closed = [
            each for *_, each in heapq.nsmallest(max(8, count // 64), waiting) if each.give_way()
        ]
        return bool(closed) or not full

    def hold(self, connection: Dispensable, size: int) -> None:
        """The connection holds `size` bytes of requests that are not answered."""
        self._unread += size - self._holding.get(connection, 0)
        if size:
            self._holding[connection] = size
        else:
            self._holding.pop(connection, None)
        if self._unread > self._limits.max_unread_bytes:
            for each in list(islice(self._holding, _AT_ONCE)):
                if each.give_way() and self._unread <= self._limits.max_unread_bytes:
                    break
