"""How many calls an upstream can take at once, found out from how fast it begins to answer."""

import math

__all__ = ["GradientLimit"]

_TOLERANCE = 2.0  # times the usual time to the first token, before that counts as congestion
_SMOOTHING = 0.2
_LONG_SAMPLES = 600
_SHORT_SAMPLES = 10
_BACK_OFF = 0.7


class GradientLimit:
    """A limit on calls in flight that follows the ratio of usual to present latency.

    Each answer that begins in about the usual time lets the limit grow, by a share of the square
    root that queueing theory grants it; latency beyond twice the usual shrinks it in proportion,
    by half at the most. A throttled call shrinks it at once, but only once for all that were
    under way then, as TCP does. It begins at its maximum: a crowd that comes first must not find
    a limit that nobody needed.

    Latencies and times are seconds; nothing here reads a clock.
    Source: Netflix concurrency-limits, Gradient2Limit
    (https://github.com/Netflix/concurrency-limits); its additive step is made up by the square
    root of the limit, its drop by that of Jacobson's congestion avoidance, 1988.
    """

    __slots__ = ("_backed_off_at", "_limit", "_long", "_maximum", "_minimum", "_rising", "_short")

    def __init__(self, *, minimum: int, maximum: int) -> None:
        self._minimum = float(min(minimum, maximum))
        self._maximum = float(maximum)
        self._limit = self._maximum
        self._long = 0.0
        self._short = 0.0
        self._backed_off_at = -math.inf
        self._rising = False

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return int(self._limit)

    @property
    def usual(self) -> float:
        """The usual latency; 0 while it is unknown."""
        return self._long

    def sample(self, latency: float, *, in_flight: int) -> None:
        """An answer began after `latency`; `in_flight` calls were under way with it."""
        self._short += (latency - self._short) * (1 / _SHORT_SAMPLES if self._short else 1.0)
        self._long += (latency - self._long) * (1 / _LONG_SAMPLES if self._long else 1.0)
        if self._long > 2 * self._short:  # it was congested for long: let the memory of it go
            self._long *= 0.95
        gradient = max(0.5, min(1.0, _TOLERANCE * self._long / self._short))
        if gradient < 1.0:
            self._rising = False
        elif in_flight < self._limit / 2:
            return  # nobody needs more
        if self._rising:
            self._set(self._limit + 1.0)  # doubles within the time of one answer
            return
        target = self._limit * gradient + math.sqrt(self._limit)
        self._set(self._limit + (target - self._limit) * _SMOOTHING)

    def drop(self, *, in_flight: int, at: float) -> None:
        """A call was throttled, or not answered in time."""
        if at < self._backed_off_at + max(self._short, 0.5):
            return
        self._backed_off_at = at
        self._rising = False
        self._set(min(self._limit, in_flight) * _BACK_OFF)

    def restart(self, *, was: int) -> None:
        """After an outage: begin with a quarter of what was in flight before, and rise fast."""
        self._rising = True
        self._set(min(self._limit, was / 4))

    def _set(self, limit: float) -> None:
        self._limit = min(self._maximum, max(self._minimum, limit))
