"""A bounded share of the event loop for requests that are answered without a turn."""

import asyncio
import time
from collections import OrderedDict
from typing import Protocol

__all__ = ["CheapShare", "Waiting"]

_SHARE = 0.15
_BURST_SECONDS = 0.01
_TICK_SECONDS = 0.002
_OVERHEAD_SECONDS = 25e-6  # of reading and writing, which happen outside of what is measured
_LONGEST_SECONDS = 1e-3  # what waits for the store or the issuer meanwhile takes no processor time
_WEIGHT = 0.05


class Waiting(Protocol):
    """A connection whose next request waits for the share."""

    def proceed(self) -> None:
        """Answer the request that waits."""


class CheapShare:
    """Probes, refusals and what is wrong may take 15 % of a worker's time, turns the rest.

    A token bucket in seconds of the event loop. Connections that it has nothing for stand in one
    line, each with one request, so that a connection that asks fast is served no more often than
    one that asks seldom. What a request costs is what its kind has cost lately.
    """

    __slots__ = ("_costs", "_filled_at", "_ticking", "_tokens", "_waiting")

    def __init__(self) -> None:
        self._tokens = _BURST_SECONDS
        self._filled_at = time.monotonic()
        self._costs = [50e-6, 200e-6]  # answered by the connection; by the application
        self._waiting: OrderedDict[Waiting, None] = OrderedDict()
        self._ticking = False

    def admit(self, connection: Waiting) -> bool:
        """Whether its request may be answered now; if not, `proceed` is called later."""
        if not self._waiting and self._available():
            return True
        self._waiting[connection] = None
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        return False

    def forget(self, connection: Waiting) -> None:
        """It is closed: it waits no longer."""
        self._waiting.pop(connection, None)

    def spend(self, *, application: bool) -> None:
        """Charge a request that is being answered."""
        self._tokens -= self._costs[application]

    def learn(self, seconds: float, *, application: bool) -> None:
        """A request of this kind took so long."""
        cost = min(seconds, _LONGEST_SECONDS) + _OVERHEAD_SECONDS
        self._costs[application] += _WEIGHT * (cost - self._costs[application])

    def _available(self) -> bool:
        now = time.monotonic()
        self._tokens = min(_BURST_SECONDS, self._tokens + (now - self._filled_at) * _SHARE)
        self._filled_at = now
        return self._tokens > 0

    def _tick(self) -> None:
        while self._waiting and self._available():
            self._waiting.popitem(last=False)[0].proceed()
        self._ticking = bool(self._waiting)
        if self._ticking:
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
