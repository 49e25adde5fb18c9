"""How fast turns may begin: as fast as the event loop comes round in time."""

import math

__all__ = ["StartPacer"]

_START = 8
_LARGEST = 64
_SMOOTHING_SECONDS = 1.0
_SHORTEST = 1e-5
_KNOWN_AFTER_SECONDS = 3.0
_LONGEST_PASS = 0.25  # a pass counts for no more: a paused process says nothing
_FORGET_SECONDS = 5.0


class StartPacer:
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
        self._allowance = _START
        self._rate = 0.0
        self._limited_seconds = 0.0
        self._limited_at = 0.0

    @property
    def allowance(self) -> int:
        """Turns that may begin during the next pass."""
        return self._allowance

    def rate(self, *, at: float) -> float:
        """Turns a second that begin while others wait, smoothed; 0 until that has been seen.

        The first seconds tell nothing: in them a crowd arrives, and each pass has more of that.
        Nor does a crowd that is gone: the next one finds another server. at: as for `record_pass`.
        """
        known = self._limited_seconds >= _KNOWN_AFTER_SECONDS
        return self._rate if known and at - self._limited_at <= _FORGET_SECONDS else 0.0

    def record_pass(self, took: float, *, started: float, limited: bool, at: float) -> None:
        """A pass is over. took: seconds. began: turns. held_back: whether more would have.

        at: now, in seconds on any steady clock.
        """
        if took > self._seconds:
            self._allowance = max(1, self._allowance // 2)
        else:
            self._allowance = min(_LARGEST, self._allowance + 1)
        if limited:
            if at - took - self._limited_at > _FORGET_SECONDS:
                self._rate = self._limited_seconds = 0.0
            self._limited_at = at
            took = max(took, _SHORTEST)
            weight = min(took, _LONGEST_PASS)
            self._limited_seconds += weight
            counts = 1.0 - math.exp(-weight / _SMOOTHING_SECONDS)
            self._rate += (started / took - self._rate) * counts
