"""A request in a pod: its bursts of processor time, its wait for others, its answer."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.kernels.compiled import inlined
from seawall.plan.kernels.heaps import push
from seawall.plan.kernels.pods.arrays import (
    BUSY_TIME,
    CALLS_BEGIN,
    CALLS_END,
    CONNECTED,
    ENDED,
    FIRST,
    FIRST_BURST,
    FREE,
    IN_WAIT,
    LAST,
    LATENCY,
    PEAK_POD,
    QUEUE_CHANGE,
    SERVED,
    STARTED,
    USED,
    WAITED,
    WAITING,
    PodBooks,
    PodLaw,
    Pods,
    Requests,
)
from seawall.plan.kernels.pods.processor import start_burst
from seawall.plan.kernels.randomness import draw, uniform
from seawall.plan.kernels.recording import bucket, place

__all__ = ["begin", "finish", "release", "unqueue", "wait_for_others"]

Floats = NDArray[np.float64]


@inlined
def begin(
    pods: Pods,
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """Its service begins."""
    pod = requests.pod[slot]
    pods.busy[pod] += 1
    bins = books.series.shape[1]
    if pods.busy[pod] > pods.most[pod]:
        pods.most[pod] = pods.busy[pod]
        books.counts[PEAK_POD] = max(books.counts[PEAK_POD], pods.busy[pod])
        books.series[CONNECTED, place(now, law.width, bins)] += 1
    books.series[STARTED, place(now, law.width, bins)] += 1
    waited = now - requests.since[slot]
    books.waits[bucket(waited)] += 1
    books.totals[WAITED] += waited
    books.totals[BUSY_TIME] -= waited
    requests.phase[slot] = FIRST_BURST
    if law.cpu_first > 0.0:
        start_burst(pods, requests, law, slot, law.cpu_first, now)
    else:
        wait_for_others(requests, books, law, rows, tables, slot, now)


@inlined
def wait_for_others(
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """Its first burst is over: it waits for others."""
    request = requests.request[slot]
    before = 0.0
    for stage in range(law.before):
        u = uniform(law.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        before += draw(rows, tables, stage, u)
    call = 0.0
    if law.before < law.stages:
        call = draw(rows, tables, law.before, uniform(law.services, request * 16 + law.before))
    after = 0.0
    for stage in range(law.before + 1, law.stages):
        u = uniform(law.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        after += draw(rows, tables, stage, u)
    token = 0.0
    if call > 0.0:
        token = draw(rows, tables, law.row_first, uniform(law.services, request * 16 + 15))
    bins = books.series.shape[1]
    if law.before < law.stages:
        books.series[CALLS_BEGIN, place(now + before, law.width, bins)] += 1
        books.series[CALLS_END, place(now + before + call, law.width, bins)] += 1
    requests.pause[slot] = now + before + min(token, call)  # when its first token is there
    requests.phase[slot] = WAITING
    count = requests.tally
    end = now + before + call + after
    count[IN_WAIT] = push(requests.wakes, requests.waking, count[IN_WAIT], end, slot)


@inlined
def release(requests: Requests, slot: int) -> None:
    """Its slot is free."""
    requests.phase[slot] = FREE
    requests.serial[slot] += 1
    count = requests.tally
    count[USED] -= 1
    requests.free[count[USED]] = slot


@inlined
def unqueue(
    pods: Pods, requests: Requests, books: PodBooks, law: PodLaw, slot: int, now: float
) -> None:
    """Take it out of its pod's queue."""
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
    books.series[QUEUE_CHANGE, place(now, law.width, books.series.shape[1])] -= 1


@inlined
def finish(
    pods: Pods,
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
) -> None:
    """It is answered; who waits in the pod is next."""
    pod = requests.pod[slot]
    pods.busy[pod] -= 1
    first = requests.first[slot]
    bins = books.series.shape[1]
    books.series[ENDED, place(now, law.width, bins)] += 1
    books.totals[BUSY_TIME] += now - requests.since[slot]
    books.totals[LAST] = max(books.totals[LAST], now)
    if requests.gone[slot] == 0:
        seen = requests.pause[slot] - first
        books.counts[SERVED] += 1
        books.latencies[bucket(now - first)] += 1
        books.firsts[bucket(seen)] += 1
        books.totals[LATENCY] += now - first
        books.totals[FIRST] += seen
        then = place(first, law.width, bins)
        books.first_sum[then] += seen
        books.slowest[then] = max(books.slowest[then], seen)
        if books.kept.shape[0] > 0:
            request = requests.request[slot]
            books.kept[request, 0] = first
            books.kept[request, 1] = seen
            books.kept[request, 2] = now - first
            books.kept[request, 3] = 0.0
    release(requests, slot)
    if pods.waiting[pod] > 0 and pods.busy[pod] < law.room:
        following = pods.oldest[pod]
        unqueue(pods, requests, books, law, following, now)
        begin(pods, requests, books, law, rows, tables, following, now)
