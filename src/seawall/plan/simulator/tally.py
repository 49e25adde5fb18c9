"""From a run's counts to a Result: what all platforms share."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.kernels.recording import BUCKETS, bucket_edges
from seawall.plan.simulator.result import Histogram, Samples

__all__ = ["MOST_BINS", "bin_width", "empty_histogram", "first_tokens", "level", "samples_of"]

MOST_BINS = 200_000
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def bin_width(workload: Workload, wanted: float) -> tuple[float, int]:
    """Seconds a bin, and how many: as wanted, or as many times wider as memory asks for."""
    width = wanted
    while workload.arrivals.horizon / width > MOST_BINS:
        width *= 2.0
    return width, math.ceil(workload.arrivals.horizon / width) + _tail(workload, width)


def _tail(workload: Workload, width: float) -> int:
    """Bins after the horizon, in which the last requests end."""
    return math.ceil(min(120.0, max(10.0, 3.0 * workload.service.mean_seconds)) / width)


def empty_histogram() -> Integers:
    """Counts, all zero."""
    return np.zeros(BUCKETS, dtype=np.int64)


def histogram(counts: Integers, total: float) -> Histogram:
    """With its edges."""
    return Histogram(counts, bucket_edges(), float(total))


def level(change: NDArray[np.int64], start: float = 0.0) -> Floats:
    """What changes add up to, at the end of each bin."""
    summed: Floats = start + np.cumsum(change).astype(np.float64)
    return summed


def first_tokens(arrived: Integers, summed: Floats, slowest: Floats) -> dict[str, Floats]:
    """The mean and the longest time to first token by bin of arrival."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(arrived > 0, summed / arrived, np.nan)
    return {"first_token_mean": mean, "first_token_max": slowest}


def samples_of(kept: Floats) -> Samples:
    """The requests that were kept."""
    return Samples(
        arrival=kept[:, 0],
        first_token=kept[:, 1],
        latency=kept[:, 2],
        outcome=kept[:, 3].astype(np.int8),
        cold=kept[:, 4] > 0,
    )
