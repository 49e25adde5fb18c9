"""An attempt comes to a pod, and leaves it before it is answered."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import inlined
from seawall.plan.simulator.kernels.pods.arrays import (
    ATTEMPTS,
    DEAD,
    LINE_HEAD,
    LINE_SIZE,
    PEAK_BUSY,
    QUEUE_CHANGE,
    QUEUED,
    RANDOM,
    READY,
    RING_HEAD,
    RING_SIZE,
    ROUND_ROBIN,
    THROTTLES,
    TURN,
    TURNED_AWAY,
    USED,
    PodParams,
    Pods,
    PodStats,
    Requests,
)
from seawall.plan.simulator.kernels.pods.giving_up import push_deadline, retry_or_fail
from seawall.plan.simulator.kernels.pods.service import begin, release, unqueue
from seawall.plan.simulator.kernels.randomness import uniform
from seawall.plan.simulator.kernels.recording import place

__all__ = ["attempt", "choose", "time_out_client", "time_out_queued"]

Floats = NDArray[np.float64]


@inlined
def choose(pods: Pods, requests: Requests, params: PodParams, number: int) -> int:
    """The pod that the balancer sends it to."""
    count = requests.tally
    ready = count[READY]
    if params.balance == RANDOM:
        return int(pods.ready[int(uniform(params.choices, number) * ready)])
    count[TURN] = (count[TURN] + 1) % ready
    if params.balance == ROUND_ROBIN:
        return int(pods.ready[count[TURN]])
    best = pods.ready[count[TURN]]
    least = pods.busy[best] + pods.waiting[best]
    for at in range(ready):
        pod = pods.ready[at]
        if pods.busy[pod] + pods.waiting[pod] < least:
            best = pod
            least = pods.busy[pod] + pods.waiting[pod]
    return int(best)


@inlined
def attempt(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    rows: Floats,
    tables: Floats,
    now: float,
    request: int,
    tries: int,
    first: float,
) -> None:
    """It comes to a pod: into service, into its queue, or it is turned away."""
    count = requests.tally
    number = stats.counts[ATTEMPTS]
    stats.counts[ATTEMPTS] += 1
    bins = stats.series.shape[1]
    pod = -1
    if count[READY] > 0:
        pod = choose(pods, requests, params, number)
        full = pods.busy[pod] >= params.room and pods.waiting[pod] >= params.queue
        if full or pods.closed[pod] == 1 or count[USED] == requests.free.shape[0]:
            pod = -1
    if pod < 0:
        stats.counts[THROTTLES] += 1
        stats.series[TURNED_AWAY, place(now, params.width, bins)] += 1
        retry_or_fail(requests, stats, params, request, tries, first, now, 1)
        return
    slot = requests.free[count[USED]]
    count[USED] += 1
    stats.counts[PEAK_BUSY] = max(stats.counts[PEAK_BUSY], count[USED])
    requests.pod[slot] = pod
    requests.request[slot] = request
    requests.tries[slot] = tries
    requests.first[slot] = first
    requests.since[slot] = now
    requests.gone[slot] = 0
    if params.patience < math.inf:
        push_deadline(
            requests,
            requests.ring_times,
            requests.ring_slots,
            requests.ring_serials,
            RING_HEAD,
            RING_SIZE,
            now + params.patience,
            slot,
        )
    if pods.busy[pod] < params.room:
        begin(pods, requests, stats, params, rows, tables, slot, now)
        return
    requests.phase[slot] = QUEUED
    last = pods.newest[pod]
    requests.earlier[slot] = last
    requests.later[slot] = -1
    if last >= 0:
        requests.later[last] = slot
    else:
        pods.oldest[pod] = slot
    pods.newest[pod] = slot
    pods.waiting[pod] += 1
    stats.series[QUEUE_CHANGE, place(now, params.width, bins)] += 1
    if params.longest < math.inf:
        push_deadline(
            requests,
            requests.line_times,
            requests.line_slots,
            requests.line_serials,
            LINE_HEAD,
            LINE_SIZE,
            now + params.longest,
            slot,
        )


@inlined
def time_out_client(
    pods: Pods, requests: Requests, stats: PodStats, params: PodParams, now: float
) -> None:
    """The first in the ring leaves, if it is still there. What runs for it runs on."""
    count = requests.tally
    at = count[RING_HEAD]
    slot = requests.ring_slots[at]
    alive = requests.serial[slot] == requests.ring_serials[at] and requests.phase[slot] != DEAD
    count[RING_HEAD] = (at + 1) % requests.ring_times.shape[0]
    count[RING_SIZE] -= 1
    if not alive or requests.gone[slot] == 1:
        return
    retry_or_fail(
        requests,
        stats,
        params,
        requests.request[slot],
        requests.tries[slot],
        requests.first[slot],
        now,
        2,
    )
    if requests.phase[slot] == QUEUED:
        unqueue(pods, requests, stats, params, slot, now)
        release(requests, slot)
    else:
        requests.gone[slot] = 1


@inlined
def time_out_queued(
    pods: Pods, requests: Requests, stats: PodStats, params: PodParams, now: float
) -> None:
    """The first in the line of the queues is refused, if it still waits."""
    count = requests.tally
    at = count[LINE_HEAD]
    slot = requests.line_slots[at]
    queued = requests.serial[slot] == requests.line_serials[at] and requests.phase[slot] == QUEUED
    count[LINE_HEAD] = (at + 1) % requests.line_times.shape[0]
    count[LINE_SIZE] -= 1
    if not queued:
        return
    stats.counts[THROTTLES] += 1
    stats.series[TURNED_AWAY, place(now, params.width, stats.series.shape[1])] += 1
    unqueue(pods, requests, stats, params, slot, now)
    release(requests, slot)
    retry_or_fail(
        requests,
        stats,
        params,
        requests.request[slot],
        requests.tries[slot],
        requests.first[slot],
        now,
        1,
    )
