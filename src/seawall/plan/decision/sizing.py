"""The search for the least size that meets a condition."""

import math
from collections.abc import Callable

__all__ = ["least"]


def least(meets: Callable[[int], bool], low: int, guess: int, most: int, within: float) -> int:
    """The least number that meets, within a share of it; `most` if none does.

    Searches outwards from a guess, then by bisection: with a good guess two or three calls suffice.

    Args:
        meets: Whether a number meets; monotonic.
        low: Lower bound.
        guess: Start of the search.
        most: Upper bound.
        within: Relative precision.
    """
    guess = min(max(guess, low), most)
    step = 1.0 + max(2.0 * within, 0.1)
    if meets(guess):
        high, under = guess, low - 1
        while high > low:
            lower = max(low, min(high - 1, int(high / step)))
            if not meets(lower):
                under = lower
                break
            high, step = lower, step * step
    else:
        under, high = guess, guess
        while True:
            if high >= most:
                return most
            higher = min(most, max(high + 1, math.ceil(high * step)))
            if meets(higher):
                high = higher
                break
            under = high = higher
            step = min(step * step, 4.0)
    while high - under > max(1, int(within * high)):
        middle = (high + under) // 2
        if meets(middle):
            high = middle
        else:
            under = middle
    return high
