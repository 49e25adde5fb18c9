"""What a typical turn takes: the median of the last ones."""

from collections import deque

__all__ = ["RecentMedian"]

_WINDOW = 127
_EVERY = 16
_FORGET_SECONDS = 30.0


class RecentMedian:
    """The median of the last 127 durations, exact, worked out anew with every sixteenth.

    What nothing has renewed for 30 seconds is forgotten. Otherwise an estimate that refuses
    everybody would never be proved wrong.
    """

    __slots__ = ("_last", "_left", "_median", "_noted_at")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self._left = 0
        self._median = 0.0
        self._noted_at = 0.0

    def record(self, seconds: float, *, at: float) -> None:
        """A turn took so long; `at` on the clock of `seconds`."""
        self._last.append(seconds)
        self._noted_at = at
        self._left -= 1
        if self._left <= 0:
            self._left = _EVERY
            self._median = sorted(self._last)[len(self._last) // 2]

    def seconds(self, *, at: float) -> float:
        """The median; 0 where it is not known."""
        if at - self._noted_at > _FORGET_SECONDS:
            self._last.clear()
            self._left, self._median = 0, 0.0
        return self._median
