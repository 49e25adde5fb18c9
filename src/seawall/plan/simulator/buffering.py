"""Entries that buffer: a client sees nothing of an answer before all of it is there."""

import numpy as np
from msgspec import structs

from seawall.plan.simulator.result import Result

__all__ = ["buffered"]


def buffered(result: Result) -> Result:
    """The result as clients see it behind an entry that buffers answers.

    The first token comes with the last one. Over time, first tokens are known only if every request
    was kept; else they are NaN.
    """
    samples = result.samples
    seconds = dict(result.seconds)
    bins = len(seconds["first_token_mean"])
    mean, longest = np.full(bins, np.nan), np.zeros(bins)
    if samples is not None and len(samples.arrival):
        served = samples.outcome == 0
        at = np.minimum(samples.arrival[served] / result.bin_seconds, bins - 1).astype(int)
        latency = samples.latency[served]
        total = np.bincount(at, weights=latency, minlength=bins)
        arrived = seconds["arrived"]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(arrived > 0, total / arrived, np.nan)
        np.maximum.at(longest, at, latency)
        samples = structs.replace(
            samples, first_token=np.where(served, samples.latency, samples.first_token)
        )
    seconds |= {"first_token_mean": mean, "first_token_max": longest}
    return structs.replace(result, first_token=result.latency, samples=samples, seconds=seconds)
