"""What the connections of a worker may take together: connections, descriptors, unread bytes."""

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from seawall.config import ServerSettings

__all__ = ["READ_BUFFER_BYTES", "ConnectionLimits", "EvictableConnection"]

READ_BUFFER_BYTES = 16_384
_RESERVED_DESCRIPTORS = (
    512  # descriptors: a round of the event loop may accept one of each listening socket
)
_EVICTED_AT_ONCE = 64


class EvictableConnection(Protocol):
    """A connection, as the intake sees it."""

    @property
    def waiting_since(self) -> float | None:
        """Since when it waits for a request; None while one is being answered."""

    def evict(self) -> bool:
        """Close, if what it holds is not of a turn; whether it did."""


class ConnectionLimits:
    """Bounds all connections of a worker together, where each by itself is within its own bounds.

    Beyond a bound the connections that have waited longest give way to new ones.

    Args:
        limits: `max_connections`, and `max_unread_bytes` of all requests that are not whole.
        files: Descriptors that the process may have open.
    """

    __slots__ = ("_buffered", "_buffered_total", "_files", "_limits", "read_buffer")

    def __init__(self, limits: ServerSettings, files: int) -> None:
        self._limits = limits
        self._files = files - min(_RESERVED_DESCRIPTORS, files // 4)
        self._buffered: dict[
            EvictableConnection, int
        ] = {}  # in the order in which they began to hold
        self._buffered_total = 0
        self.read_buffer = memoryview(
            bytearray(READ_BUFFER_BYTES)
        )  # by one connection after the other

    def admit_connection(
        self, descriptor: int, connections: Iterable[EvictableConnection], count: int
    ) -> bool:
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
            each for *_, each in heapq.nsmallest(max(8, count // 64), waiting) if each.evict()
        ]
        return bool(closed) or not full

    def set_buffered(self, connection: EvictableConnection, size: int) -> None:
        """The connection holds `size` bytes of requests that are not answered."""
        self._buffered_total += size - self._buffered.get(connection, 0)
        if size:
            self._buffered[connection] = size
        else:
            self._buffered.pop(connection, None)
        if self._buffered_total > self._limits.max_unread_bytes:
            for each in list(islice(self._buffered, _EVICTED_AT_ONCE)):
                if each.evict() and self._buffered_total <= self._limits.max_unread_bytes:
                    break
