"""Adaptive concurrency limit for one upstream: the limit, and the permits under it."""

import asyncio
import math
from collections import deque

__all__ = ["ConcurrencyLimiter", "GradientLimit"]

_TOLERANCE = 3.0  # times the baseline latency; more counts as congestion
_SMOOTHING = 0.5  # of a step, once all calls in flight have reported
_SAMPLES = 10  # that the present latency is averaged over
_BACK_OFF = 0.7
_BEYOND = 1.1  # times the limit at the last congestion: the congestion is gone
_INSTANT = 0.001  # seconds; shorter latencies count as this


class GradientLimit:
    """Adaptive concurrency limit that follows the ratio of baseline to present latency.

    Answers that begin in about the baseline time let the limit grow by a share of its square root,
    as queueing theory suggests; latency beyond three times the baseline shrinks it in proportion,
    by half at most. That is the step of a whole round: each answer makes the part of it that it is
    of the calls in flight, so thousands that were sent together and report the same congestion do
    not shrink the limit thousands of times. A throttled call shrinks it at once, but only once
    for all calls in flight then, as in TCP; unless these were no more than the limit's minimum,
    which cannot have been too many. It begins at its maximum, so that a first crowd does not meet a
    limit without need. For the same reason it doubles with each round once it is beyond the point
    of the last congestion or throttling, which is gone then (as CUBIC, RFC 9438, beyond W_max).

    The baseline is the lowest latency that was seen. It is learned again while the limit is at its
    minimum: what an answer takes there is not caused by our calls.

    Latencies and times are seconds; nothing here reads a clock.
    Source: Netflix concurrency-limits, GradientLimit
    (https://github.com/Netflix/concurrency-limits); its Gradient2Limit compares with a long
    average instead, which under lasting congestion takes that for the usual. The drop is that of
    Jacobson, Congestion Avoidance and Control, 1988.
    """

    __slots__ = (
        "_backed_off_at",
        "_baseline",
        "_congested",
        "_limit",
        "_maximum",
        "_minimum",
        "_rising",
        "_short",
    )

    def __init__(self, *, minimum: int, maximum: int) -> None:
        """Create a limit at its maximum.

        Args:
            minimum: Calls in flight that are always permitted.
            maximum: Calls in flight at most.
        """
        self._minimum = float(min(minimum, maximum))
        self._maximum = float(maximum)
        self._limit = self._maximum
        self._congested = self._maximum  # the limit at the last congestion
        self._baseline = 0.0
        self._short = 0.0
        self._backed_off_at = -math.inf
        self._rising = False

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    @property
    def baseline(self) -> float:
        """Baseline latency in seconds; 0 while unknown."""
        return self._baseline

    def sample(self, latency: float, *, in_flight: int) -> None:
        """Record that an answer began after `latency` seconds, with `in_flight` calls in flight."""
        latency = max(latency, _INSTANT)
        self._short += (latency - self._short) * (1 / _SAMPLES if self._short else 1.0)
        if not self._baseline:
            self._baseline = latency
        elif self._short < self._baseline or in_flight <= 2 * self._minimum:
            self._baseline += (self._short - self._baseline) / _SAMPLES
        gradient = max(0.5, min(1.0, _TOLERANCE * self._baseline / self._short))
        if gradient < 1.0:
            self._rising = False
            self._congested = self._limit
        elif in_flight < self._limit / 2:
            return  # the limit is not needed
        elif self._limit > _BEYOND * self._congested:
            self._rising = True
        if self._rising:
            self._set(self._limit + 1.0)  # doubles within the time of one answer
            return
        target = self._limit * gradient + math.sqrt(self._limit)
        self._set(self._limit + (target - self._limit) * _SMOOTHING / max(1, in_flight))

    def record_drop(self, *, in_flight: int, at: float) -> None:
        """Record that one of the calls in flight was throttled or timed out, at time `at`."""
        if in_flight <= self._minimum:
            return  # not caused by our calls
        if at < self._backed_off_at + max(self._short, 0.5):
            return
        self._backed_off_at = at
        self._rising = False
        self._congested = min(self._limit, in_flight)
        self._set(self._congested * _BACK_OFF)

    def restart(self, *, was: float) -> None:
        """Restart after an outage, at a quarter of the calls in flight before, and rise fast."""
        self._rising = True
        self._set(min(self._limit, was / 4))

    def _set(self, limit: float) -> None:
        self._limit = min(self._maximum, max(self._minimum, limit))


class ConcurrencyLimiter:
    """Permits for calls in flight, first come first served, under a limit that may change.

    The queue is no longer than the turns in flight, which admission control bounds.

    Attributes:
        limit: Calls in flight at most; call `admit_waiting` after raising it.
        in_flight: Permits that are out.
    """

    __slots__ = ("_waiters", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Callers that wait for a permit."""
        return len(self._waiters)

    def try_acquire(self) -> bool:
        """Take a permit if one is free and no caller waits for it."""
        if self.in_flight >= self.limit or self._waiters:
            return False
        self.in_flight += 1
        return True

    async def acquire(self, until: float) -> bool:
        """Wait for a permit until `until` on the event loop's clock; return whether one came."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it came at the moment of giving up
            elif waiter in self._waiters:  # else it was skipped already
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def release(self) -> None:
        """Return a permit."""
        self.in_flight -= 1
        self.admit_waiting()

    def admit_waiting(self) -> None:
        """Give permits to waiting callers, up to the limit."""
        while self._waiters and self.in_flight < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)
