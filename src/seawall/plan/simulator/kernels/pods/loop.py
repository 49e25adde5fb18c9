"""The loop over events, in order of time, and the end of pods."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.calls import withdraw
from seawall.plan.simulator.kernels.model.meters import settle
from seawall.plan.simulator.kernels.pods import arrays as k
from seawall.plan.simulator.kernels.pods.arrays import PodParams, Pods, PodStats, Requests
from seawall.plan.simulator.kernels.pods.attempts import (
    attempt,
    retry_or_fail,
    time_out_client,
    time_out_queued,
)
from seawall.plan.simulator.kernels.pods.calling import decide_call
from seawall.plan.simulator.kernels.pods.service import (
    advance,
    finish,
    release,
    schedule_burst,
    start_alone,
    start_beside,
    unqueue,
    wait_for_upstreams,
)
from seawall.plan.simulator.kernels.primitives import bin_index, pop, replace_top

__all__ = [
    "advance_all",
    "burst_ends",
    "kill",
    "run_until",
]

Floats = NDArray[np.float64]


@inlined
def burst_ends(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    now: float,
) -> None:
    """End the burst that ends first."""
    leaves = pods.tree.shape[0] >> 1
    at = 1
    while at < leaves:
        at = 2 * at if pods.tree[2 * at] == pods.tree[at] else 2 * at + 1
    pod = at - leaves
    advance(pods, params, pod, now)
    slot = pods.items[pod, 0]
    pods.bursts[pod] = pop(pods.keys[pod], pods.items[pod], pods.bursts[pod])
    schedule_burst(pods, params, pod)
    if requests.phase[slot] == k.FIRST_BURST:
        wait_for_upstreams(requests, stats, params, quota, rows, tables, slot, now)
    else:
        finish(pods, requests, stats, params, quota, rows, tables, slot, now)


@inlined
def wake_up(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    now: float,
) -> None:
    """The first wait for upstreams ends, or the first last burst that is alone."""
    count = requests.tally
    slot = requests.waking[0]
    pod = requests.pod[slot]
    phase = requests.phase[slot]
    stale = requests.stale[slot] > 0
    if params.limited:
        settle(quota, now)  # before the slot is used again
    waited = phase == k.WAITING and not stale and params.cpu_last > 0.0
    if waited:
        requests.phase[slot] = k.LAST_BURST
        advance(pods, params, pod, now)
        if pods.bursts[pod] == 0:
            end = start_alone(pods, params, pod, slot, params.cpu_last, now)
            replace_top(requests.wakes, requests.waking, count[k.IN_WAIT], end, slot)
            return
    count[k.IN_WAIT] = pop(requests.wakes, requests.waking, count[k.IN_WAIT])
    if stale:
        requests.stale[slot] -= 1
    elif phase == k.DEAD:
        release(requests, slot)
    elif waited:
        start_beside(pods, requests, stats, params, rows, tables, slot, params.cpu_last)
    else:
        advance(pods, params, pod, now)
        finish(pods, requests, stats, params, quota, rows, tables, slot, now)


@compiled
def run_until(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    arrivals: Floats,
    at: int,
    number: int,
    until: float,
    last: bool,
) -> int:
    """Handle all events before `until`, with arrivals from index `at` on; returns the next index.

    number: of the request with index 0. last: no arrivals follow these; else it stops when they
    are used up.
    """
    count = requests.tally
    size = arrivals.shape[0]
    while True:
        if at == size and not last:
            return at
        arrival = arrivals[at] if at < size else math.inf
        retry_times = requests.retry_times[0] if count[k.RETRYING] > 0 else math.inf
        wake = requests.wakes[0] if count[k.IN_WAIT] > 0 else math.inf
        burst = pods.tree[1]
        leave = requests.ring_times[count[k.RING_HEAD]] if count[k.RING_SIZE] > 0 else math.inf
        shed = requests.line_times[count[k.LINE_HEAD]] if count[k.LINE_SIZE] > 0 else math.inf
        now = min(min(arrival, retry_times), min(min(wake, burst), min(leave, shed)))
        model = quota.clock[m.NEXT]
        if min(now, model) >= until:
            return at
        if model < now:
            decide_call(pods, requests, stats, params, quota, rows, tables, model)
            continue
        if now == burst:
            burst_ends(pods, requests, stats, params, quota, rows, tables, now)
        elif now == wake:
            wake_up(pods, requests, stats, params, quota, rows, tables, now)
        elif now == leave:
            time_out_client(pods, requests, stats, params, quota, rows, tables, now)
        elif now == shed:
            time_out_queued(pods, requests, stats, params, now)
        elif now == arrival:
            stats.counts[k.REQUESTS] += 1
            stats.series[k.ARRIVED, bin_index(now, params.width, stats.series.shape[1])] += 1
            attempt(pods, requests, stats, params, quota, rows, tables, now, number + at, 0, now)
            at += 1
        else:
            ticket = requests.ticket[0]
            count[k.RETRYING] = pop(requests.retry_times, requests.ticket, count[k.RETRYING])
            request = requests.retry_request[ticket]
            tries = requests.retry_tries[ticket]
            first = requests.retry_first[ticket]
            requests.free_tickets[count[k.TICKETS]] = ticket
            count[k.TICKETS] += 1
            attempt(pods, requests, stats, params, quota, rows, tables, now, request, tries, first)


@compiled
def advance_all(pods: Pods, params: PodParams, now: float) -> None:
    """Update the processor use of all pods."""
    for pod in range(pods.busy.shape[0]):
        advance(pods, params, pod, now)


@compiled
def kill(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    pod: int,
    now: float,
) -> int:
    """Kill a pod: all requests in it fail; returns their number."""
    advance(pods, params, pod, now)
    failed = 0
    for slot in range(requests.phase.shape[0]):
        if requests.pod[slot] != pod:
            continue
        phase = requests.phase[slot]
        if phase in (k.FREE, k.DEAD):
            continue
        if phase == k.QUEUED:
            unqueue(pods, requests, stats, params, slot, now)
        else:
            stats.series[k.ENDED, bin_index(now, params.width, stats.series.shape[1])] += 1
            stats.totals[k.BUSY_TIME] += now - requests.since[slot]
        if requests.gone[slot] == 0:
            failed += 1
            retry_or_fail(
                requests,
                stats,
                params,
                requests.request[slot],
                requests.tries[slot],
                requests.first[slot],
                now,
                3,
            )
        if phase == k.CALLING:
            withdraw(quota, quota.items[m.OF_OWNER, slot], now)
        alone = pods.alone_until[pod] >= 0.0 and pods.items[pod, 0] == slot
        if phase == k.WAITING or alone:  # it is in `wakes`
            requests.phase[slot] = k.DEAD
        else:
            release(requests, slot)
    pods.keys[pod, : pods.bursts[pod]] = math.inf
    pods.alone_until[pod] = -1.0
    pods.busy[pod] = 0
    pods.bursts[pod] = 0
    pods.most[pod] = 0
    schedule_burst(pods, params, pod)
    return failed
