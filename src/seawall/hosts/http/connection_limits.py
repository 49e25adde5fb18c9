"""Limits over all connections of a worker: their number, their memory, requests beside turns."""

import asyncio
import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

from seawall.config import ServerSettings

__all__ = [
    "READ_BUFFER_BYTES",
    "ConnectionLimits",
    "DelayedConnection",
    "EvictableConnection",
    "NonTurnLimiter",
]

READ_BUFFER_BYTES = 16_384
_RESERVED_DESCRIPTORS = 512  # one pass of the event loop may accept one for each listening socket
_EVICTED_AT_ONCE = 64

_SHARE = 0.15  # of the processor time that the worker gets
_MIN_SHARE = 0.02  # of wall clock time, for a worker that has little to do
_BURST_SECONDS = 0.005
_TICK_SECONDS = 0.002
_OVERHEAD_SECONDS = 35e-6  # of reading and writing, which is not part of the measured time
_MAX_COST_SECONDS = 1e-3  # beyond it a request waits for the store or the issuer, without CPU time
_WEIGHT = 0.05


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


class DelayedConnection(Protocol):
    """A connection whose next request is delayed by `NonTurnLimiter`."""

    def proceed(self) -> None:
        """Answer the delayed request."""


class NonTurnLimiter:
    """Limits probes, refusals and invalid requests to 15 % of a worker's time beside turns.

    A token bucket in seconds of processor time; a request costs the recent mean of its kind.
    Delayed connections queue with one request each, so that a connection that sends many is
    served no more often than one that sends few. Turns have a queue of their own, served first.
    """

    __slots__ = (
        "_busy",
        "_costs",
        "_filled_at",
        "_others",
        "_ticking",
        "_tokens",
        "_turns",
        "_used",
    )

    def __init__(self, busy: Callable[[], bool]) -> None:
        """Create a limiter.

        Args:
            busy: Whether turns are in flight; without any there is no limit.
        """
        self._busy = busy
        self._tokens = _BURST_SECONDS
        self._filled_at = time.monotonic()
        self._used = time.thread_time()
        self._costs = [60e-6, 200e-6]  # answered by the connection; by the application
        self._turns: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._others: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._ticking = False

    def admit(self, connection: DelayedConnection, *, turn: bool = False) -> bool:
        """Whether a request may be answered now; if not, `proceed` is called later.

        Args:
            connection: Whose previous request was not a turn.
            turn: The request is one. Proxies mix the requests of their clients on a connection,
                so turns are served before delayed requests of other kinds.
        """
        queue = self._turns if turn else self._others
        if not (self._turns or (self._others and not turn)) and self._available():
            return True
        queue[connection] = None
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        return False

    def is_delayed(self, connection: DelayedConnection) -> bool:
        """Whether `proceed` is still to be called."""
        return connection in self._turns or connection in self._others

    def forget(self, connection: DelayedConnection) -> None:
        """Remove a closed connection from the queues."""
        self._turns.pop(connection, None)
        self._others.pop(connection, None)

    def charge(self, *, application: bool) -> None:
        """Take the cost of a request that is answered by the application, or without it."""
        self._tokens -= self._costs[application]

    def record_cost(self, seconds: float, *, application: bool) -> None:
        """Update the mean cost of a kind of request by a measurement."""
        cost = min(seconds, _MAX_COST_SECONDS) + _OVERHEAD_SECONDS
        self._costs[application] += _WEIGHT * (cost - self._costs[application])

    def _available(self) -> bool:
        now, used = time.monotonic(), time.thread_time()
        earned = (now - self._filled_at) * _MIN_SHARE + (used - self._used) * _SHARE
        self._tokens = min(_BURST_SECONDS, self._tokens + earned)
        self._filled_at, self._used = now, used
        if not self._busy():
            self._tokens = max(self._tokens, 0.0)
            return True
        return self._tokens > 0

    def _tick(self) -> None:
        try:
            for _ in range(len(self._turns) + len(self._others)):
                queue = self._turns or self._others
                if not (queue and self._available()):
                    break
                queue.popitem(last=False)[0].proceed()
        finally:  # one that fails must not leave the others waiting
            self._ticking = bool(self._turns or self._others)
            if self._ticking:
                asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
