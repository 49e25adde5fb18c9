"""Places in a row with one queue: first come, first served; one pass without an event list.

With the queue served in order, the next to be served goes where a place is free first (Kiefer and
Wolfowitz 1955), and starts of service are in order, so a ring of them tells how many wait.
"""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import compiled
from seawall.plan.simulator.kernels.heaps import replace_top
from seawall.plan.simulator.kernels.randomness import draw, uniform
from seawall.plan.simulator.kernels.recording import bucket, place

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
    who: Integers,
    starts: Floats,
    limit: int,
    longest: float,
    width: float,
    series: Integers,
    waits: Integers,
    latencies: Integers,
    totals: Floats,
    counts: Integers,
    kept: Floats,
) -> None:
    """Take these arrivals.

    first: the number of the first. rows: the durations to add up. free: a heap of when each place
    is free. starts: a ring of the last starts of service, as long as the queue. limit: how many may
    wait, -1 for any number. longest: who would wait for longer is refused. series: rows
    [arrived, started, ended, refused] by bin of `width` seconds. waits, latencies: histograms.
    totals: seconds [waited, spent in all, busy, the last end]. counts: [arrived, refused,
    served]. kept: one row [arrival, latency or -1] a request, or none.
    """
    servers = free.shape[0]
    stages = rows.shape[0]
    bins = series.shape[1]
    keep = kept.shape[0] > 0
    ring = starts.shape[0]
    served = counts[SERVED]
    for at in range(arrivals.shape[0]):
        time = arrivals[at]
        number = first + at
        here = place(time, width, bins)
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
                kept[number, 0] = time
                kept[number, 1] = -1.0
            continue
        duration = 0.0
        for stage in range(stages):
            u = uniform(state, number * stages + stage) if rows[stage, 0] != 0.0 else 0.0
            duration += draw(rows, tables, stage, u)
        end = start + duration
        replace_top(free, who, servers, end, 0)
        if limit > 0:
            starts[served % ring] = start
        served += 1
        series[1, place(start, width, bins)] += 1
        series[2, place(end, width, bins)] += 1
        waits[bucket(start - time)] += 1
        latencies[bucket(end - time)] += 1
        totals[WAIT] += start - time
        totals[LATENCY] += end - time
        totals[BUSY] += duration
        totals[LAST] = max(totals[LAST], end)
        if keep:
            kept[number, 0] = time
            kept[number, 1] = end - time
    counts[ARRIVED] += arrivals.shape[0]
    counts[SERVED] = served
