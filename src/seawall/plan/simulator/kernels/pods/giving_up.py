"""What becomes of an attempt that failed, and deadlines in order of time."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import inlined
from seawall.plan.simulator.kernels.heaps import push
from seawall.plan.simulator.kernels.pods.arrays import (
    REFUSED,
    RETRYING,
    SERVED,
    TICKETS,
    PodParams,
    PodStats,
    Requests,
)
from seawall.plan.simulator.kernels.randomness import uniform
from seawall.plan.simulator.kernels.recording import place

__all__ = ["push_deadline", "retry_or_fail"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@inlined
def retry_or_fail(
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    request: int,
    tries: int,
    first: float,
    at: float,
    outcome: int,
) -> None:
    """An attempt failed: it comes again, or that was all. outcome: 1 refused, 2 left, 3 cut off."""
    count = requests.tally
    if tries < params.retries and (outcome != 2 or params.retry_timeouts):
        u = uniform(params.jitters, request * 32 + tries)
        delay = min(params.backoff_cap, params.backoff * 2.0**tries) * u
        count[TICKETS] -= 1
        ticket = requests.tickets[count[TICKETS]]
        requests.again_request[ticket] = request
        requests.again_tries[ticket] = tries + 1
        requests.again_first[ticket] = first
        count[RETRYING] = push(requests.again, requests.ticket, count[RETRYING], at + delay, ticket)
        return
    stats.counts[SERVED + outcome] += 1
    stats.series[REFUSED + outcome - 1, place(at, params.width, stats.series.shape[1])] += 1
    if stats.kept.shape[0] > 0:
        stats.kept[request, 0] = first
        stats.kept[request, 1] = -1.0
        stats.kept[request, 2] = at - first
        stats.kept[request, 3] = outcome


@inlined
def push_deadline(
    requests: Requests,
    times: Floats,
    slots: Integers,
    serials: Integers,
    head: int,
    size: int,
    time: float,
    slot: int,
) -> None:
    """Add to a ring of deadlines; head, size: where its place and size are in `tally`."""
    count = requests.tally
    room = times.shape[0]
    if count[size] == room:  # forget those that are answered
        kept = 0
        for at in range(room):
            old = (count[head] + at) % room
            if requests.serial[slots[old]] == serials[old]:
                new = (count[head] + kept) % room
                times[new] = times[old]
                slots[new] = slots[old]
                serials[new] = serials[old]
                kept += 1
        count[size] = kept
    at = (count[head] + count[size]) % room
    times[at] = time
    slots[at] = slot
    serials[at] = requests.serial[slot]
    count[size] += 1
