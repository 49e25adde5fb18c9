"""Limits over all connections of a worker: connections, descriptors, buffered bytes."""

import heapq
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from seawall.config import ServerSettings

__all__ = ["READ_BUFFER_BYTES", "ConnectionLimits", "EvictableConnection"]

READ_BUFFER_BYTES = 16_384
_RESERVED_DESCRIPTORS = 512  # one pass of the event loop may accept one for each listening socket
_EVICTED_AT_ONCE = 64


class EvictableConnection(Protocol):
    """A connection, as `ConnectionLimits` sees it."""

    @property
    def waiting_since(self) -> float | None:
        """Since when it waits for a request; None while one is being answered."""

    def evict(self) -> bool:
        """Close the connection unless a turn uses it; return whether it was closed."""


class ConnectionLimits:
    """Limits the number of connections, and the bytes of incomplete requests on all of them.

    Beyond a limit the connections that have waited longest are closed in favour of new ones.

    Attributes:
        read_buffer: Of `READ_BUFFER_BYTES`; connections share it, as only one reads at a time.
    """

    __slots__ = ("_buffered", "_buffered_total", "_files", "_limits", "read_buffer")

    def __init__(self, limits: ServerSettings, files: int) -> None:
        """Create the limits of a worker.

        Args:
            limits: Its `max_connections` and `max_unread_bytes` apply.
            files: Descriptors that the process may have open.
        """
        self._limits = limits
        self._files = files - min(_RESERVED_DESCRIPTORS, files // 4)
        self._buffered: dict[EvictableConnection, int] = {}  # oldest first
        self._buffered_total = 0
        self.read_buffer = memoryview(bytearray(READ_BUFFER_BYTES))

    def admit_connection(
        self, descriptor: int, connections: Iterable[EvictableConnection], count: int
    ) -> bool:
        """Admit a new connection, closing idle ones if necessary.

        Args:
            descriptor: Of the new connection.
            connections: All connections, the new one included.
            count: Their number.

        Returns:
            Whether there is room for the new connection.
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
        """Record that a connection buffers `size` bytes of requests that are not answered."""
        self._buffered_total += size - self._buffered.get(connection, 0)
        if size:
            self._buffered[connection] = size
        else:
            self._buffered.pop(connection, None)
        if self._buffered_total > self._limits.max_unread_bytes:
            for each in list(islice(self._buffered, _EVICTED_AT_ONCE)):
                if each.evict() and self._buffered_total <= self._limits.max_unread_bytes:
                    break
