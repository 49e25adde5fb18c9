"""Pods that serve many requests each, and share their processor: a loop over events.

A request is a burst of processor time, a wait for others, and another burst. The bursts in a pod
share its cores equally (processor sharing), so a saturated pod slows: a burst is done when the
pod's virtual time, which runs at the speed of each burst, has gone as far as the burst is long.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seawall.plan.kernels.compiled import compiled, inlined
from seawall.plan.kernels.heaps import pop, push, set_leaf
from seawall.plan.kernels.randomness import draw, uniform
from seawall.plan.kernels.recording import bucket, place

__all__ = ["PodBooks", "PodLaw", "Pods", "Requests", "kill", "settle", "work"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RANDOM, ROUND_ROBIN, LEAST = range(3)
FREE, QUEUED, FIRST_BURST, WAITING, LAST_BURST, DEAD = range(6)
# Requests.tally
(USED, IN_WAIT, RETRYING, TICKETS, RING_HEAD, RING_SIZE, LINE_HEAD, LINE_SIZE, READY, TURN) = range(
    10
)
# PodBooks.series
(
    ARRIVED,
    STARTED,
    TURNED_AWAY,
    ENDED,
    CALLS_BEGIN,
    CALLS_END,
    CONNECTED,
    REFUSED,
    LEFT,
    FAILED,
    QUEUE_CHANGE,
    STORE_BEGIN,
) = range(12)
# PodBooks.counts
REQUESTS, ATTEMPTS, SERVED, GAVE_UP, TIMED_OUT, CUT_OFF, THROTTLES, PEAK_BUSY, PEAK_POD = range(9)
# PodBooks.totals
LATENCY, FIRST, WAITED, BUSY_TIME, LAST = range(5)


class PodLaw(NamedTuple):
    """What holds in a run. Times in seconds.

    services, jitters, choices: streams of random numbers. stages: rows of waits; before: how many
    of them come before the model's; row_first: the row of the time to its first token. cpu_first,
    cpu_last: processor seconds of the bursts. room: requests in service in a pod at most;
    queue: waiting at most; longest: they wait. cores: of a pod. balance: RANDOM, ROUND_ROBIN,
    LEAST. Others: see Clients.
    """

    services: np.uint64
    jitters: np.uint64
    choices: np.uint64
    stages: int
    before: int
    row_first: int
    cpu_first: float
    cpu_last: float
    room: int
    queue: int
    longest: float
    cores: float
    balance: int
    retries: int
    retry_timeouts: bool
    backoff: float
    backoff_cap: float
    patience: float
    width: float
    horizon: float


class Pods(NamedTuple):
    """The pods, by number. ready: those that take requests, `tally[READY]` of them.

    busy, waiting: requests in service, in the queue. most: the greatest `busy` so far. bursts,
    clock, seen: bursts that run, virtual time, when that was so. used: processor seconds. keys,
    items: a heap of bursts each. tree, leaves: when each pod's next burst ends. oldest, newest:
    the ends of the queue.
    """

    ready: Integers
    closed: Integers
    busy: Integers
    waiting: Integers
    most: Integers
    bursts: Integers
    clock: Floats
    seen: Floats
    used: Floats
    keys: Floats
    items: Integers
    tree: Floats
    oldest: Integers
    newest: Integers


class Requests(NamedTuple):
    """Requests in the pods, by slot, and those that will come again, by ticket.

    serial: changes when a slot is used anew. gone: whose client left. pause: the wait between the
    bursts. free: slots not in use. wakes, waking: a heap of ends of waits. ring*: who may leave
    when, in order of time; line*: the same for the time in the queue.
    """

    tally: Integers
    pod: Integers
    phase: Integers
    request: Integers
    tries: Integers
    serial: Integers
    gone: Integers
    first: Floats
    since: Floats
    pause: Floats
    later: Integers
    earlier: Integers
    free: Integers
    wakes: Floats
    waking: Integers
    ring_times: Floats
    ring_slots: Integers
    ring_serials: Integers
    line_times: Floats
    line_slots: Integers
    line_serials: Integers
    again: Floats
    ticket: Integers
    again_request: Integers
    again_tries: Integers
    again_first: Floats
    tickets: Integers


class PodBooks(NamedTuple):
    """What is counted; as in `environments.Books`."""

    series: Integers
    slowest: Floats
    first_sum: Floats
    latencies: Integers
    firsts: Integers
    waits: Integers
    counts: Integers
    totals: Floats
    kept: Floats


@inlined
def _give_up(
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
    request: int,
    tries: int,
    first: float,
    at: float,
    outcome: int,
) -> None:
    """An attempt failed: it comes again, or that was all. outcome: 1 refused, 2 left, 3 cut off."""
    count = requests.tally
    if tries < law.retries and (outcome != 2 or law.retry_timeouts):
        u = uniform(law.jitters, request * 32 + tries)
        delay = min(law.backoff_cap, law.backoff * 2.0**tries) * u
        count[TICKETS] -= 1
        ticket = requests.tickets[count[TICKETS]]
        requests.again_request[ticket] = request
        requests.again_tries[ticket] = tries + 1
        requests.again_first[ticket] = first
        count[RETRYING] = push(requests.again, requests.ticket, count[RETRYING], at + delay, ticket)
        return
    books.counts[SERVED + outcome] += 1
    books.series[REFUSED + outcome - 1, place(at, law.width, books.series.shape[1])] += 1
    if books.kept.shape[0] > 0:
        books.kept[request, 0] = first
        books.kept[request, 1] = -1.0
        books.kept[request, 2] = at - first
        books.kept[request, 3] = outcome


@inlined
def _advance(pods: Pods, law: PodLaw, pod: int, now: float) -> None:
    """Bring the pod's virtual time up to now."""
    running = pods.bursts[pod]
    if running > 0:
        passed = now - pods.seen[pod]
        pods.clock[pod] += passed * min(1.0, law.cores / running)
        pods.used[pod] += passed * min(float(running), law.cores)
    pods.seen[pod] = now


@inlined
def _schedule(pods: Pods, law: PodLaw, pod: int) -> None:
    """Say when the pod's next burst ends."""
    running = pods.bursts[pod]
    end = math.inf
    if running > 0:
        left = max(0.0, pods.keys[pod, 0] - pods.clock[pod])
        end = pods.seen[pod] + left * max(1.0, running / law.cores)
    else:
        pods.clock[pod] = 0.0
    set_leaf(pods.tree, pods.tree.shape[0] >> 1, pod, end)


@inlined
def _burst(
    pods: Pods, requests: Requests, law: PodLaw, slot: int, seconds: float, now: float
) -> None:
    pod = requests.pod[slot]
    _advance(pods, law, pod, now)
    pods.bursts[pod] = push(
        pods.keys[pod], pods.items[pod], pods.bursts[pod], pods.clock[pod] + seconds, slot
    )
    _schedule(pods, law, pod)


@inlined
def _begin(
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
        _burst(pods, requests, law, slot, law.cpu_first, now)
    else:
        _pause(requests, books, law, rows, tables, slot, now)


@inlined
def _pause(
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
def _release(requests: Requests, slot: int) -> None:
    requests.phase[slot] = FREE
    requests.serial[slot] += 1
    count = requests.tally
    count[USED] -= 1
    requests.free[count[USED]] = slot


@inlined
def _unqueue(
    pods: Pods, requests: Requests, books: PodBooks, law: PodLaw, slot: int, now: float
) -> None:
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
def _end(
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
    _release(requests, slot)
    if pods.waiting[pod] > 0 and pods.busy[pod] < law.room:
        following = pods.oldest[pod]
        _unqueue(pods, requests, books, law, following, now)
        _begin(pods, requests, books, law, rows, tables, following, now)


@inlined
def _choose(pods: Pods, requests: Requests, law: PodLaw, number: int) -> int:
    count = requests.tally
    ready = count[READY]
    if law.balance == RANDOM:
        return int(pods.ready[int(uniform(law.choices, number) * ready)])
    count[TURN] = (count[TURN] + 1) % ready
    if law.balance == ROUND_ROBIN:
        return int(pods.ready[count[TURN]])
    best = pods.ready[count[TURN]]
    least = pods.busy[best] + pods.waiting[best]
    for at in range(ready):
        pod = pods.ready[at]
        if pods.busy[pod] + pods.waiting[pod] < least:
            best = pod
            least = pods.busy[pod] + pods.waiting[pod]
    return int(best)


@inlined
def _remember(
    requests: Requests,
    times: Floats,
    slots: Integers,
    serials: Integers,
    head: int,
    size: int,
    time: float,
    slot: int,
) -> None:
    """Add to a ring of deadlines; head, size: where its place and size are in `tally`."""
    count = requests.tally
    room = times.shape[0]
    if count[size] == room:  # forget those that are answered
        kept = 0
        for at in range(room):
            old = (count[head] + at) % room
            if requests.serial[slots[old]] == serials[old]:
                new = (count[head] + kept) % room
                times[new] = times[old]
                slots[new] = slots[old]
                serials[new] = serials[old]
                kept += 1
        count[size] = kept
    at = (count[head] + count[size]) % room
    times[at] = time
    slots[at] = slot
    serials[at] = requests.serial[slot]
    count[size] += 1


@inlined
def _attempt(
    pods: Pods,
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
    rows: Floats,
    tables: Floats,
    now: float,
    request: int,
    tries: int,
    first: float,
) -> None:
    count = requests.tally
    number = books.counts[ATTEMPTS]
    books.counts[ATTEMPTS] += 1
    bins = books.series.shape[1]
    pod = -1
    if count[READY] > 0:
        pod = _choose(pods, requests, law, number)
        full = pods.busy[pod] >= law.room and pods.waiting[pod] >= law.queue
        if full or pods.closed[pod] == 1 or count[USED] == requests.free.shape[0]:
            pod = -1
    if pod < 0:
        books.counts[THROTTLES] += 1
        books.series[TURNED_AWAY, place(now, law.width, bins)] += 1
        _give_up(requests, books, law, request, tries, first, now, 1)
        return
    slot = requests.free[count[USED]]
    count[USED] += 1
    books.counts[PEAK_BUSY] = max(books.counts[PEAK_BUSY], count[USED])
    requests.pod[slot] = pod
    requests.request[slot] = request
    requests.tries[slot] = tries
    requests.first[slot] = first
    requests.since[slot] = now
    requests.gone[slot] = 0
    if law.patience < math.inf:
        _remember(
            requests,
            requests.ring_times,
            requests.ring_slots,
            requests.ring_serials,
            RING_HEAD,
            RING_SIZE,
            now + law.patience,
            slot,
        )
    if pods.busy[pod] < law.room:
        _begin(pods, requests, books, law, rows, tables, slot, now)
        return
    requests.phase[slot] = QUEUED
    last = pods.newest[pod]
    requests.earlier[slot] = last
    requests.later[slot] = -1
    if last >= 0:
        requests.later[last] = slot
    else:
        pods.oldest[pod] = slot
    pods.newest[pod] = slot
    pods.waiting[pod] += 1
    books.series[QUEUE_CHANGE, place(now, law.width, bins)] += 1
    if law.longest < math.inf:
        _remember(
            requests,
            requests.line_times,
            requests.line_slots,
            requests.line_serials,
            LINE_HEAD,
            LINE_SIZE,
            now + law.longest,
            slot,
        )


@inlined
def _out_of_patience(
    pods: Pods, requests: Requests, books: PodBooks, law: PodLaw, now: float
) -> None:
    """The first in the ring leaves, if it is still there. What runs for it runs on."""
    count = requests.tally
    at = count[RING_HEAD]
    slot = requests.ring_slots[at]
    alive = requests.serial[slot] == requests.ring_serials[at] and requests.phase[slot] != DEAD
    count[RING_HEAD] = (at + 1) % requests.ring_times.shape[0]
    count[RING_SIZE] -= 1
    if not alive or requests.gone[slot] == 1:
        return
    _give_up(
        requests,
        books,
        law,
        requests.request[slot],
        requests.tries[slot],
        requests.first[slot],
        now,
        2,
    )
    if requests.phase[slot] == QUEUED:
        _unqueue(pods, requests, books, law, slot, now)
        _release(requests, slot)
    else:
        requests.gone[slot] = 1


@inlined
def _waited_enough(
    pods: Pods, requests: Requests, books: PodBooks, law: PodLaw, now: float
) -> None:
    """The first in the line of the queues is refused, if it still waits."""
    count = requests.tally
    at = count[LINE_HEAD]
    slot = requests.line_slots[at]
    queued = requests.serial[slot] == requests.line_serials[at] and requests.phase[slot] == QUEUED
    count[LINE_HEAD] = (at + 1) % requests.line_times.shape[0]
    count[LINE_SIZE] -= 1
    if not queued:
        return
    books.counts[THROTTLES] += 1
    books.series[TURNED_AWAY, place(now, law.width, books.series.shape[1])] += 1
    _unqueue(pods, requests, books, law, slot, now)
    _release(requests, slot)
    _give_up(
        requests,
        books,
        law,
        requests.request[slot],
        requests.tries[slot],
        requests.first[slot],
        now,
        1,
    )


@inlined
def _burst_ends(
    pods: Pods,
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
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
    _advance(pods, law, pod, now)
    slot = pods.items[pod, 0]
    pods.bursts[pod] = pop(pods.keys[pod], pods.items[pod], pods.bursts[pod])
    _schedule(pods, law, pod)
    if requests.phase[slot] == FIRST_BURST:
        _pause(requests, books, law, rows, tables, slot, now)
    else:
        _end(pods, requests, books, law, rows, tables, slot, now)


@compiled
def work(
    pods: Pods,
    requests: Requests,
    books: PodBooks,
    law: PodLaw,
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
            _burst_ends(pods, requests, books, law, rows, tables, now)
        elif now == wake:
            slot = requests.waking[0]
            count[IN_WAIT] = pop(requests.wakes, requests.waking, count[IN_WAIT])
            if requests.phase[slot] == DEAD:
                _release(requests, slot)
            elif law.cpu_last > 0.0:
                requests.phase[slot] = LAST_BURST
                _burst(pods, requests, law, slot, law.cpu_last, now)
            else:
                _end(pods, requests, books, law, rows, tables, slot, now)
        elif now == leave:
            _out_of_patience(pods, requests, books, law, now)
        elif now == shed:
            _waited_enough(pods, requests, books, law, now)
        elif now == arrival:
            books.counts[REQUESTS] += 1
            books.series[ARRIVED, place(now, law.width, books.series.shape[1])] += 1
            _attempt(pods, requests, books, law, rows, tables, now, number + at, 0, now)
            at += 1
        else:
            ticket = requests.ticket[0]
            count[RETRYING] = pop(requests.again, requests.ticket, count[RETRYING])
            request = requests.again_request[ticket]
            tries = requests.again_tries[ticket]
            first = requests.again_first[ticket]
            requests.tickets[count[TICKETS]] = ticket
            count[TICKETS] += 1
            _attempt(pods, requests, books, law, rows, tables, now, request, tries, first)


@compiled
def settle(pods: Pods, law: PodLaw, now: float) -> None:
    """Bring what pods used of their processors up to now, to be read."""
    for pod in range(pods.busy.shape[0]):
        _advance(pods, law, pod, now)


@compiled
def kill(pods: Pods, requests: Requests, books: PodBooks, law: PodLaw, pod: int, now: float) -> int:
    """The pod is gone, and everything in it fails; how many."""
    _advance(pods, law, pod, now)
    failed = 0
    for slot in range(requests.phase.shape[0]):
        if requests.pod[slot] != pod:
            continue
        phase = requests.phase[slot]
        if phase in (FREE, DEAD):
            continue
        if phase == QUEUED:
            _unqueue(pods, requests, books, law, slot, now)
        else:
            books.series[ENDED, place(now, law.width, books.series.shape[1])] += 1
            books.totals[BUSY_TIME] += now - requests.since[slot]
        if requests.gone[slot] == 0:
            failed += 1
            _give_up(
                requests,
                books,
                law,
                requests.request[slot],
                requests.tries[slot],
                requests.first[slot],
                now,
                3,
            )
        if phase == WAITING:
            requests.phase[slot] = DEAD
        else:
            _release(requests, slot)
    pods.busy[pod] = 0
    pods.bursts[pod] = 0
    pods.most[pod] = 0
    _schedule(pods, law, pod)
    return failed
