"""The loop over events, in order of time."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import compiled, inlined
from seawall.plan.simulator.kernels.heaps import pop
from seawall.plan.simulator.kernels.pods.arrays import (
    ARRIVED,
    DEAD,
    FIRST_BURST,
    IN_WAIT,
    LAST_BURST,
    LINE_HEAD,
    LINE_SIZE,
    REQUESTS,
    RETRYING,
    RING_HEAD,
    RING_SIZE,
    TICKETS,
    PodParams,
    Pods,
    PodStats,
    Requests,
)
from seawall.plan.simulator.kernels.pods.attempts import attempt, time_out_client, time_out_queued
from seawall.plan.simulator.kernels.pods.processor import advance, schedule_burst, start_burst
from seawall.plan.simulator.kernels.pods.service import finish, release, wait_for_upstreams
from seawall.plan.simulator.kernels.recording import place

__all__ = ["burst_ends", "work"]

Floats = NDArray[np.float64]


@inlined
def burst_ends(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    rows: Floats,
    tables: Floats,
    now: float,
) -> None:
    """The burst that ends first of all ends."""
    leaves = pods.tree.shape[0] >> 1
    at = 1
    while at < leaves:
        at = 2 * at if pods.tree[2 * at] == pods.tree[at] else 2 * at + 1
    pod = at - leaves
    advance(pods, params, pod, now)
    slot = pods.items[pod, 0]
    pods.bursts[pod] = pop(pods.keys[pod], pods.items[pod], pods.bursts[pod])
    schedule_burst(pods, params, pod)
    if requests.phase[slot] == FIRST_BURST:
        wait_for_upstreams(requests, stats, params, rows, tables, slot, now)
    else:
        finish(pods, requests, stats, params, rows, tables, slot, now)


@compiled
def work(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    rows: Floats,
    tables: Floats,
    arrivals: Floats,
    at: int,
    number: int,
    until: float,
    last: bool,
) -> int:
    """Do all that happens before `until`, with arrivals from `at` on; where it stopped.

    number: that of the request at 0. last: no arrivals follow these; else it stops when they are
    used up.
    """
    count = requests.tally
    size = arrivals.shape[0]
    while True:
        if at == size and not last:
            return at
        arrival = arrivals[at] if at < size else math.inf
        again = requests.again[0] if count[RETRYING] > 0 else math.inf
        wake = requests.wakes[0] if count[IN_WAIT] > 0 else math.inf
        burst = pods.tree[1]
        leave = requests.ring_times[count[RING_HEAD]] if count[RING_SIZE] > 0 else math.inf
        shed = requests.line_times[count[LINE_HEAD]] if count[LINE_SIZE] > 0 else math.inf
        now = min(min(arrival, again), min(min(wake, burst), min(leave, shed)))
        if now >= until:
            return at
        if now == burst:
            burst_ends(pods, requests, stats, params, rows, tables, now)
        elif now == wake:
            slot = requests.waking[0]
            count[IN_WAIT] = pop(requests.wakes, requests.waking, count[IN_WAIT])
            if requests.phase[slot] == DEAD:
                release(requests, slot)
            elif params.cpu_last > 0.0:
                requests.phase[slot] = LAST_BURST
                start_burst(pods, requests, params, slot, params.cpu_last, now)
            else:
                finish(pods, requests, stats, params, rows, tables, slot, now)
        elif now == leave:
            time_out_client(pods, requests, stats, params, now)
        elif now == shed:
            time_out_queued(pods, requests, stats, params, now)
        elif now == arrival:
            stats.counts[REQUESTS] += 1
            stats.series[ARRIVED, place(now, params.width, stats.series.shape[1])] += 1
            attempt(pods, requests, stats, params, rows, tables, now, number + at, 0, now)
            at += 1
        else:
            ticket = requests.ticket[0]
            count[RETRYING] = pop(requests.again, requests.ticket, count[RETRYING])
            request = requests.again_request[ticket]
            tries = requests.again_tries[ticket]
            first = requests.again_first[ticket]
            requests.tickets[count[TICKETS]] = ticket
            count[TICKETS] += 1
            attempt(pods, requests, stats, params, rows, tables, now, request, tries, first)
