"""The loop over attempts, in order of time: each gets an environment or is throttled."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.durations import model_call, other_stages
from seawall.plan.simulator.kernels.environments import arrays as k
from seawall.plan.simulator.kernels.environments.arrays import (
    EnvironmentParams,
    EnvironmentState,
    EnvironmentStats,
)
from seawall.plan.simulator.kernels.environments.lives import advance, start_environment, take_idle
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import NEXT, Quota
from seawall.plan.simulator.kernels.model.calls import close_call, next_call, open_call
from seawall.plan.simulator.kernels.model.meters import settle
from seawall.plan.simulator.kernels.primitives import bin_index, bucket, pop, push
from seawall.plan.simulator.kernels.randomness import draw, uniform

__all__ = [
    "attempt",
    "call_model",
    "complete",
    "decide_call",
    "durations",
    "retry_or_fail",
    "run_until",
]

Floats = NDArray[np.float64]


@inlined
def retry_or_fail(
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    request: int,
    tries: int,
    first: float,
    at: float,
    outcome: int,
) -> None:
    """An attempt failed: schedule a retry, or record the outcome: 1 refused, 2 timed out, 3 cut."""
    count = state.tally
    if tries < params.retries and (outcome == 1 or (outcome == 2 and params.retry_timeouts)):
        u = uniform(params.jitters, request * 32 + tries)
        delay = min(params.backoff_cap, params.backoff * 2.0**tries) * u
        count[k.TICKETS] -= 1
        ticket = state.free_tickets[count[k.TICKETS]]
        state.retry_request[ticket] = request
        state.retry_tries[ticket] = tries + 1
        state.retry_first[ticket] = first
        count[k.RETRYING] = push(
            state.retry_times, state.ticket, count[k.RETRYING], at + delay, ticket
        )
        return
    bins = stats.series.shape[1]
    stats.counts[k.SERVED + outcome] += 1
    stats.series[k.REFUSED + outcome - 1, bin_index(at, params.width, bins)] += 1
    if stats.samples.shape[0] > 0:
        stats.samples[request, 0] = first
        stats.samples[request, 1] = -1.0
        stats.samples[request, 2] = at - first
        stats.samples[request, 3] = outcome


@inlined
def durations(
    params: EnvironmentParams, rows: Floats, tables: Floats, request: int
) -> tuple[float, float, float, float]:
    """Seconds of a request: until its model call, of the call, after it, to its first token."""
    before = params.fixed_before
    if before < 0.0:
        before = other_stages(params.services, rows, tables, 0, params.before, request)
    call, first_token = 0.0, 0.0
    if params.before < params.stages:
        call, first_token = model_call(
            params.services, rows, tables, params.before, params.row_first, request
        )
    after = params.fixed_after
    if after < 0.0:
        after = other_stages(
            params.services, rows, tables, params.before + 1, params.stages, request
        )
    return before, call, after, first_token


@inlined
def complete(
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    time: float,
    request: int,
    tries: int,
    first: float,
    slot: int,
    cold: bool,
    provisioned: bool,
    start: float,
    before: float,
    call: float,
    after: float,
    first_token: float,
    waited: float,
    given_up: int,
    gone: bool,
) -> None:
    """Schedule the end of an attempt that has its environment, and record its outcome.

    waited: seconds that its model call waited for the quota. given_up: outcome if the quota did not
    admit the call; else 0. gone: whether its client has left before.
    """
    count = state.tally
    series = stats.series
    totals = stats.totals
    bins = series.shape[1]
    width = params.width
    here = bin_index(time, width, bins)
    service = before + waited + call + after
    cut = service > params.timeout
    service = min(service, params.timeout)
    end = time + start + service

    if provisioned:
        slot = -1
        count[k.PROVISIONED_BUSY] += 1
        stats.counts[k.ON_PROVISIONED] += 1
        totals[k.BILLED_PROVISIONED] += math.ceil(service * 1e3 - 1e-6) * 1e-3
    else:
        totals[k.BILLED] += math.ceil(service * 1e3 - 1e-6) * 1e-3
        if count[k.PROVISIONED] > 0:
            series[k.SPILLED, here] += 1
    if cold:
        stats.counts[k.COLD_STARTS] += 1
        series[k.COLD, here] += 1
        series[k.ALIVE_CHANGE, here] += 1
        totals[k.BILLED_START] += max(start, 0.0)
    totals[k.BUSY_TIME] += end - time
    totals[k.LAST] = max(totals[k.LAST], end)
    count[k.BUSY] = push(state.ends, state.ending, count[k.BUSY], end, slot)
    stats.counts[k.PEAK_BUSY] = max(stats.counts[k.PEAK_BUSY], count[k.BUSY])
    stats.counts[k.PEAK_ALIVE] = max(stats.counts[k.PEAK_ALIVE], count[k.ALIVE])
    begun = time + start
    series[k.STARTED, bin_index(begun, width, bins)] += 1
    series[k.ENDED, bin_index(end, width, bins)] += 1
    called = begun + before + waited
    if params.before < params.stages and given_up == 0 and not (cut and before + waited >= service):
        series[k.CALLS_BEGIN, bin_index(called, width, bins)] += 1
        series[k.CALLS_END, bin_index(min(called + call, end), width, bins)] += 1

    if gone:
        return
    if given_up > 0:
        retry_or_fail(state, stats, params, request, tries, first, end, given_up)
    elif end - time > params.patience:
        retry_or_fail(state, stats, params, request, tries, first, time + params.patience, 2)
    elif cut:
        retry_or_fail(state, stats, params, request, tries, first, end, 3)
    else:
        seen = called + first_token - first
        stats.counts[k.SERVED] += 1
        stats.latencies[bucket(end - first)] += 1
        stats.firsts[bucket(seen)] += 1
        totals[k.LATENCY] += end - first
        totals[k.FIRST] += seen
        then = bin_index(first, width, bins)
        stats.first_sum[then] += seen
        stats.slowest[then] = max(stats.slowest[then], seen)
        if stats.samples.shape[0] > 0:
            stats.samples[request, 0] = first
            stats.samples[request, 1] = seen
            stats.samples[request, 2] = end - first
            stats.samples[request, 3] = 0.0
            stats.samples[request, 4] = 1.0 if cold else 0.0


@compiled
def call_model(
    quota: Quota,
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    time: float,
    request: int,
    tries: int,
    first: float,
    slot: int,
    cold: bool,
    provisioned: bool,
    start: float,
    before: float,
    call: float,
) -> None:
    """The model call of an attempt that has its environment: tried when its time has come."""
    settle(quota, time)
    begun = time + start
    patience, timeout = time + params.patience, begun + params.timeout
    gone = begun + before > patience
    if gone:
        retry_or_fail(state, stats, params, request, tries, first, patience, 2)
    leave_at, leave_as = min(patience, timeout), 2 if patience <= timeout else 3
    one = open_call(quota, slot, request, tries, begun + before, call, leave_at, leave_as, timeout)
    quota.numbers[m.FIRST, one] = first
    quota.numbers[m.SINCE, one] = time
    quota.numbers[m.START, one] = start
    quota.items[m.FLAGS, one] = int(cold) + 2 * int(provisioned) + 4 * int(gone)
    state.tally[k.CALLING] += 1
    if provisioned:
        state.tally[k.PROVISIONED_BUSY] += 1
    busy = state.tally[k.BUSY] + state.tally[k.CALLING]
    stats.counts[k.PEAK_BUSY] = max(stats.counts[k.PEAK_BUSY], busy)
    stats.counts[k.PEAK_ALIVE] = max(stats.counts[k.PEAK_ALIVE], state.tally[k.ALIVE])


@compiled
def decide_call(
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    now: float,
) -> None:
    """The next event of the model's quota: a call may begin, or its attempt ends without it."""
    one = next_call(quota, now)
    if one < 0:
        return
    advance(state, stats, params, now)
    numbers, items = quota.numbers, quota.items
    request = items[m.REQUEST, one]
    before, call, after, first_token = durations(params, rows, tables, request)
    waited = now - numbers[m.OPENED, one]
    verdict = items[m.VERDICT, one]
    given_up = 0
    if verdict == m.GRANTED:
        slower = quota.endpoints[items[m.ENDPOINT, one], m.SLOWER]
        call *= slower
        first_token = min(call, first_token * slower)
    else:
        call = after = 0.0
        given_up = 1 if verdict == m.FAILED else items[m.LEAVE_AS, one]
    flags = items[m.FLAGS, one]
    state.tally[k.CALLING] -= 1
    if flags & 2:
        state.tally[k.PROVISIONED_BUSY] -= 1
    complete(
        state, stats, params,
        numbers[m.SINCE, one], request, items[m.ATTEMPT, one], numbers[m.FIRST, one],
        items[m.OWNER, one], bool(flags & 1), bool(flags & 2), numbers[m.START, one],
        before, call, after, first_token, waited, given_up, bool(flags & 4),
    )  # fmt: skip
    if verdict != m.GRANTED:
        close_call(quota, one)


@inlined
def attempt(
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    time: float,
    request: int,
    tries: int,
    first: float,
) -> None:
    """Serve or throttle an attempt, and record its outcome."""
    count = state.tally
    clock = state.clock
    series = stats.series
    bins = series.shape[1]
    width = params.width
    advance(state, stats, params, time)
    stats.counts[k.ATTEMPTS] += 1
    cold = False
    provisioned = False
    slot = -1
    allowed = True
    if params.invoke_rate < math.inf:
        clock[k.INVOKES_LEFT] = min(
            params.invoke_rate,
            clock[k.INVOKES_LEFT] + (time - clock[k.INVOKES_AT]) * params.invoke_rate,
        )
        clock[k.INVOKES_AT] = time
        allowed = clock[k.INVOKES_LEFT] >= 1.0 - 1e-9
    if allowed:
        if count[k.BUSY] + count[k.CALLING] >= params.limit:
            pass  # more were provisioned while others were busy
        elif count[k.PROVISIONED_BUSY] < count[k.PROVISIONED]:
            provisioned = True
        else:
            slot = take_idle(state, params)
            if slot < 0:
                slot = start_environment(state, params, time)
                cold = slot >= 0
    here = bin_index(time, width, bins)
    if not provisioned and slot < 0:
        stats.counts[k.THROTTLES] += 1
        series[k.THROTTLED, here] += 1
        retry_or_fail(state, stats, params, request, tries, first, time, 1)
        return
    if params.invoke_rate < math.inf:
        clock[k.INVOKES_LEFT] -= 1.0

    before, call, after, first_token = durations(params, rows, tables, request)
    service = before + call + after
    start = 0.0
    if cold:
        u = uniform(params.starts, request)
        if params.row_cold >= 0:
            start = max(draw(rows, tables, params.row_cold, u) - service, -before)
        else:
            start = draw(rows, tables, params.row_start, u)
    if params.limited and before < params.timeout:
        call_model(
            quota, state, stats, params, time, request, tries, first, slot, cold, provisioned,
            start, before, call,
        )  # fmt: skip
        return
    complete(
        state, stats, params, time, request, tries, first, slot, cold, provisioned,
        start, before, call, after, first_token, 0.0, 0, False,
    )  # fmt: skip


@compiled
def run_until(
    state: EnvironmentState,
    stats: EnvironmentStats,
    params: EnvironmentParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    arrivals: Floats,
    at: int,
    number: int,
    until: float,
    last: bool,
) -> int:
    """Handle arrivals from index `at` on, and retries, before `until`; returns the next index.

    number: of the request with index 0. last: no arrivals follow these.
    """
    count = state.tally
    size = arrivals.shape[0]
    while True:
        arrival = arrivals[at] if at < size else math.inf
        retry_times = state.retry_times[0] if count[k.RETRYING] > 0 else math.inf
        if at == size and not last:
            return at
        model = quota.clock[NEXT]
        if min(min(arrival, retry_times), model) >= until:
            return at
        if model < min(arrival, retry_times):
            decide_call(state, stats, params, quota, rows, tables, model)
        elif arrival <= retry_times:
            stats.counts[k.REQUESTS] += 1
            stats.series[k.ARRIVED, bin_index(arrival, params.width, stats.series.shape[1])] += 1
            attempt(state, stats, params, quota, rows, tables, arrival, number + at, 0, arrival)
            at += 1
        else:
            ticket = state.ticket[0]
            count[k.RETRYING] = pop(state.retry_times, state.ticket, count[k.RETRYING])
            request = state.retry_request[ticket]
            tries = state.retry_tries[ticket]
            first = state.retry_first[ticket]
            state.free_tickets[count[k.TICKETS]] = ticket
            count[k.TICKETS] += 1
            attempt(state, stats, params, quota, rows, tables, retry_times, request, tries, first)
