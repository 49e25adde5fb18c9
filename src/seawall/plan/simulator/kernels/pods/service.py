"""A request in a pod: its bursts of processor time, its wait for upstreams, its answer.

The processor of a pod is shared equally by its bursts (processor sharing). A burst ends when the
pod's virtual time, which runs at the speed of each burst, has advanced by the burst's length.
"""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.durations import model_call, other_stages
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.calls import open_call
from seawall.plan.simulator.kernels.model.meters import settle
from seawall.plan.simulator.kernels.pods import arrays as k
from seawall.plan.simulator.kernels.pods.arrays import PodParams, Pods, PodStats, Requests
from seawall.plan.simulator.kernels.primitives import bin_index, bucket, push, set_leaf

__all__ = [
    "advance",
    "begin",
    "call_model",
    "finish",
    "give_up",
    "release",
    "schedule_burst",
    "start_alone",
    "start_beside",
    "unqueue",
    "wait_for_upstreams",
]

Floats = NDArray[np.float64]


@inlined
def advance(pods: Pods, params: PodParams, pod: int, now: float) -> None:
    """Advance the pod's virtual time to now; a burst that was alone may have ended before."""
    running = pods.bursts[pod]
    if running > 0:
        until = pods.alone_until[pod]
        if 0.0 <= until <= now:
            pods.used[pod] += (until - pods.seen[pod]) * min(1.0, params.cores)
            pods.alone_until[pod] = -1.0
            pods.bursts[pod] = 0
            pods.keys[pod, 0] = math.inf
            pods.clock[pod] = 0.0
        else:
            passed = now - pods.seen[pod]
            pods.clock[pod] += passed * min(1.0, params.cores / running)
            pods.used[pod] += passed * min(float(running), params.cores)
    pods.seen[pod] = now


@inlined
def schedule_burst(pods: Pods, params: PodParams, pod: int) -> None:
    """Update the time at which the pod's next burst ends."""
    running = pods.bursts[pod]
    end = math.inf
    if running > 0:
        left = max(0.0, pods.keys[pod, 0] - pods.clock[pod])
        end = pods.seen[pod] + left * max(1.0, running / params.cores)
    else:
        pods.clock[pod] = 0.0
    set_leaf(pods.tree, pods.tree.shape[0] >> 1, pod, end)


@inlined
def start_alone(
    pods: Pods, params: PodParams, pod: int, slot: int, seconds: float, now: float
) -> float:
    """Start the only burst of a pod, which is advanced to now; returns its end.

    Nothing else depends on the end of such a burst, so it is no event: what follows it is scheduled
    at once, and again if another burst starts before.
    """
    pods.keys[pod, 0] = seconds
    pods.items[pod, 0] = slot
    pods.bursts[pod] = 1
    end = now + seconds * max(1.0, 1.0 / params.cores)
    pods.alone_until[pod] = end
    return end


@inlined
def start_beside(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    rows: Floats,
    tables: Floats,
    slot: int,
    seconds: float,
) -> None:
    """Start a burst in a pod that has one, and is advanced to now."""
    pod = requests.pod[slot]
    end = pods.alone_until[pod]
    if end >= 0.0:  # what follows that one's end comes later now
        pods.alone_until[pod] = -1.0
        other = pods.items[pod, 0]
        requests.stale[other] += 1
        if requests.phase[other] == k.WAITING:
            requests.phase[other] = k.FIRST_BURST
            record_call(requests, stats, params, rows, tables, other, end, -1)
    pods.bursts[pod] = push(
        pods.keys[pod], pods.items[pod], pods.bursts[pod], pods.clock[pod] + seconds, slot
    )
    schedule_burst(pods, params, pod)


@inlined
def begin(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """Begin to serve a request."""
    pod = requests.pod[slot]
    pods.busy[pod] += 1
    bins = stats.series.shape[1]
    if pods.busy[pod] > pods.most[pod]:
        pods.most[pod] = pods.busy[pod]
        stats.counts[k.PEAK_POD] = max(stats.counts[k.PEAK_POD], pods.busy[pod])
        stats.series[k.CONNECTED, bin_index(now, params.width, bins)] += 1
    stats.series[k.STARTED, bin_index(now, params.width, bins)] += 1
    waited = now - requests.since[slot]
    stats.waits[bucket(waited)] += 1
    stats.totals[k.WAITED] += waited
    stats.totals[k.BUSY_TIME] -= waited
    if params.cpu_first <= 0.0:
        wait_for_upstreams(requests, stats, params, quota, rows, tables, slot, now)
        return
    advance(pods, params, pod, now)
    if pods.bursts[pod] == 0 and not params.limited:  # with a quota its end is an event
        end = start_alone(pods, params, pod, slot, params.cpu_first, now)
        wait_for_upstreams(requests, stats, params, quota, rows, tables, slot, end)
    else:
        requests.phase[slot] = k.FIRST_BURST
        start_beside(pods, requests, stats, params, rows, tables, slot, params.cpu_first)


@inlined
def record_call(
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
    change: int,
) -> float:
    """Count a model call, or with -1 take it back; returns when the wait for upstreams ends.

    now: when it begins, after the first burst.
    """
    request = requests.request[slot]
    before = params.fixed_before
    if before < 0.0:
        before = other_stages(params.services, rows, tables, 0, params.before, request)
    call, token = 0.0, 0.0
    if params.before < params.stages:
        call, token = model_call(
            params.services, rows, tables, params.before, params.row_first, request
        )
        bins = stats.series.shape[1]
        stats.series[k.CALLS_BEGIN, bin_index(now + before, params.width, bins)] += change
        stats.series[k.CALLS_END, bin_index(now + before + call, params.width, bins)] += change
    after = params.fixed_after
    if after < 0.0:
        after = other_stages(
            params.services, rows, tables, params.before + 1, params.stages, request
        )
    requests.pause[slot] = now + before + token  # when its first token is there
    return now + before + call + after


@compiled
def call_model(
    requests: Requests,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """The model call of a request after its first burst: tried when its time has come."""
    settle(quota, now)
    request = requests.request[slot]
    before = other_stages(params.services, rows, tables, 0, params.before, request)
    seconds, _ = model_call(params.services, rows, tables, params.before, params.row_first, request)
    requests.phase[slot] = k.CALLING
    time = now + before
    leave = time if requests.gone[slot] == 1 else math.inf
    quota.items[m.OF_OWNER, slot] = open_call(
        quota, slot, request, requests.tries[slot], time, seconds, leave, 2, math.inf
    )


@inlined
def wait_for_upstreams(
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """The first burst has ended, or will at `now`: wait for upstreams."""
    if params.limited:
        call_model(requests, params, quota, rows, tables, slot, now)
        return
    end = record_call(requests, stats, params, rows, tables, slot, now, 1)
    requests.phase[slot] = k.WAITING
    count = requests.tally
    count[k.IN_WAIT] = push(requests.wakes, requests.waking, count[k.IN_WAIT], end, slot)


@inlined
def release(requests: Requests, slot: int) -> None:
    """Free a slot; at the last of its entries in `wakes`, if it has any."""
    if requests.stale[slot] > 0:
        requests.stale[slot] -= 1
        requests.phase[slot] = k.DEAD
        return
    requests.phase[slot] = k.FREE
    requests.serial[slot] += 1
    count = requests.tally
    count[k.USED] -= 1
    requests.free[count[k.USED]] = slot


@inlined
def unqueue(
    pods: Pods, requests: Requests, stats: PodStats, params: PodParams, slot: int, now: float
) -> None:
    """Remove a request from its pod's queue."""
    pod = requests.pod[slot]
    later = requests.later[slot]
    earlier = requests.earlier[slot]
    if later >= 0:
        requests.earlier[later] = earlier
    else:
        pods.newest[pod] = earlier
    if earlier >= 0:
        requests.later[earlier] = later
    else:
        pods.oldest[pod] = later
    pods.waiting[pod] -= 1
    stats.series[k.QUEUE_CHANGE, bin_index(now, params.width, stats.series.shape[1])] -= 1


@inlined
def finish(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """A request is answered; the next one in the pod's queue begins."""
    pod = requests.pod[slot]
    pods.busy[pod] -= 1
    first = requests.first[slot]
    bins = stats.series.shape[1]
    stats.series[k.ENDED, bin_index(now, params.width, bins)] += 1
    stats.totals[k.BUSY_TIME] += now - requests.since[slot]
    stats.totals[k.LAST] = max(stats.totals[k.LAST], now)
    if requests.gone[slot] == 0:
        seen = requests.pause[slot] - first
        stats.counts[k.SERVED] += 1
        stats.latencies[bucket(now - first)] += 1
        stats.firsts[bucket(seen)] += 1
        stats.totals[k.LATENCY] += now - first
        stats.totals[k.FIRST] += seen
        then = bin_index(first, params.width, bins)
        stats.first_sum[then] += seen
        stats.slowest[then] = max(stats.slowest[then], seen)
        if stats.samples.shape[0] > 0:
            request = requests.request[slot]
            stats.samples[request, 0] = first
            stats.samples[request, 1] = seen
            stats.samples[request, 2] = now - first
            stats.samples[request, 3] = 0.0
    release(requests, slot)
    if pods.waiting[pod] > 0 and pods.busy[pod] < params.room:
        following = pods.oldest[pod]
        unqueue(pods, requests, stats, params, following, now)
        begin(pods, requests, stats, params, quota, rows, tables, following, now)


@compiled
def give_up(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """A request whose outcome is recorded leaves its pod."""
    requests.gone[slot] = 1
    finish(pods, requests, stats, params, quota, rows, tables, slot, now)
