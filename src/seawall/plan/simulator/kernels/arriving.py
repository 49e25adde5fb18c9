"""Arrivals: a Poisson process whose rate is constant within a bin, and spikes at an instant."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled
from seawall.plan.simulator.kernels.randomness import uniform

__all__ = ["fill_arrivals"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@compiled
def fill_arrivals(
    state: np.uint64,
    rates: Floats,
    width: float,
    horizon: float,
    spike_times: Floats,
    spike_sizes: Integers,
    clock: Floats,
    counts: Integers,
    out: Floats,
) -> int:
    """Write the next arrivals, in order of time, to `out`; fewer than fit only at the end.

    A unit exponential is used up by rate times time, which is exact.

    Args:
        state: Stream of random numbers.
        rates: Arrivals a second in each bin.
        width: Seconds of a bin.
        horizon: Seconds.
        spike_times: Times of the spikes, in order.
        spike_sizes: Their sizes.
        clock: [time of the Poisson process, its next arrival or -1 if not drawn]; updated.
        counts: [numbers drawn, bin, spike, arrivals of the spike so far]; updated.
        out: Times of arrival.

    Returns:
        The number of times written.
    """
    written = 0
    size = out.shape[0]
    bins = rates.shape[0]
    spikes = spike_times.shape[0]
    while written < size:
        if clock[1] < 0.0:
            need = -math.log(uniform(state, counts[0]))
            counts[0] += 1
            time = clock[0]
            at = counts[1]
            while at < bins:
                end = min((at + 1) * width, horizon)
                supply = (end - time) * rates[at]
                if need < supply:
                    time += need / rates[at]
                    break
                need -= supply
                time = end
                at += 1
            counts[1] = at
            clock[0] = time
            clock[1] = time if at < bins else math.inf
        if counts[2] < spikes and spike_times[counts[2]] <= clock[1]:
            here = min(size - written, spike_sizes[counts[2]] - counts[3])
            out[written : written + here] = spike_times[counts[2]]
            written += here
            counts[3] += here
            if counts[3] == spike_sizes[counts[2]]:
                counts[2] += 1
                counts[3] = 0
            continue
        if clock[1] == math.inf:
            break
        out[written] = clock[1]
        written += 1
        clock[1] = -1.0
    return written
