"""Circuit breaker for one upstream."""

from collections import deque
from typing import Literal

__all__ = ["BreakerState", "CircuitBreaker"]

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
