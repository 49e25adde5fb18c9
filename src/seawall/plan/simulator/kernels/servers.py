"""Servers with one queue: first come, first served; one pass without an event list.

With the queue served in order, the next request goes to the server that is free first (Kiefer and
Wolfowitz 1955), and starts of service are in order, so that a ring of them says how many wait.
"""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled
from seawall.plan.simulator.kernels.primitives import HEAP_ROOM, bin_index, bucket, replace_top
from seawall.plan.simulator.kernels.randomness import draw, uniform

__all__ = ["ARRIVED", "BUSY", "LATENCY", "REFUSED", "WAIT", "serve"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ARRIVED, REFUSED, SERVED = range(3)
WAIT, LATENCY, BUSY, LAST = range(4)


@compiled
def serve(
    arrivals: Floats,
    first: int,
    state: np.uint64,
    rows: Floats,
    tables: Floats,
    free: Floats,
    heap_items: Integers,
    starts: Floats,
    limit: int,
    longest: float,
    width: float,
    series: Integers,
    waits: Integers,
    latencies: Integers,
    totals: Floats,
    counts: Integers,
    samples: Floats,
) -> None:
    """Serve a piece of arrivals.

    Args:
        arrivals: Times, in order.
        first: Number of the first request.
        state: Stream of random numbers of the durations.
        rows: Distributions of the durations to add up.
        tables: Their quantiles.
        free: Heap of the times at which each server is free.
        heap_items: Items of that heap; not used.
        starts: Ring of the last starts of service, as long as the queue.
        limit: How many may wait; -1 for any number.
        longest: A request that would wait longer, in seconds, is refused.
        width: Seconds of a bin.
        series: Rows [arrived, started, ended, refused] by bin.
        waits: Histogram.
        latencies: Histogram.
        totals: Seconds [waited, in the system, busy, last end].
        counts: [arrived, refused, served].
        samples: A row [arrival, latency or -1] for each request, or no rows.
    """
    servers = free.shape[0] - HEAP_ROOM
    stages = rows.shape[0]
    bins = series.shape[1]
    keep = samples.shape[0] > 0
    ring = starts.shape[0]
    served = counts[SERVED]
    for at in range(arrivals.shape[0]):
        time = arrivals[at]
        number = first + at
        here = bin_index(time, width, bins)
        series[0, here] += 1
        start = max(time, free[0])
        refused = start > time and (
            start - time > longest
            or limit == 0
            or (limit > 0 and served >= limit and starts[(served - limit) % ring] > time)
        )
        if refused:
            counts[REFUSED] += 1
            series[3, here] += 1
            if keep:
                samples[number, 0] = time
                samples[number, 1] = -1.0
            continue
        duration = 0.0
        for stage in range(stages):
            u = uniform(state, number * stages + stage) if rows[stage, 0] != 0.0 else 0.0
            duration += draw(rows, tables, stage, u)
        end = start + duration
        replace_top(free, heap_items, servers, end, 0)
        if limit > 0:
            starts[served % ring] = start
        served += 1
        series[1, bin_index(start, width, bins)] += 1
        series[2, bin_index(end, width, bins)] += 1
        waits[bucket(start - time)] += 1
        latencies[bucket(end - time)] += 1
        totals[WAIT] += start - time
        totals[LATENCY] += end - time
        totals[BUSY] += duration
        totals[LAST] = max(totals[LAST], end)
        if keep:
            samples[number, 0] = time
            samples[number, 1] = end - time
    counts[ARRIVED] += arrivals.shape[0]
    counts[SERVED] = served
