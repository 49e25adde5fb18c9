"""A loop over attempts, in order of time, each of which finds an environment or does not."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.kernels.compiled import compiled, inlined
from seawall.plan.kernels.environments.arrays import (
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
    Books,
    Crowd,
    Law,
)
from seawall.plan.kernels.environments.lives import idle_one, new_one, settle
from seawall.plan.kernels.heaps import pop, push
from seawall.plan.kernels.randomness import draw, uniform
from seawall.plan.kernels.recording import bucket, place

__all__ = ["attempt", "give_up", "invoke"]

Floats = NDArray[np.float64]


@inlined
def give_up(
    crowd: Crowd,
    books: Books,
    law: Law,
    request: int,
    tries: int,
    first: float,
    at: float,
    outcome: int,
) -> None:
    """The attempt failed at a time: it comes again, or that was all. outcome: 1 refused, 2 left."""
    count = crowd.tally
    if tries < law.retries and (outcome == 1 or (outcome == 2 and law.retry_timeouts)):
        u = uniform(law.jitters, request * 32 + tries)
        delay = min(law.backoff_cap, law.backoff * 2.0**tries) * u
        count[TICKETS] -= 1
        ticket = crowd.tickets[count[TICKETS]]
        crowd.request[ticket] = request
        crowd.tries[ticket] = tries + 1
        crowd.first[ticket] = first
        count[RETRYING] = push(crowd.again, crowd.ticket, count[RETRYING], at + delay, ticket)
        return
    bins = books.series.shape[1]
    books.counts[SERVED + outcome] += 1
    books.series[REFUSED + outcome - 1, place(at, law.width, bins)] += 1
    if books.kept.shape[0] > 0:
        books.kept[request, 0] = first
        books.kept[request, 1] = -1.0
        books.kept[request, 2] = at - first
        books.kept[request, 3] = outcome


@inlined
def attempt(
    crowd: Crowd,
    books: Books,
    law: Law,
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
    series = books.series
    totals = books.totals
    bins = series.shape[1]
    width = law.width
    settle(crowd, books, law, time)
    books.counts[ATTEMPTS] += 1
    cold = False
    provisioned = False
    slot = -1
    allowed = True
    if law.invoke_rate < math.inf:
        clock[INVOKES_LEFT] = min(
            law.invoke_rate, clock[INVOKES_LEFT] + (time - clock[INVOKES_AT]) * law.invoke_rate
        )
        clock[INVOKES_AT] = time
        allowed = clock[INVOKES_LEFT] >= 1.0 - 1e-9
    if allowed:
        if count[BUSY] >= law.limit:
            pass  # more were provisioned while others were busy
        elif count[PROVISIONED_BUSY] < count[PROVISIONED]:
            provisioned = True
        else:
            slot = idle_one(crowd, law)
            if slot < 0:
                slot = new_one(crowd, law, time)
                cold = slot >= 0
    here = place(time, width, bins)
    if not provisioned and slot < 0:
        books.counts[THROTTLES] += 1
        series[THROTTLED, here] += 1
        give_up(crowd, books, law, request, tries, first, time, 1)
        return
    if law.invoke_rate < math.inf:
        clock[INVOKES_LEFT] -= 1.0

    stages = law.stages
    before = 0.0
    for stage in range(law.before):
        u = uniform(law.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        before += draw(rows, tables, stage, u)
    call = 0.0
    if law.before < stages:
        u = uniform(law.services, request * 16 + law.before)
        call = draw(rows, tables, law.before, u)
    after = 0.0
    for stage in range(law.before + 1, stages):
        u = uniform(law.services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        after += draw(rows, tables, stage, u)
    first_token = 0.0
    if call > 0.0:
        u = uniform(law.services, request * 16 + 15)
        first_token = min(call, draw(rows, tables, law.row_first, u))
    service = before + call + after
    start = 0.0
    if cold:
        u = uniform(law.starts, request)
        if law.row_cold >= 0:
            start = max(draw(rows, tables, law.row_cold, u) - service, -before)
        else:
            start = draw(rows, tables, law.row_start, u)
    cut = service > law.timeout
    service = min(service, law.timeout)
    end = time + start + service

    if provisioned:
        slot = -1
        count[PROVISIONED_BUSY] += 1
        books.counts[ON_PROVISIONED] += 1
        totals[BILLED_PROVISIONED] += math.ceil(service * 1e3 - 1e-6) * 1e-3
    else:
        totals[BILLED] += math.ceil(service * 1e3 - 1e-6) * 1e-3
        if count[PROVISIONED] > 0:
            series[SPILLED, here] += 1
    if cold:
        books.counts[COLD_STARTS] += 1
        series[COLD, here] += 1
        series[ALIVE_CHANGE, here] += 1
        if law.start_billed:
            totals[BILLED_START] += max(start, 0.0)
    totals[BUSY_TIME] += end - time
    totals[LAST] = max(totals[LAST], end)
    count[BUSY] = push(crowd.ends, crowd.ending, count[BUSY], end, slot)
    books.counts[PEAK_BUSY] = max(books.counts[PEAK_BUSY], count[BUSY])
    books.counts[PEAK_ALIVE] = max(books.counts[PEAK_ALIVE], count[ALIVE])
    begun = time + start
    series[STARTED, place(begun, width, bins)] += 1
    series[ENDED, place(end, width, bins)] += 1
    if law.before < stages and not (cut and before >= service):
        series[CALLS_BEGIN, place(begun + before, width, bins)] += 1
        series[CALLS_END, place(min(begun + before + call, end), width, bins)] += 1

    if end - time > law.patience:
        give_up(crowd, books, law, request, tries, first, time + law.patience, 2)
    elif cut:
        give_up(crowd, books, law, request, tries, first, end, 3)
    else:
        seen = begun + before + first_token - first
        books.counts[SERVED] += 1
        books.latencies[bucket(end - first)] += 1
        books.firsts[bucket(seen)] += 1
        totals[LATENCY] += end - first
        totals[FIRST] += seen
        then = place(first, width, bins)
        books.first_sum[then] += seen
        books.slowest[then] = max(books.slowest[then], seen)
        if books.kept.shape[0] > 0:
            books.kept[request, 0] = first
            books.kept[request, 1] = seen
            books.kept[request, 2] = end - first
            books.kept[request, 3] = 0.0
            books.kept[request, 4] = 1.0 if cold else 0.0


@compiled
def invoke(
    crowd: Crowd,
    books: Books,
    law: Law,
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
            books.counts[REQUESTS] += 1
            books.series[ARRIVED, place(arrival, law.width, books.series.shape[1])] += 1
            attempt(crowd, books, law, rows, tables, arrival, number + at, 0, arrival)
            at += 1
        else:
            ticket = crowd.ticket[0]
            count[RETRYING] = pop(crowd.again, crowd.ticket, count[RETRYING])
            request = crowd.request[ticket]
            tries = crowd.tries[ticket]
            first = crowd.first[ticket]
            crowd.tickets[count[TICKETS]] = ticket
            count[TICKETS] += 1
            attempt(crowd, books, law, rows, tables, again, request, tries, first)
