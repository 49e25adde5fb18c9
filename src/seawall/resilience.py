"""Resilience of calls to an upstream: whether to call, how many at a time, when again.

Circuit breaker, adaptive concurrency limit, rolling quantile (when to send a hedge), back-off and
retry budget. Pure but for the queue of the limiter: time is passed in.
"""

import asyncio
import math
from bisect import bisect_left, insort
from collections import deque
from typing import Literal

__all__ = [
    "BreakerState",
    "CircuitBreaker",
    "ConcurrencyLimiter",
    "GradientLimit",
    "RetryBudget",
    "RollingQuantile",
    "full_jitter",
]

BreakerState = Literal["closed", "open", "half-open"]

_SLICES = 10  # of the window: old calls expire a tenth of it at a time
_LONGEST_OPEN = 4.0  # times open_seconds


class CircuitBreaker:
    """Closed until too many calls of a window failed; then open; then half-open with a few probes.

    Failed probes open it again for twice as long as before, at most four times `open_seconds`.
    Calls that began in another state do not count. Times are seconds on any monotonic clock.

    Source: M. Nygard, Release It!, 2nd edition, 2018, ch. 5, "Circuit Breaker".
    """

    __slots__ = (
        "_calls",
        "_failed",
        "_failure_rate",
        "_generation",
        "_min_calls",
        "_open_for",
        "_open_seconds",
        "_opened_at",
        "_probes",
        "_probing",
        "_slice_seconds",
        "_slices",
        "_succeeded",
        "_window_seconds",
    )

    def __init__(
        self,
        *,
        failure_rate: float,
        window_seconds: float,
        min_calls: int,
        open_seconds: float,
        probes: int,
    ) -> None:
        """Create a closed breaker.

        Args:
            failure_rate: Share of failed calls in the window that opens it, 0 to 1.
            window_seconds: Length of the sliding window.
            min_calls: Calls in the window below which it stays closed.
            open_seconds: How long it stays open at first.
            probes: Concurrent calls while half-open, and successes that close it.
        """
        self._failure_rate = failure_rate
        self._window_seconds = window_seconds
        self._slice_seconds = window_seconds / _SLICES
        self._min_calls = min_calls
        self._open_seconds = open_seconds
        self._probes = probes
        self._generation = 0
        self._open_for = 0.0  # 0: closed
        self._opened_at = 0.0
        self._probing = 0
        self._succeeded = 0
        self._clear()

    def state(self, *, at: float) -> BreakerState:
        """Return the present state."""
        if not self._open_for:
            return "closed"
        return "half-open" if at >= self._opened_at + self._open_for else "open"

    def retry_after(self, *, at: float) -> float:
        """Return the seconds until a call is permitted again; 0 while it is not open."""
        return max(0.0, self._opened_at + self._open_for - at) if self._open_for else 0.0

    def acquire(self, *, at: float) -> int | None:
        """Begin a call; return the ticket to record its outcome with, or None if it is refused."""
        if not self._open_for:
            return self._generation
        if at < self._opened_at + self._open_for or self._probing >= self._probes:
            return None
        self._probing += 1
        return self._generation

    def discard(self, ticket: int) -> None:
        """End a call whose outcome says nothing about the upstream."""
        if ticket == self._generation and self._open_for:
            self._probing -= 1

    def record(self, ticket: int, *, failed: bool, at: float) -> BreakerState | None:
        """Record the outcome of a call; return the new state if that changed it."""
        if ticket != self._generation:
            return None
        if self._open_for:
            return self._record_probe(failed=failed, at=at)
        self._count(failed=failed, at=at)
        if self._calls >= self._min_calls and self._failed >= self._failure_rate * self._calls:
            return self._open(self._open_seconds, at)
        return None

    def _record_probe(self, *, failed: bool, at: float) -> BreakerState | None:
        self._probing -= 1
        if failed:
            return self._open(min(self._open_for * 2, self._open_seconds * _LONGEST_OPEN), at)
        self._succeeded += 1
        if self._succeeded < self._probes:
            return None
        self._generation += 1
        self._open_for = 0.0
        self._clear()
        return "closed"

    def _open(self, seconds: float, at: float) -> BreakerState:
        self._generation += 1
        self._open_for = seconds
        self._opened_at = at
        self._probing = self._succeeded = 0
        self._clear()
        return "open"

    def _clear(self) -> None:
        self._slices: deque[list[float]] = deque()  # [begin, calls, failed]
        self._calls = self._failed = 0

    def _count(self, *, failed: bool, at: float) -> None:
        while self._slices and self._slices[0][0] <= at - self._window_seconds:
            _, calls, failures = self._slices.popleft()
            self._calls -= int(calls)
            self._failed -= int(failures)
        if not self._slices or at >= self._slices[-1][0] + self._slice_seconds:
            self._slices.append([at, 0, 0])
        self._slices[-1][1] += 1
        self._slices[-1][2] += failed
        self._calls += 1
        self._failed += failed


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


_KEPT = 256
_ENOUGH = 30


class RollingQuantile:
    """Nearest-rank quantile of the last 256 values; adding one takes about a microsecond."""

    __slots__ = ("_order", "_quantile", "_sorted")

    def __init__(self, quantile: float) -> None:
        """Create it; `quantile` is between 0 and 1, both excluded."""
        if not 0 < quantile < 1:
            raise ValueError("a quantile must be between 0 and 1")
        self._quantile = quantile
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Add a value."""
        if len(self._order) == _KEPT:
            oldest = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._order.append(value)
        insort(self._sorted, value)

    @property
    def value(self) -> float | None:
        """The quantile; None while there are fewer than thirty values."""
        if len(self._sorted) < _ENOUGH:
            return None
        return self._sorted[math.ceil(self._quantile * len(self._sorted)) - 1]


def full_jitter(attempt: int, *, base: float, cap: float, chance: float) -> float:
    """Return the seconds to wait before a retry: exponential backoff with full jitter.

    Spread over the whole interval, callers that failed together do not return together.

    Args:
        attempt: Number of the failed attempt, 1 for the first.
        base: Longest wait after the first attempt, in seconds; doubles with each attempt.
        cap: Longest wait of all, in seconds.
        chance: Random number in [0, 1).

    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    # The exponent is bounded before it is raised: 2.0 ** 1024 is an OverflowError.
    return chance * min(cap, base * 2.0 ** min(attempt - 1, 64))


class RetryBudget:
    """Token bucket that bounds all retries together.

    Retries spend tokens, successes return them, and time slowly refills the bucket. While an
    upstream mostly works, the bucket is full and every retry is permitted. When it is down, the
    bucket is empty after `capacity / cost` retries, and from then on failures are final: the load
    on the struggling upstream stays near that of first attempts alone.

    The capacity, and the costs that callers pass, are those of the AWS SDKs' standard mode
    (botocore/retries/quota.py and standard.py, 1.43); the refill by time is that of Finagle's
    RetryBudget (https://twitter.github.io/finagle/guide/Clients.html#retries).
    """

    __slots__ = ("_at", "_capacity", "_refill_per_second", "_tokens")

    def __init__(
        self,
        *,
        capacity: float = 500.0,
        refill_per_second: float = 5.0,
        tokens: float | None = None,
    ) -> None:
        """Create a budget.

        Args:
            capacity: Tokens of a full bucket.
            refill_per_second: Tokens that time adds, so that retries return after an outage
                without traffic.
            tokens: Initial tokens; None for a full bucket.
        """
        if capacity < 0 or refill_per_second < 0:
            raise ValueError("a retry budget cannot be negative")
        self._capacity = capacity
        self._refill_per_second = refill_per_second
        self._tokens = capacity if tokens is None else min(tokens, capacity)
        self._at: float | None = None

    def spend(self, cost: float, *, at: float) -> bool:
        """Pay for a retry; return whether it is permitted. `at` is on any monotonic clock."""
        self._refill(at)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def deposit(self, amount: float, *, at: float) -> None:
        """Return tokens after a success: the cost of its last retry, or one without a retry."""
        self._refill(at)
        self._tokens = min(self._capacity, self._tokens + amount)

    def tokens(self, *, at: float) -> float:
        """Return the tokens that are left."""
        self._refill(at)
        return self._tokens

    def _refill(self, at: float) -> None:
        if self._at is None or at < self._at:
            self._at = at
            return
        gained = (at - self._at) * self._refill_per_second
        self._tokens = min(self._capacity, self._tokens + gained)
        self._at = at
