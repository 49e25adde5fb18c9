"""Limiter of requests that are not turns: a bounded share of a busy worker's processor time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

__all__ = ["DelayedConnection", "NonTurnLimiter"]

_SHARE = 0.15  # of the processor time that the worker gets
_REFUSAL_SHARE = 0.2  # the same, for refused turns
_MIN_SHARE = 0.02  # of wall clock time, for a worker that has little to do
_IDLE_SHARE = 0.5  # of the time in which the event loop had nothing to do
_BURST_SECONDS = 0.005
_MAX_IDLE_SECONDS = 0.01  # that count: what was not used long ago is no excuse now
_TICK_SECONDS = 0.002
_OVERHEAD_SECONDS = 35e-6  # of reading and writing, which is not part of the measured time
_MAX_COST_SECONDS = 1e-3  # waits for the store or the issuer take no processor time
_WEIGHT = 0.05


class DelayedConnection(Protocol):
    """A connection whose next answer waits for the limiter."""

    def proceed(self) -> None:
        """Answer the delayed request."""


class _IdleTime:
    """The time during which this thread was idle.

    That is neither the time on a processor nor that in which it waited for one: on a machine that
    other processes share, or at the end of a container's quota, a thread that waits is not idle.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = _read_idle()

    def measure(self) -> float:
        """Seconds since the previous call; 0 where the kernel does not account for waiting."""
        now, before = _read_idle(), self._before
        self._before = now
        return max(0.0, min(now - before, _MAX_IDLE_SECONDS))


def _read_idle() -> float:
    try:
        # https://docs.kernel.org/scheduler/sched-stats.html: nanoseconds on a processor, which are
        # not up to date for a thread that runs, and in a processor's queue.
        with open("/proc/thread-self/schedstat", "rb") as file:  # noqa: PTH123 - every 2 ms
            queued = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.monotonic() - time.thread_time() - queued / 1e9


class NonTurnLimiter:
    """Limits the processor time of requests that are not turns, in a busy worker.

    While turns are in flight, probes and invalid requests may take 15 % of it, and turns that are
    refused for lack of capacity another 20 %, so that refusals are sent soon and no probe waits
    behind them. While the event loop is not behind, both also get half of its idle time.

    Each of the two is a token bucket in seconds of processor time. Connections without tokens
    queue with one request each, so that a connection that sends many is served no more often than
    one that sends few. A request is charged the recent mean cost of its kind.
    """

    __slots__ = (
        "_busy",
        "_costs",
        "_filled_at",
        "_idle_time",
        "_others",
        "_others_tokens",
        "_refusal_tokens",
        "_refusals",
        "_ticking",
        "_turns",
        "_used",
    )

    def __init__(self, busy: Callable[[], bool]) -> None:
        """Create a limiter.

        Args:
            busy: Whether turns are in flight; without any there is no limit.
        """
        self._busy = busy
        self._refusal_tokens = self._others_tokens = _BURST_SECONDS
        self._filled_at = time.monotonic()
        self._used = time.thread_time()  # processor time until then
        self._costs = [60e-6, 200e-6]  # answered by the connection; by the application
        self._refusals: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._turns: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._others: OrderedDict[DelayedConnection, None] = OrderedDict()
        self._ticking = False
        self._idle_time = _IdleTime()

    def admit(self, connection: DelayedConnection, *, turn: bool = False) -> bool:
        """Whether a request may be answered now; if not, `proceed` is called later.

        Args:
            connection: Whose previous request was not a turn.
            turn: Whether this request is one. Proxies mix the requests of their clients on a
                connection, so turns are served before delayed requests of other kinds.
        """
        if not (self._turns or (self._others and not turn)):
            self._refill()
            if self._others_tokens > 0:
                return True
        self._delay(connection, self._turns if turn else self._others)
        return False

    def admit_refusal(self, connection: DelayedConnection) -> bool:
        """The same for a refused turn, on a connection whose previous turn was refused."""
        if not self._refusals:
            self._refill()
            if self._refusal_tokens > 0:
                return True
        self._delay(connection, self._refusals)
        return False

    def is_delayed(self, connection: DelayedConnection) -> bool:
        """Whether `proceed` is still to be called."""
        return any(connection in each for each in (self._refusals, self._turns, self._others))

    def forget(self, connection: DelayedConnection) -> None:
        """Remove a closed connection from the queues."""
        for each in (self._refusals, self._turns, self._others):
            each.pop(connection, None)

    def charge(self, *, application: bool) -> None:
        """Charge a request that is answered by the application, or by the connection."""
        self._others_tokens -= self._costs[application]

    def charge_refusal(self) -> None:
        """Charge a refused turn."""
        self._refusal_tokens -= self._costs[False]

    def record_cost(self, seconds: float, *, application: bool) -> None:
        """Record how long a request of this kind took."""
        cost = min(seconds, _MAX_COST_SECONDS) + _OVERHEAD_SECONDS
        self._costs[application] += _WEIGHT * (cost - self._costs[application])

    def _delay(
        self, connection: DelayedConnection, queue: OrderedDict[DelayedConnection, None]
    ) -> None:
        queue[connection] = None
        self._schedule_tick()

    def _schedule_tick(self) -> None:
        if not self._ticking and (self._refusals or self._turns or self._others):
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _refill(self, idle: float = 0.0) -> None:
        now, used = time.monotonic(), time.thread_time()
        passed, worked = now - self._filled_at, used - self._used
        least = passed * _MIN_SHARE + idle * _IDLE_SHARE
        self._refusal_tokens = min(
            _BURST_SECONDS, self._refusal_tokens + least + worked * _REFUSAL_SHARE
        )
        self._others_tokens = min(_BURST_SECONDS, self._others_tokens + least + worked * _SHARE)
        self._filled_at, self._used = now, used
        if not self._busy():
            self._refusal_tokens = self._others_tokens = _BURST_SECONDS

    def _tick(self) -> None:
        self._ticking = False
        self._refill(self._idle_time.measure())
        try:
            # Each connection once: its next request waits for the next tick.
            for _ in range(len(self._refusals)):
                if self._refusal_tokens <= 0 or not self._refusals:
                    break
                self._refusals.popitem(last=False)[0].proceed()
            for _ in range(len(self._turns) + len(self._others)):
                queue = self._turns or self._others
                if self._others_tokens <= 0 or not queue:
                    break
                queue.popitem(last=False)[0].proceed()
        finally:  # one that fails must not leave the others waiting
            self._schedule_tick()
