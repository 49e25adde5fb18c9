"""A loop over attempts, in order of time, each of which finds an environment or does not."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import compiled, inlined
from seawall.plan.simulator.kernels.environments.arrays import (
    ALIVE,
    ALIVE_CHANGE,
    ARRIVED,
    ATTEMPTS,
    BILLED,
    BILLED_PROVISIONED,
    BILLED_START,
    BUSY,
    BUSY_TIME,
    CALLS_BEGIN,
    CALLS_END,
    COLD,
    COLD_STARTS,
    ENDED,
    FIRST,
    INVOKES_AT,
    INVOKES_LEFT,
    LAST,
    LATENCY,
    ON_PROVISIONED,
    PEAK_ALIVE,
    PEAK_BUSY,
    PROVISIONED,
    PROVISIONED_BUSY,
    REFUSED,
    REQUESTS,
    RETRYING,
    SERVED,
    SPILLED,
    STARTED,
    THROTTLED,
    THROTTLES,
    TICKETS,
    Crowd,
    EnvironmentParams,
    EnvironmentStats,
)
from seawall.plan.simulator.kernels.environments.lives import settle, start_environment, take_idle
from seawall.plan.simulator.kernels.heaps import pop, push
from seawall.plan.simulator.kernels.randomness import draw, uniform
from seawall.plan.simulator.kernels.recording import bucket, place

__all__ = ["attempt", "invoke", "retry_or_fail"]

Floats = NDArray[np.float64]


@inlined
def retry_or_fail(
    crowd: Crowd,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    request: int,
    tries: int,
    first: float,
    at: float,
    outcome: int,
) -> None:
    """The attempt failed at a time: it comes again, or that was all. outcome: 1 refused, 2 left."""
    count = crowd.tally
    if tries < params.retries and (outcome == 1 or (outcome == 2 and params.retry_timeouts)):
        u = uniform(params.jitters, request * 32 + tries)
        delay = min(params.backoff_cap, params.backoff * 2.0**tries) * u
        count[TICKETS] -= 1
        ticket = crowd.tickets[count[TICKETS]]
        crowd.request[ticket] = request
        crowd.tries[ticket] = tries + 1
        crowd.first[ticket] = first
        count[RETRYING] = push(crowd.again, crowd.ticket, count[RETRYING], at + delay, ticket)
        return
    bins = stats.series.shape[1]
    stats.counts[SERVED + outcome] += 1
    stats.series[REFUSED + outcome - 1, place(at, params.width, bins)] += 1
    if stats.kept.shape[0] > 0:
        stats.kept[request, 0] = first
        stats.kept[request, 1] = -1.0
        stats.kept[request, 2] = at - first
        stats.kept[request, 3] = outcome


@inlined
def attempt(
    crowd: Crowd,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    rows: Floats,
    tables: Floats,
    time: float,
    request: int,
    tries: int,
    first: float,
) -> None:
    """An attempt of a request: served, thrown back, and what becomes of it."""
    count = crowd.tally
    clock = crowd.clock
    series = stats.series
    totals = stats.totals
    bins = series.shape[1]
    width = params.width
    settle(crowd, stats, params, time)
    stats.counts[ATTEMPTS] += 1
    cold = False
    provisioned = False
    slot = -1
    allowed = True
    if params.invoke_rate < math.inf:
        clock[INVOKES_LEFT] = min(
            params.invoke_rate,
            clock[INVOKES_LEFT] + (time - clock[INVOKES_AT]) * params.invoke_rate,
        )
        clock[INVOKES_AT] = time
        allowed = clock[INVOKES_LEFT] >= 1.0 - 1e-9
    if allowed:
        if count[BUSY] >= params.limit:
            pass  # more were provisioned while others were busy
        elif count[PROVISIONED_BUSY] < count[PROVISIONED]:
            provisioned = True
        else:
            slot = take_idle(crowd, params)
            if slot < 0:
                slot = start_environment(crowd, params, time)
                cold = slot >= 0
    here = place(time, width, bins)
    if not provisioned and slot < 0:
        stats.counts[THROTTLES] += 1
        series[THROTTLED, here] += 1
        retry_or_fail(crowd, stats, params, request, tries, first, time, 1)
        return
    if params.invoke_rate < math.inf:
        clock[INVOKES_LEFT] -= 1.0

    stages = params.stages
    before = 0.0
    for stage in range(params.before):
        u = uniform(params.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        before += draw(rows, tables, stage, u)
    call = 0.0
    if params.before < stages:
        u = uniform(params.services, request * 16 + params.before)
        call = draw(rows, tables, params.before, u)
    after = 0.0
    for stage in range(params.before + 1, stages):
        u = uniform(params.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        after += draw(rows, tables, stage, u)
    first_token = 0.0
    if call > 0.0:
        u = uniform(params.services, request * 16 + 15)
        first_token = min(call, draw(rows, tables, params.row_first, u))
    service = before + call + after
    start = 0.0
    if cold:
        u = uniform(params.starts, request)
        if params.row_cold >= 0:
            start = max(draw(rows, tables, params.row_cold, u) - service, -before)
        else:
            start = draw(rows, tables, params.row_start, u)
    cut = service > params.timeout
    service = min(service, params.timeout)
    end = time + start + service

    if provisioned:
        slot = -1
        count[PROVISIONED_BUSY] += 1
        stats.counts[ON_PROVISIONED] += 1
        totals[BILLED_PROVISIONED] += math.ceil(service * 1e3 - 1e-6) * 1e-3
    else:
        totals[BILLED] += math.ceil(service * 1e3 - 1e-6) * 1e-3
        if count[PROVISIONED] > 0:
            series[SPILLED, here] += 1
    if cold:
        stats.counts[COLD_STARTS] += 1
        series[COLD, here] += 1
        series[ALIVE_CHANGE, here] += 1
        if params.start_billed:
            totals[BILLED_START] += max(start, 0.0)
    totals[BUSY_TIME] += end - time
    totals[LAST] = max(totals[LAST], end)
    count[BUSY] = push(crowd.ends, crowd.ending, count[BUSY], end, slot)
    stats.counts[PEAK_BUSY] = max(stats.counts[PEAK_BUSY], count[BUSY])
    stats.counts[PEAK_ALIVE] = max(stats.counts[PEAK_ALIVE], count[ALIVE])
    begun = time + start
    series[STARTED, place(begun, width, bins)] += 1
    series[ENDED, place(end, width, bins)] += 1
    if params.before < stages and not (cut and before >= service):
        series[CALLS_BEGIN, place(begun + before, width, bins)] += 1
        series[CALLS_END, place(min(begun + before + call, end), width, bins)] += 1

    if end - time > params.patience:
        retry_or_fail(crowd, stats, params, request, tries, first, time + params.patience, 2)
    elif cut:
        retry_or_fail(crowd, stats, params, request, tries, first, end, 3)
    else:
        seen = begun + before + first_token - first
        stats.counts[SERVED] += 1
        stats.latencies[bucket(end - first)] += 1
        stats.firsts[bucket(seen)] += 1
        totals[LATENCY] += end - first
        totals[FIRST] += seen
        then = place(first, width, bins)
        stats.first_sum[then] += seen
        stats.slowest[then] = max(stats.slowest[then], seen)
        if stats.kept.shape[0] > 0:
            stats.kept[request, 0] = first
            stats.kept[request, 1] = seen
            stats.kept[request, 2] = end - first
            stats.kept[request, 3] = 0.0
            stats.kept[request, 4] = 1.0 if cold else 0.0


@compiled
def invoke(
    crowd: Crowd,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    rows: Floats,
    tables: Floats,
    arrivals: Floats,
    at: int,
    number: int,
    until: float,
    last: bool,
) -> int:
    """Take arrivals from `at` on, and retries, while they come before `until`; where it stopped.

    number: that of the request at 0. last: no arrivals follow these.
    """
    count = crowd.tally
    size = arrivals.shape[0]
    while True:
        arrival = arrivals[at] if at < size else math.inf
        again = crowd.again[0] if count[RETRYING] > 0 else math.inf
        if at == size and not last:
            return at
        if min(arrival, again) >= until:
            return at
        if arrival <= again:
            stats.counts[REQUESTS] += 1
            stats.series[ARRIVED, place(arrival, params.width, stats.series.shape[1])] += 1
            attempt(crowd, stats, params, rows, tables, arrival, number + at, 0, arrival)
            at += 1
        else:
            ticket = crowd.ticket[0]
            count[RETRYING] = pop(crowd.again, crowd.ticket, count[RETRYING])
            request = crowd.request[ticket]
            tries = crowd.tries[ticket]
            first = crowd.first[ticket]
            crowd.tickets[count[TICKETS]] = ticket
            count[TICKETS] += 1
            attempt(crowd, stats, params, rows, tables, again, request, tries, first)
