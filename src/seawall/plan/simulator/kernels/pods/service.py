"""A request in a pod: its bursts of processor time, its wait for upstreams, its answer.

The processor of a pod is shared equally by its bursts (processor sharing). A burst ends when the
pod's virtual time, which runs at the speed of each burst, has advanced by the burst's length.
"""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.calls import open_call
from seawall.plan.simulator.kernels.model.meters import settle
from seawall.plan.simulator.kernels.pods import arrays as k
from seawall.plan.simulator.kernels.pods.arrays import PodParams, Pods, PodStats, Requests
from seawall.plan.simulator.kernels.primitives import bin_index, bucket, push, set_leaf
from seawall.plan.simulator.kernels.randomness import draw, uniform

__all__ = [
    "advance",
    "begin",
    "durations",
    "finish",
    "give_up",
    "release",
    "schedule_burst",
    "start_burst",
    "unqueue",
    "wait",
    "wait_for_upstreams",
]


@inlined
def advance(pods: Pods, params: PodParams, pod: int, now: float) -> None:
    """Advance the pod's virtual time to now."""
    running = pods.bursts[pod]
    if running > 0:
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
def start_burst(
    pods: Pods, requests: Requests, params: PodParams, slot: int, seconds: float, now: float
) -> None:
    """Start a burst of so many processor seconds."""
    pod = requests.pod[slot]
    advance(pods, params, pod, now)
    pods.bursts[pod] = push(
        pods.keys[pod], pods.items[pod], pods.bursts[pod], pods.clock[pod] + seconds, slot
    )
    schedule_burst(pods, params, pod)


Floats = NDArray[np.float64]


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
    requests.phase[slot] = k.FIRST_BURST
    if params.cpu_first > 0.0:
        start_burst(pods, requests, params, slot, params.cpu_first, now)
    else:
        wait_for_upstreams(requests, stats, params, quota, rows, tables, slot, now)


@inlined
def durations(
    params: PodParams, rows: Floats, tables: Floats, request: int
) -> tuple[float, float, float, float]:
    """Seconds of a request: until its model call, of the call, after it, to its first token."""
    before = 0.0
    for stage in range(params.before):
        u = uniform(params.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        before += draw(rows, tables, stage, u)
    call = 0.0
    if params.before < params.stages:
        call = draw(
            rows, tables, params.before, uniform(params.services, request * 16 + params.before)
        )
    after = 0.0
    for stage in range(params.before + 1, params.stages):
        u = uniform(params.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        after += draw(rows, tables, stage, u)
    token = 0.0
    if call > 0.0:
        token = draw(rows, tables, params.row_first, uniform(params.services, request * 16 + 15))
    return before, call, after, token


@inlined
def wait(
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    slot: int,
    now: float,
    before: float,
    call: float,
    after: float,
    token: float,
) -> None:
    """Wait for upstreams; the model call begins after `before` seconds."""
    bins = stats.series.shape[1]
    if params.before < params.stages:
        stats.series[k.CALLS_BEGIN, bin_index(now + before, params.width, bins)] += 1
        stats.series[k.CALLS_END, bin_index(now + before + call, params.width, bins)] += 1
    requests.pause[slot] = now + before + min(token, call)  # when its first token is there
    requests.phase[slot] = k.WAITING
    count = requests.tally
    end = now + before + call + after
    count[k.IN_WAIT] = push(requests.wakes, requests.waking, count[k.IN_WAIT], end, slot)


@compiled
def call_model(
    requests: Requests, quota: Quota, slot: int, now: float, before: float, call: float
) -> None:
    """The model call of a request: tried when its time has come."""
    settle(quota, now)
    requests.phase[slot] = k.CALLING
    time = now + before
    leave = time if requests.gone[slot] == 1 else math.inf
    quota.items[m.OF_OWNER, slot] = open_call(
        quota, slot, requests.request[slot], requests.tries[slot], time, call, leave, 2, math.inf
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
    """The first burst has ended: wait for upstreams."""
    request = requests.request[slot]
    before, call, after, token = durations(params, rows, tables, request)
    if params.limited:
        call_model(requests, quota, slot, now, before, call)
        return
    wait(requests, stats, params, slot, now, before, call, after, token)


@inlined
def release(requests: Requests, slot: int) -> None:
    """Free a slot."""
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
