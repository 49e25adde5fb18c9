"""Environments that serve one request each, as Lambda's do: a loop over attempts, in order of time.

An attempt takes a provisioned environment, an idle one, or starts a new one; or it is throttled.
What becomes of it is known at once, so there is no event but the end of an environment's work.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seawall.plan.kernels.compiled import compiled, inlined
from seawall.plan.kernels.heaps import pop, push
from seawall.plan.kernels.randomness import draw, uniform
from seawall.plan.kernels.recording import bucket, place

__all__ = ["Books", "Crowd", "Law", "finish", "invoke"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Crowd.tally
ALIVE, IDLE, BUSY, FREE_SLOTS, OLDEST, NEWEST, BORN, SPARE, PROVISIONED, PROVISIONED_BUSY = range(
    10
)
RETRYING, TICKETS = range(10, 12)
# Crowd.clock
STARTS_LEFT, STARTS_AT, INVOKES_LEFT, INVOKES_AT = range(4)
# Books.series
(
    ARRIVED,
    STARTED,
    COLD,
    THROTTLED,
    ENDED,
    ALIVE_CHANGE,
    CALLS_BEGIN,
    CALLS_END,
    SPILLED,
    REFUSED,
    LEFT,
    FAILED,
) = range(12)
# Books.counts
(
    REQUESTS,
    ATTEMPTS,
    SERVED,
    GAVE_UP,
    TIMED_OUT,
    CUT_OFF,
    COLD_STARTS,
    THROTTLES,
    ON_PROVISIONED,
    PEAK_BUSY,
    PEAK_ALIVE,
) = range(11)
# Books.totals
LATENCY, FIRST, BILLED, BILLED_START, BILLED_PROVISIONED, ALIVE_TIME, BUSY_TIME, LAST = range(8)


class Law(NamedTuple):
    """What holds in a run. Times in seconds.

    arrivals, services, starts, jitters: streams of random numbers. stages: how many rows of
    durations there are; before: how many of them come before the model's. row_first, row_start,
    row_cold: rows of the time to the model's first token, of the start of an environment, and of a
    whole cold request where that was measured in one (-1: is not). Others: see LambdaPlatform,
    Clients.
    """

    services: np.uint64
    starts: np.uint64
    jitters: np.uint64
    stages: int
    before: int
    row_first: int
    row_start: int
    row_cold: int
    limit: int
    start_rate: float
    start_burst: float
    invoke_rate: float
    idle: float
    lifetime: float
    timeout: float
    start_billed: bool
    newest_first: bool
    retries: int
    retry_timeouts: bool
    backoff: float
    backoff_cap: float
    patience: float
    width: float
    horizon: float


class Crowd(NamedTuple):
    """The environments, and the requests that will be sent again.

    born, number, since, later, earlier: of an environment: its birth, its serial number, since when
    it is idle (-1: it is not), its neighbours in the order of becoming idle. slots: places that
    are free. ends, ending: a heap of when environments are done (-1 for a provisioned one).
    newest, ranked: a heap of idle ones by serial number, newest first. again, ticket: a heap of
    when requests come again; request, tries, first: of a ticket; tickets: those that are free.
    """

    tally: Integers
    clock: Floats
    born: Floats
    number: Integers
    since: Floats
    later: Integers
    earlier: Integers
    slots: Integers
    ends: Floats
    ending: Integers
    newest: Floats
    ranked: Integers
    again: Floats
    ticket: Integers
    request: Integers
    tries: Integers
    first: Floats
    tickets: Integers


class Books(NamedTuple):
    """What is counted. series: rows by bin; slowest, first_sum: of first tokens by bin of arrival.

    kept: a row [arrival, first token, latency, outcome, cold] a request, or none.
    """

    series: Integers
    slowest: Floats
    first_sum: Floats
    latencies: Integers
    firsts: Integers
    counts: Integers
    totals: Floats
    kept: Floats


@inlined
def _die(crowd: Crowd, books: Books, law: Law, slot: int, time: float) -> None:
    count = crowd.tally
    count[ALIVE] -= 1
    crowd.slots[count[FREE_SLOTS]] = slot
    count[FREE_SLOTS] += 1
    crowd.number[slot] = -1
    books.totals[ALIVE_TIME] += time - crowd.born[slot]
    books.series[ALIVE_CHANGE, place(time, law.width, books.series.shape[1])] -= 1


@inlined
def _unlink(crowd: Crowd, slot: int) -> None:
    """Take it out of the idle ones."""
    count = crowd.tally
    later = crowd.later[slot]
    earlier = crowd.earlier[slot]
    if later >= 0:
        crowd.earlier[later] = earlier
    else:
        count[NEWEST] = earlier
    if earlier >= 0:
        crowd.later[earlier] = later
    else:
        count[OLDEST] = later
    crowd.since[slot] = -1.0
    count[IDLE] -= 1


@inlined
def _rank(crowd: Crowd, slot: int) -> None:
    """Add it to those to choose the newest from; where that is full, drop who died meanwhile."""
    count = crowd.tally
    if count[SPARE] == crowd.newest.shape[0]:
        size = 0
        for at in range(count[SPARE]):
            one = crowd.ranked[at]
            if -crowd.newest[at] == crowd.number[one] and crowd.since[one] >= 0.0:
                size = push(crowd.newest, crowd.ranked, size, crowd.newest[at], one)
        count[SPARE] = size
    key = -float(crowd.number[slot])
    count[SPARE] = push(crowd.newest, crowd.ranked, count[SPARE], key, slot)


@inlined
def _settle(crowd: Crowd, books: Books, law: Law, time: float) -> None:
    """Everything that environments did until now: work ended, idle ones reclaimed."""
    count = crowd.tally
    while count[BUSY] > 0 and crowd.ends[0] <= time:
        end = crowd.ends[0]
        slot = crowd.ending[0]
        count[BUSY] = pop(crowd.ends, crowd.ending, count[BUSY])
        if slot < 0:
            count[PROVISIONED_BUSY] -= 1
        elif end - crowd.born[slot] > law.lifetime:
            _die(crowd, books, law, slot, end)
        else:
            last = count[NEWEST]
            crowd.earlier[slot] = last
            crowd.later[slot] = -1
            if last >= 0:
                crowd.later[last] = slot
            else:
                count[OLDEST] = slot
            count[NEWEST] = slot
            crowd.since[slot] = end
            count[IDLE] += 1
            if law.newest_first:
                _rank(crowd, slot)
    while count[IDLE] > 0 and crowd.since[count[OLDEST]] + law.idle < time:
        slot = count[OLDEST]
        ended = crowd.since[slot] + law.idle
        _unlink(crowd, slot)
        _die(crowd, books, law, slot, ended)


@inlined
def _idle_one(crowd: Crowd, law: Law) -> int:
    """An idle environment, taken out; or -1."""
    count = crowd.tally
    if count[IDLE] == 0:
        return -1
    slot = int(count[NEWEST])
    if law.newest_first:
        while True:
            slot = int(crowd.ranked[0])
            key = crowd.newest[0]
            count[SPARE] = pop(crowd.newest, crowd.ranked, count[SPARE])
            if -key == crowd.number[slot] and crowd.since[slot] >= 0.0:
                break
    _unlink(crowd, slot)
    return slot


@inlined
def _new_one(crowd: Crowd, law: Law, time: float) -> int:
    """A place for a new environment if the limits let it start; or -1."""
    count = crowd.tally
    clock = crowd.clock
    on_demand = count[BUSY] - count[PROVISIONED_BUSY]
    if on_demand + max(count[PROVISIONED], count[PROVISIONED_BUSY]) >= law.limit:
        return -1
    if count[FREE_SLOTS] == 0:
        return -1
    clock[STARTS_LEFT] = min(
        law.start_burst, clock[STARTS_LEFT] + (time - clock[STARTS_AT]) * law.start_rate
    )
    clock[STARTS_AT] = time
    if clock[STARTS_LEFT] < 1.0 - 1e-9:
        return -1
    clock[STARTS_LEFT] -= 1.0
    count[FREE_SLOTS] -= 1
    slot = crowd.slots[count[FREE_SLOTS]]
    crowd.born[slot] = time
    crowd.number[slot] = count[BORN]
    count[BORN] += 1
    count[ALIVE] += 1
    return int(slot)


@inlined
def _give_up(
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
def _attempt(
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
    count = crowd.tally
    clock = crowd.clock
    series = books.series
    totals = books.totals
    bins = series.shape[1]
    width = law.width
    _settle(crowd, books, law, time)
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
            slot = _idle_one(crowd, law)
            if slot < 0:
                slot = _new_one(crowd, law, time)
                cold = slot >= 0
    here = place(time, width, bins)
    if not provisioned and slot < 0:
        books.counts[THROTTLES] += 1
        series[THROTTLED, here] += 1
        _give_up(crowd, books, law, request, tries, first, time, 1)
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
        _give_up(crowd, books, law, request, tries, first, time + law.patience, 2)
    elif cut:
        _give_up(crowd, books, law, request, tries, first, end, 3)
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
            _attempt(crowd, books, law, rows, tables, arrival, number + at, 0, arrival)
            at += 1
        else:
            ticket = crowd.ticket[0]
            count[RETRYING] = pop(crowd.again, crowd.ticket, count[RETRYING])
            request = crowd.request[ticket]
            tries = crowd.tries[ticket]
            first = crowd.first[ticket]
            crowd.tickets[count[TICKETS]] = ticket
            count[TICKETS] += 1
            _attempt(crowd, books, law, rows, tables, again, request, tries, first)


@compiled
def finish(crowd: Crowd, books: Books, law: Law) -> None:
    """All work ends; environments that are idle live until reclaimed, at most to the horizon."""
    _settle(crowd, books, law, max(books.totals[LAST], law.horizon))
    end = max(books.totals[LAST], law.horizon)
    while crowd.tally[IDLE] > 0:
        slot = crowd.tally[OLDEST]
        ended = min(crowd.since[slot] + law.idle, max(end, crowd.since[slot]))
        _unlink(crowd, slot)
        _die(crowd, books, law, slot, ended)
