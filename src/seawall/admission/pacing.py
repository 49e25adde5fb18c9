"""How fast turns may begin: as fast as the event loop comes round in time."""

import math

__all__ = ["Pacing"]

_START = 8
_LARGEST = 64
_SMOOTHING_SECONDS = 1.0
_SHORTEST = 1e-5
_KNOWN_AFTER_SECONDS = 3.0


class Pacing:
    """How many turns may begin during one pass of the event loop.

    A turn's opening is most of its work. Where more begin than the processor can open, every
    pass of the loop has all of them to carry on with, takes seconds, and whoever comes then
    waits as long for a mere refusal. So a pass that took longer than its target halves the
    number, and one that did not adds one (Chiu and Jain, Computer Networks 17, 1989). The loop
    is never idle for it: while turns wait, pass follows pass.

    seconds: the target.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._each = _START
        self._rate = 0.0
        self._held_back_seconds = 0.0

    @property
    def allowance(self) -> int:
        """Turns that may begin during the next pass."""
        return self._each

    @property
    def rate(self) -> float:
        """Turns a second that begin while others wait, smoothed; 0 until that has been seen.

        The first seconds tell nothing: in them a crowd arrives, and each pass has more of that.
        """
        return self._rate if self._held_back_seconds >= _KNOWN_AFTER_SECONDS else 0.0

    def passed(self, took: float, *, began: float, held_back: bool) -> None:
        """A pass is over. took: seconds. began: turns. held_back: whether more would have."""
        if took > self._seconds:
            self._each = max(1, self._each // 2)
        else:
            self._each = min(_LARGEST, self._each + 1)
        if held_back:
            took = max(took, _SHORTEST)
            self._held_back_seconds += took
            counts = 1.0 - math.exp(-took / _SMOOTHING_SECONDS)
            self._rate += (began / took - self._rate) * counts
