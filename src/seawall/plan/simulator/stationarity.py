"""Whether a simulated run has become stationary, and from when on.

A run starts without requests. What it is judged by starts when its first part no longer matters,
which a test on the run itself says; no factor of a duration does.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.plan.simulator.result import Result

__all__ = ["Steady", "bin_seconds", "drift", "growth", "steady_from", "truncation"]

Floats = NDArray[np.float64]
_BATCH = 5
_FEWEST = 12  # values or batches that the tests need
_SURE = 3.0  # standard errors
_LITTLE = 0.02  # of the level


class Steady(Struct, frozen=True):
    """When a run became stationary.

    Attributes:
        at: Seconds from its start.
        settled: Whether it did; if not, it should be longer.
        growing: Whether requests in service and in queues were more and more to its end.
    """

    at: float
    settled: bool
    growing: bool


def bin_seconds(horizon: float) -> float:
    """Seconds of a bin that are short enough for the test: 200 to 600 of them."""
    return max(min(1.0, horizon / 200.0), horizon / 600.0)


def steady_from(result: Result, until: float) -> Steady:
    """When the part of a run up to `until` became stationary.

    Judged by the requests in service and in queues, and by the mean time to first token of those
    that arrive: what MSER-5 cuts off of them, unless the rest still drifts.
    """
    bins = int(until / result.bin_seconds)
    busy = (result.seconds["in_service"] + result.seconds["queued"])[:bins]
    times = result.seconds.get("first_token_mean", np.full(bins, np.nan))[:bins]
    known = np.isfinite(times)
    cuts, settled, growing = [0], True, False
    for values in (busy, times[known]):
        if len(values) < _FEWEST:
            continue
        cut = truncation(values)
        rest = values[cut:]
        apart, share = drift(rest), growth(rest)
        drifts = abs(apart) > _SURE and abs(share) > _LITTLE
        settled &= not drifts and 2 * cut < 0.95 * len(values)
        growing |= drifts and share > 0.0 and values is busy
        cuts.append(cut if values is busy else int(np.flatnonzero(known)[cut]) if cut else 0)
    return Steady(max(cuts) * result.bin_seconds, settled=settled, growing=growing)


def truncation(values: Floats) -> int:
    """How many of the first values belong to the warm-up: MSER-5.

    Of the values' means in batches of five, those are cut off without which the standard error of
    the rest is least; at most half of them, beyond which the rule does not hold.

    Source: K. P. White, «An effective truncation heuristic for bias reduction in simulation
    output», Simulation 69(6), 1997; with batches: White, Cobb, Spratt, WSC 2000.
    """
    batch = _BATCH if len(values) >= 20 * _BATCH else 1
    count = len(values) // batch
    if count < _FEWEST:
        return 0
    means = values[: count * batch].reshape(count, batch).mean(axis=1)
    left = np.arange(count, 0, -1)
    sums = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means**2)[::-1])[::-1]
    errors = np.maximum(squares - sums**2 / left, 0.0) / left**2
    return int(np.argmin(errors[: count // 2 + 1])) * batch


def _variance_of_mean(values: Floats) -> float:
    """Of correlated values, as if each depended on the one before only (autoregression)."""
    centred = values - values.mean()
    square = float(centred @ centred)
    if square <= 0.0:
        return 0.0
    link = min(max(float(centred[1:] @ centred[:-1]) / square, 0.0), 0.999)
    return square / len(values) ** 2 * (1.0 + link) / (1.0 - link)


def drift(values: Floats) -> float:
    """By how many standard errors the last half lies above the first three tenths.

    Source: J. Geweke, «Evaluating the accuracy of sampling-based approaches to the calculation of
    posterior moments», Bayesian Statistics 4, 1992: with a tenth and a half.
    """
    early, late = values[: len(values) * 3 // 10], values[len(values) // 2 :]
    if len(early) < 5:
        return 0.0
    error = float(np.sqrt(_variance_of_mean(early) + _variance_of_mean(late)))
    apart = float(late.mean() - early.mean())
    return apart / error if error > 0.0 else (np.inf * apart if apart else 0.0)


def growth(values: Floats) -> float:
    """By which share of itself the last half lies above the first three tenths."""
    early, late = values[: len(values) * 3 // 10], values[len(values) // 2 :]
    if len(early) < 5 or not late.mean() > 0.0:
        return 0.0
    return float((late.mean() - early.mean()) / late.mean())
