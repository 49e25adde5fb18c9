"""How many calls an upstream can take at once, found out from how fast it begins to answer."""

import math

__all__ = ["GradientLimit"]

_TOLERANCE = 3.0  # times the usual time to the first token, before that counts as congestion
_SMOOTHING = 0.5  # of what a step asks for, once all that were under way have told
_SAMPLES = 10  # that the present latency is averaged over
_BACK_OFF = 0.7
_BEYOND = 1.1  # times where there was congestion last: it is not there any more
_INSTANT = 0.001  # seconds; what is faster is not told apart from it


class GradientLimit:
    """A limit on calls in flight that follows the ratio of usual to present latency.

    Answers that begin in about the usual time let the limit grow, by a share of the square root
    that queueing theory grants it; latency beyond three times the usual shrinks it in proportion,
    by half at the most. That is the step of a whole round: each answer makes so much of it as it
    is a part of the calls in flight, so that thousands which were sent together, and tell of one
    and the same congestion, do not shrink the limit thousands of times. A throttled call shrinks
    it at once, but only once for all that were under way then, as TCP does; unless there were no
    more of them than the limit's floor, which cannot have been too many. It begins at its
    maximum: a crowd that comes first must not find a limit that nobody needed. For the same reason
    it doubles with each round once it is beyond where it was congested or throttled last: what it
    met there is gone (so does CUBIC, RFC 9438, beyond its W_max).

    The usual latency is the least that was seen. It is learnt anew where the limit is at its
    floor: whatever an answer takes there, it is not for our calls.

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
        self._minimum = float(min(minimum, maximum))
        self._maximum = float(maximum)
        self._limit = self._maximum
        self._congested = self._maximum  # the limit at which there was congestion last
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
        """The usual latency; 0 while it is unknown."""
        return self._baseline

    def sample(self, latency: float, *, in_flight: int) -> None:
        """An answer began after `latency`; `in_flight` calls were under way with it."""
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
            return  # nobody needs more
        elif self._limit > _BEYOND * self._congested:
            self._rising = True
        if self._rising:
            self._set(self._limit + 1.0)  # doubles within the time of one answer
            return
        target = self._limit * gradient + math.sqrt(self._limit)
        self._set(self._limit + (target - self._limit) * _SMOOTHING / max(1, in_flight))

    def record_drop(self, *, in_flight: int, at: float) -> None:
        """A call was throttled, or not answered in time; it is one of those in flight."""
        if in_flight <= self._minimum:
            return  # whatever it was for, it was not for our calls
        if at < self._backed_off_at + max(self._short, 0.5):
            return
        self._backed_off_at = at
        self._rising = False
        self._congested = min(self._limit, in_flight)
        self._set(self._congested * _BACK_OFF)

    def restart(self, *, was: float) -> None:
        """After an outage: begin with a quarter of what was in flight before, and rise fast."""
        self._rising = True
        self._set(min(self._limit, was / 4))

    def _set(self, limit: float) -> None:
        self._limit = min(self._maximum, max(self._minimum, limit))
