"""A bounded share of the event loop for requests that are answered without a turn."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

__all__ = ["DelayedConnection", "NonTurnLimiter"]

_SHARE = 0.15  # of the processor time that the worker gets
_MIN_SHARE = 0.02  # of time itself, for a worker that has little to do
_BURST_SECONDS = 0.005
_TICK_SECONDS = 0.002
_OVERHEAD_SECONDS = 35e-6  # of reading and writing, which happen outside of what is measured
_MAX_COST_SECONDS = 1e-3  # what waits for the store or the issuer meanwhile takes no processor time
_WEIGHT = 0.05


class DelayedConnection(Protocol):
    """A connection whose next request waits for the share."""

    def proceed(self) -> None:
        """Answer the request that waits."""


class NonTurnLimiter:
    """While turns are in flight, probes, refusals and mistakes may take 15 % of a worker's time.

    A token bucket in seconds of processor time. Connections that it has nothing for stand in one
    line, each with one request, so that a connection that asks fast is served no more often than
    one that asks seldom; turns stand in a line before it. What a request costs is what its kind
    has cost lately.

    Args:
        busy: Whether turns are in flight. Nothing is bounded where there are none.
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
        self._busy = busy
        self._tokens = _BURST_SECONDS
        self._filled_at = time.monotonic()
        self._used = time.thread_time()  # processor time until then
        self._costs = [60e-6, 200e-6]  # answered by the connection; by the application
        self._turns: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._others: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._ticking = False

    def admit(self, connection: DelayedConnection, *, turn: bool = False) -> bool:
        """Whether its request may be answered now; if not, `proceed` is called later.

        turn: it asks for one, on a connection whose last answer was of another kind. Proxies mix
        the requests of their clients, so these are served before what others flood with.
        """
        line = self._turns if turn else self._others
        if not (self._turns or (self._others and not turn)) and self._available():
            return True
        line[connection] = None
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        return False

    def is_delayed(self, connection: DelayedConnection) -> bool:
        """Whether `proceed` is still to be called."""
        return connection in self._turns or connection in self._others

    def forget(self, connection: DelayedConnection) -> None:
        """It is closed: it waits no longer."""
        self._turns.pop(connection, None)
        self._others.pop(connection, None)

    def charge(self, *, application: bool) -> None:
        """Charge a request that is being answered."""
        self._tokens -= self._costs[application]

    def record_cost(self, seconds: float, *, application: bool) -> None:
        """A request of this kind took so long."""
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
                line = self._turns or self._others
                if not (line and self._available()):
                    break
                line.popitem(last=False)[0].proceed()
        finally:  # one that fails must not leave the others waiting
            self._ticking = bool(self._turns or self._others)
            if self._ticking:
                asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
