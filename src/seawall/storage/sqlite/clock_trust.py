"""Whether the wall clock may be believed when something is to be deleted for good.

Decides only: time comes in as an argument.
"""

__all__ = ["SETTLING_SECONDS", "ClockTrust"]

SETTLING_SECONDS = 86_400.0
"""After the clock was set, nothing is purged for so long."""

_TOLERANCE_SECONDS = 60.0
_SLEWING = 1e-3  # twice of what NTP corrects by slewing, 500 parts per million
_UNSEEN_SECONDS = 86_400.0


class ClockTrust:
    """Compares the wall clock with one that is never set.

    A server that is started with a clock that is far ahead has nothing to compare with but `seen`:
    then it waits as if the clock had been set.
    """

    def __init__(self, wall: float, steady: float, seen: float | None) -> None:
        """Begin to watch.

        Args:
            wall: Unix seconds.
            steady: Seconds of a clock that is never set.
            seen: The latest Unix time at which the wall clock was believed, if that is known.

        `until` is the steady time from which on the wall clock is believed.
        """
        self._wall = wall
        self._steady = steady
        ahead = seen is not None and wall - seen > _UNSEEN_SECONDS
        self.until = steady + SETTLING_SECONDS if ahead else float("-inf")

    def check(self, wall: float, steady: float) -> bool:
        """Whether the wall clock may be believed now; both clocks as in `__init__`."""
        passed = steady - self._steady
        apart = wall - self._wall - passed
        self._wall, self._steady = wall, steady
        if abs(apart) > _TOLERANCE_SECONDS + _SLEWING * passed:
            self.until = steady + SETTLING_SECONDS
        return steady >= self.until
