"""How fast a function may get new environments: AWS's concurrency scaling rate."""

__all__ = ["ScalingRate"]

_WINDOW_SECONDS = 10.0


class ScalingRate:
    """A bucket of `per_window` environments that refills within 10 s and never holds more.

    Source: docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html: refilled continuously;
    what is not used does not accumulate.
    """

    def __init__(self, per_window: int) -> None:
        self._capacity = float(per_window)
        self._left = self._capacity
        self._at = 0.0

    def take(self, at: float) -> bool:
        """Whether one more may be started at `at` (seconds, never running backwards)."""
        refilled = (at - self._at) * self._capacity / _WINDOW_SECONDS
        self._left = min(self._capacity, self._left + refilled)
        self._at = at
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
