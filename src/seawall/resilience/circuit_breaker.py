"""A circuit breaker: whether an upstream may be called, judged by how its last calls went."""

from collections import deque
from typing import Literal

__all__ = ["BreakerState", "CircuitBreaker"]

BreakerState = Literal["closed", "open", "half-open"]

_SLICES = 10  # of the window: old calls are forgotten a tenth at a time
_LONGEST_OPEN = 4.0  # times open_seconds


class CircuitBreaker:
    """Closed until too many calls of a time window failed; then open; then tried with a few.

    Of the calls that began while it was closed, a share of `failure_rate` among at least
    `min_calls` within `window_seconds` opens it. After `open_seconds` it is half open: `probes`
    calls at a time. As many successes close it; one failure opens it again, for twice as long as
    before, four times open_seconds at the most. What began in another state no longer counts.

    Decides only; times are seconds on any steady clock.
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
        self._failure_rate = failure_rate
        self._window_seconds = window_seconds
        self._slice_seconds = window_seconds / _SLICES
        self._min_calls = min_calls
        self._open_seconds = open_seconds
        self._probes = probes
        self._generation = 0
        self._open_for = 0.0  # 0: it is closed
        self._opened_at = 0.0
        self._probing = 0
        self._succeeded = 0
        self._clear()

    def state(self, *, at: float) -> BreakerState:
        """What it is now."""
        if not self._open_for:
            return "closed"
        return "half-open" if at >= self._opened_at + self._open_for else "open"

    def wait(self, *, at: float) -> float:
        """Seconds until a call may be let through again; 0 while it is not open."""
        return max(0.0, self._opened_at + self._open_for - at) if self._open_for else 0.0

    def acquire(self, *, at: float) -> int | None:
        """Begin a call: a ticket to give back with its outcome; None when it must not be made."""
        if not self._open_for:
            return self._generation
        if at < self._opened_at + self._open_for or self._probing >= self._probes:
            return None
        self._probing += 1
        return self._generation

    def discard(self, ticket: int) -> None:
        """The call ended without telling anything about the upstream."""
        if ticket == self._generation and self._open_for:
            self._probing -= 1

    def record(self, ticket: int, *, failed: bool, at: float) -> BreakerState | None:
        """The call's outcome. The new state where it changed it: "open" or "closed"."""
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
