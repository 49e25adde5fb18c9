"""Summaries of measured times."""

import math
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Percentiles", "percentiles"]


class Percentiles(Struct, frozen=True):
    """Percentiles of times in milliseconds; None if there were no times."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Exact percentiles by the nearest-rank method; times in seconds.

    https://en.wikipedia.org/wiki/Percentile#The_nearest-rank_method
    """
    if not seconds:
        return Percentiles(None, None, None, None)
    ordered = sorted(seconds)

    def at(quantile: float) -> float:
        return round(ordered[max(0, math.ceil(quantile * len(ordered)) - 1)] * 1e3, 1)

    return Percentiles(at(0.5), at(0.95), at(0.99), at(1.0))
