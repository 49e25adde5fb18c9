"""Arrivals in pieces: memory does not grow with how many come."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.arrivals import Arrivals, rate_profile
from seawall.plan.simulator.kernels.arriving import fill_arrivals
from seawall.plan.simulator.kernels.randomness import stream

__all__ = ["ARRIVING", "CHOICES", "JITTERS", "SERVICES", "STARTS", "arrivals_in_pieces", "numbers"]

ARRIVING, SERVICES, STARTS, JITTERS, CHOICES = range(5)
_PIECE = 65_536


def numbers(seed: int, use: int) -> np.uint64:
    """The stream of random numbers of a seed for one use."""
    return np.uint64(stream(np.uint64(seed), use))


def arrivals_in_pieces(
    arrivals: Arrivals, seed: int, piece: int = _PIECE
) -> Iterator[NDArray[np.float64]]:
    """Times of arrival in order, at most `piece` at a time; the last piece is shorter, or empty."""
    rates, width = rate_profile(arrivals)
    crowds = sorted((spike.at, spike.size) for spike in arrivals.spikes if not spike.within)
    crowd_times = np.array([at for at, _ in crowds], dtype=np.float64)
    crowd_sizes = np.array([size for _, size in crowds], dtype=np.int64)
    clock = np.array([0.0, -1.0])
    counts = np.zeros(4, dtype=np.int64)
    state = numbers(seed, ARRIVING)
    recorded = arrivals.trace if arrivals.trace is not None else np.empty(0)
    if not rates.any() and not crowds:
        for start in range(0, len(recorded), piece):
            yield np.ascontiguousarray(recorded[start : start + piece], dtype=np.float64)
        yield np.empty(0)
        return
    taken = 0
    while True:
        times = np.empty(piece)
        written = fill_arrivals(
            state, rates, width, arrivals.horizon, crowd_times, crowd_sizes, clock, counts, times
        )
        last = written < piece
        until = np.inf if last else times[-1]
        upto = int(np.searchsorted(recorded, until, side="right"))
        if upto > taken:
            yield np.sort(np.concatenate((times[:written], recorded[taken:upto])))
            taken = upto
        else:
            yield times[:written]
        if last:
            return
