"""Adaptive limit: how many turns may be in flight. Pure; time is passed in."""

import math

from seawall.settings import AdmissionSettings

__all__ = ["AdaptiveLimit"]

_SMOOTHING_SECONDS = 1.0
_LONGEST_STEP = 0.25  # a sample counts for no more, however long the pause before it was
_LARGEST_LATENESS = 2.0  # nor for more than so many times the target
_PATIENCE_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
_DECREASE = 0.85
_USED = 0.9  # a limit is used from this share on
_QUIET_SECONDS = 20.0
_RECOVERY = 1.1
_MEMORY_GROWS = 0.8  # shares of the bound: from here on the limit no longer grows
_MEMORY_SHRINKS = 0.9
_MEMORY_STEP = 0.01


class AdaptiveLimit:
    """Additive increase, multiplicative decrease (Chiu and Jain, Computer Networks 17, 1989).

    The signal is lag, how late a timer fires: what every turn in the process feels as added
    latency, and what grows without bound once the processor is the bottleneck. As in CoDel
    (Nichols and Jacobson, ACM Queue 10(5), 2012; RFC 8289) only lag that *stands* counts: the
    smoothed lag must have been above its target for 5 seconds without a break, then again for
    one more second before each further step. A burst of opening work, a long callback, or a pause
    of the garbage collector passes; lag from arrivals beyond the capacity does not.

    A step takes 15 % off what is *in flight* (Netflix's concurrency-limits does so in
    Gradient2, https://github.com/Netflix/concurrency-limits): an optimistic limit reaches a
    realistic one in one step. No step is taken while more are in flight than the last one allowed,
    since it has not had its effect, nor while no turns begin, since then it could have none, nor
    while no more than the floor are in flight, since then the lag is not for their number.

    The limit grows by its square root each second (Gradient2's allowance for a queue) while it
    is used and lag is within its target. While it is not used nothing can be learned; after 20
    quiet seconds it returns to the configured value, by 10 % a second, so that the next burst
    finds the same server as the first one did.

    Memory is acted on at once: from 90 % of its bound on, each further percent is a step. It must
    have grown, because an allocator that keeps freed memory is healthy.

    Pure: times and samples are arguments; all times in seconds on one monotonic clock.
    """

    def __init__(self, settings: AdmissionSettings, *, memory_bound: int = 0) -> None:
        self._ceiling = settings.in_flight
        self._floor = min(settings.min_in_flight, settings.in_flight)
        self._target = settings.lag_seconds
        self._memory_bound = memory_bound
        self._limit = float(settings.in_flight)
        self._lag = 0.0
        self._sampled_at: float | None = None
        self._late_since: float | None = None
        self._next_step_at = 0.0
        self._unused_since: float | None = None
        self._memory_at_step = 0

    @property
    def limit(self) -> int:
        """Turns that may be in flight."""
        return int(self._limit)

    @property
    def lag(self) -> float:
        """Smoothed lateness of the event loop, in seconds."""
        return self._lag

    def sample(
        self, *, at: float, lag: float, memory: int, in_flight: int, peak: int, started: int
    ) -> int:
        """Adapt to a measurement, to be taken a few times a second.

        Args:
            at: Now, in seconds.
            lag: Seconds that a timer was late.
            memory: Bytes of memory of the process; 0 if not known.
            in_flight: Turns that have a slot now.
            peak: The most turns that had a slot since the last sample.
            started: Turns that got a slot since the last sample.

        Returns:
            The limit from now on.
        """
        step = 0.0 if self._sampled_at is None else max(0.0, at - self._sampled_at)
        self._sampled_at = at
        self._smooth(lag, step)
        late = self._is_late(at)
        used = peak >= _USED * self.limit
        if self._memory_is_short(memory):
            self._memory_at_step = memory
            self._shrink(in_flight)
        elif (
            late and at >= self._next_step_at and started and self._floor < in_flight <= self._limit
        ):
            self._next_step_at = at + _AGAIN_SECONDS
            self._shrink(in_flight)
        elif self._late_since is None and self._may_use_more(memory):
            self._grow(at, min(step, 1.0), used=used)
        if used or self._late_since is not None:
            self._unused_since = None
        return self.limit

    def _smooth(self, lag: float, step: float) -> None:
        if not self._target:
            return
        counts = 1.0 - math.exp(-min(step, _LONGEST_STEP) / _SMOOTHING_SECONDS)
        self._lag += (min(lag, _LARGEST_LATENESS * self._target) - self._lag) * counts

    def _is_late(self, at: float) -> bool:
        """Whether lag has been above its target for long enough."""
        if self._lag <= self._target:
            self._late_since = None
            return False
        if self._late_since is None:
            self._late_since = at
            self._next_step_at = at + _PATIENCE_SECONDS
        return at - self._late_since >= _PATIENCE_SECONDS

    def _memory_is_short(self, memory: int) -> bool:
        bound = self._memory_bound
        return bool(bound) and memory > max(
            _MEMORY_SHRINKS * bound, self._memory_at_step + _MEMORY_STEP * bound
        )

    def _may_use_more(self, memory: int) -> bool:
        if self._memory_bound and memory > _MEMORY_GROWS * self._memory_bound:
            return False
        self._memory_at_step = 0
        return True

    def _shrink(self, in_flight: int) -> None:
        self._limit = max(float(self._floor), min(self._limit, in_flight) * _DECREASE)

    def _grow(self, at: float, step: float, *, used: bool) -> None:
        if used:
            self._limit += math.sqrt(self._limit) * step
        elif self._unused_since is None:
            self._unused_since = at
        elif at - self._unused_since >= _QUIET_SECONDS:
            self._limit *= _RECOVERY**step
        self._limit = min(self._limit, float(self._ceiling))
