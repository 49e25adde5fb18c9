"""An attempt at a pod: admitted, queued, refused or timed out."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import inlined
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.calls import withdraw
from seawall.plan.simulator.kernels.pods import arrays as k
from seawall.plan.simulator.kernels.pods.arrays import Indices, PodParams, Pods, PodStats, Requests
from seawall.plan.simulator.kernels.pods.service import begin, give_up, release, unqueue
from seawall.plan.simulator.kernels.primitives import bin_index, push
from seawall.plan.simulator.kernels.randomness import uniform

__all__ = [
    "attempt",
    "choose",
    "push_deadline",
    "retry_or_fail",
    "time_out_client",
    "time_out_queued",
]

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
    """An attempt failed: schedule a retry, or record the outcome: 1 refused, 2 timed out, 3 cut."""
    count = requests.tally
    if tries < params.retries and (outcome != 2 or params.retry_timeouts):
        u = uniform(params.jitters, request * 32 + tries)
        delay = min(params.backoff_cap, params.backoff * 2.0**tries) * u
        count[k.TICKETS] -= 1
        ticket = requests.free_tickets[count[k.TICKETS]]
        requests.retry_request[ticket] = request
        requests.retry_tries[ticket] = tries + 1
        requests.retry_first[ticket] = first
        count[k.RETRYING] = push(
            requests.retry_times, requests.ticket, count[k.RETRYING], at + delay, ticket
        )
        return
    stats.counts[k.SERVED + outcome] += 1
    stats.series[k.REFUSED + outcome - 1, bin_index(at, params.width, stats.series.shape[1])] += 1
    if stats.samples.shape[0] > 0:
        stats.samples[request, 0] = first
        stats.samples[request, 1] = -1.0
        stats.samples[request, 2] = at - first
        stats.samples[request, 3] = outcome


@inlined
def push_deadline(
    requests: Requests,
    times: Floats,
    slots: Indices,
    serials: Integers,
    head: int,
    size: int,
    time: float,
    slot: int,
) -> None:
    """Add to a ring of deadlines. head, size: indices of its head and size in `tally`."""
    count = requests.tally
    room = times.shape[0]
    if count[size] == room:  # drop those that are answered
        live = 0
        for at in range(room):
            old = (count[head] + at) % room
            if requests.serial[slots[old]] == serials[old]:
                new = (count[head] + live) % room
                times[new] = times[old]
                slots[new] = slots[old]
                serials[new] = serials[old]
                live += 1
        count[size] = live
    at = (count[head] + count[size]) % room
    times[at] = time
    slots[at] = slot
    serials[at] = requests.serial[slot]
    count[size] += 1


@inlined
def choose(pods: Pods, requests: Requests, params: PodParams, number: int) -> np.uint32:
    """The pod that the balancer chooses."""
    count = requests.tally
    ready = count[k.READY]
    if params.balance == k.RANDOM:
        chosen: np.uint32 = pods.ready[int(uniform(params.choices, number) * ready)]
        return chosen
    count[k.TURN] = (count[k.TURN] + 1) % ready
    if params.balance == k.ROUND_ROBIN:
        following: np.uint32 = pods.ready[count[k.TURN]]
        return following
    best: np.uint32 = pods.ready[count[k.TURN]]
    least = pods.busy[best] + pods.waiting[best]
    for at in range(ready):
        pod = pods.ready[at]
        if pods.busy[pod] + pods.waiting[pod] < least:
            best = pod
            least = pods.busy[pod] + pods.waiting[pod]
    return best


@inlined
def attempt(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    now: float,
    request: int,
    tries: int,
    first: float,
) -> None:
    """An attempt arrives at a pod: into service, into the queue, or refused."""
    count = requests.tally
    number = stats.counts[k.ATTEMPTS]
    stats.counts[k.ATTEMPTS] += 1
    bins = stats.series.shape[1]
    pod = pods.ready[0]
    refused = count[k.READY] == 0
    if not refused:
        pod = choose(pods, requests, params, number)
        full = pods.busy[pod] >= params.room and pods.waiting[pod] >= params.queue
        refused = full or pods.closed[pod] == 1 or count[k.USED] == requests.free.shape[0]
    if refused:
        stats.counts[k.THROTTLES] += 1
        stats.series[k.THROTTLED, bin_index(now, params.width, bins)] += 1
        retry_or_fail(requests, stats, params, request, tries, first, now, 1)
        return
    slot = requests.free[count[k.USED]]
    count[k.USED] += 1
    stats.counts[k.PEAK_BUSY] = max(stats.counts[k.PEAK_BUSY], count[k.USED])
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
            k.RING_HEAD,
            k.RING_SIZE,
            now + params.patience,
            slot,
        )
    if pods.busy[pod] < params.room:
        begin(pods, requests, stats, params, quota, rows, tables, slot, now)
        return
    requests.phase[slot] = k.QUEUED
    last = pods.newest[pod]
    requests.earlier[slot] = last
    requests.later[slot] = -1
    if last >= 0:
        requests.later[last] = slot
    else:
        pods.oldest[pod] = slot
    pods.newest[pod] = slot
    pods.waiting[pod] += 1
    stats.series[k.QUEUE_CHANGE, bin_index(now, params.width, bins)] += 1
    if params.longest < math.inf:
        push_deadline(
            requests,
            requests.line_times,
            requests.line_slots,
            requests.line_serials,
            k.LINE_HEAD,
            k.LINE_SIZE,
            now + params.longest,
            slot,
        )


@inlined
def time_out_client(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    now: float,
) -> None:
    """The first client in the ring times out, unless it is answered.

    Its work continues, unless it waits in a queue, or for the model's quota.
    """
    count = requests.tally
    at = count[k.RING_HEAD]
    slot = requests.ring_slots[at]
    alive = requests.serial[slot] == requests.ring_serials[at] and requests.phase[slot] != k.DEAD
    count[k.RING_HEAD] = (at + 1) % requests.ring_times.shape[0]
    count[k.RING_SIZE] -= 1
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
    if requests.phase[slot] == k.QUEUED:
        unqueue(pods, requests, stats, params, slot, now)
        release(requests, slot)
        return
    requests.gone[slot] = 1
    if params.limited and requests.phase[slot] == k.CALLING:
        call = quota.items[m.OF_OWNER, slot]
        quota.numbers[m.LEAVE_AT, call] = max(now, quota.numbers[m.OPENED, call])
        if quota.items[m.WAITS, call] == 1:
            withdraw(quota, call, now)
            give_up(pods, requests, stats, params, quota, rows, tables, slot, now)


@inlined
def time_out_queued(
    pods: Pods, requests: Requests, stats: PodStats, params: PodParams, now: float
) -> None:
    """The first request in the ring of queue deadlines is shed, if it still waits."""
    count = requests.tally
    at = count[k.LINE_HEAD]
    slot = requests.line_slots[at]
    queued = requests.serial[slot] == requests.line_serials[at] and requests.phase[slot] == k.QUEUED
    count[k.LINE_HEAD] = (at + 1) % requests.line_times.shape[0]
    count[k.LINE_SIZE] -= 1
    if not queued:
        return
    stats.counts[k.THROTTLES] += 1
    stats.series[k.THROTTLED, bin_index(now, params.width, stats.series.shape[1])] += 1
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
