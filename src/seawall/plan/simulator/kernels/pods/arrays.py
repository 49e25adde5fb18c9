"""The arrays of a run on pods: parameters, pods, requests and statistics, and their indices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["PodParams", "PodStats", "Pods", "Requests"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Indices = NDArray[np.uint32]  # numba lets signed ones count from the end, which takes time

RANDOM, ROUND_ROBIN, LEAST = range(3)
FREE, QUEUED, FIRST_BURST, WAITING, LAST_BURST, DEAD, CALLING = range(7)
# Requests.tally
(USED, IN_WAIT, RETRYING, TICKETS, RING_HEAD, RING_SIZE, LINE_HEAD, LINE_SIZE, READY, TURN) = range(
    10
)
# PodStats.series
(
    ARRIVED,
    STARTED,
    THROTTLED,
    ENDED,
    CALLS_BEGIN,
    CALLS_END,
    CONNECTED,
    REFUSED,
    LEFT,
    FAILED,
    QUEUE_CHANGE,
) = range(11)
# PodStats.counts
REQUESTS, ATTEMPTS, SERVED, GAVE_UP, TIMED_OUT, CUT_OFF, THROTTLES, PEAK_BUSY, PEAK_POD = range(9)
# PodStats.totals
LATENCY, FIRST, WAITED, BUSY_TIME, LAST = range(5)


class PodParams(NamedTuple):
    """Parameters of a run; times in seconds. For those not listed, see `Clients`.

    Attributes:
        services: Stream of random numbers for durations.
        jitters: Stream of random numbers for backoff.
        choices: Stream of random numbers for the balancer.
        stages: Rows of waits.
        before: Rows of the stages before the model's.
        row_first: Row of the time to the model's first token.
        cpu_first: Processor seconds of the first burst.
        cpu_last: Processor seconds of the last burst.
        fixed_before: Seconds of the stages before the model's, if all are constant; else -1.
        fixed_after: Seconds of the stages after the model's, if all are constant; else -1.
        room: Requests in service in a pod at most.
        queue: Requests that wait in a pod at most.
        longest: Time that a request waits at most.
        cores: Of a pod.
        balance: RANDOM, ROUND_ROBIN or LEAST.
        width: Seconds of a bin.
        limited: Whether the model has a quota.
    """

    services: np.uint64
    jitters: np.uint64
    choices: np.uint64
    stages: int
    before: int
    row_first: int
    cpu_first: float
    cpu_last: float
    fixed_before: float
    fixed_after: float
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
    limited: bool = False


class Pods(NamedTuple):
    """Pods, by index.

    Attributes:
        ready: Indices of the pods that get requests, `tally[READY]` of them.
        closed: 1: it refuses requests.
        busy: Requests in service.
        waiting: Requests in the queue.
        most: Greatest `busy` so far.
        bursts: Bursts in progress.
        alone_until: End of the pod's only burst, which is in `wakes` and not in `tree`; -1: none.
        clock: Virtual time.
        seen: Time at which `clock` was updated.
        used: Processor seconds.
        keys: Heaps of the virtual times at which bursts end, shape (pods, room + 1).
        items: Slots of these heaps.
        tree: Tree of minima of the times at which each pod's next burst ends.
        oldest: Slot of the first request in the queue; -1: none.
        newest: Slot of the last request in the queue; -1: none.
    """

    ready: Indices
    closed: Integers
    busy: Integers
    waiting: Integers
    most: Integers
    bursts: Integers
    alone_until: Floats
    clock: Floats
    seen: Floats
    used: Floats
    keys: Floats
    items: Indices
    tree: Floats
    oldest: Integers
    newest: Integers


class Requests(NamedTuple):
    """Requests in the pods by slot, and requests that wait for a retry by ticket.

    Attributes:
        tally: Numbers and ring ends; indices above.
        pod: Index of the pod.
        phase: FREE, QUEUED, FIRST_BURST, CALLING (its model call waits for the quota), WAITING,
            LAST_BURST or DEAD.
        request: Number of the request.
        tries: Attempts so far.
        serial: Changes when a slot is used again.
        gone: 1: the client has timed out.
        stale: Entries in `wakes` that no longer count, which are before those that do.
        first: Time of the first attempt.
        since: Time of this attempt.
        pause: Time of the first token.
        later: Next request in the queue.
        earlier: Previous request in the queue.
        free: Free slots.
        wakes: Heap of the times at which waits for upstreams, and last bursts that are alone, end.
        waking: Slots of that heap.
        ring_times: Ring of the times at which clients time out, in order.
        ring_slots: Slots of that ring.
        ring_serials: Serials of that ring.
        line_times: Ring of the times at which queued requests are shed, in order.
        line_slots: Slots of that ring.
        line_serials: Serials of that ring.
        retry_times: Heap of the times of retries.
        ticket: Tickets of that heap.
        retry_request: Request of a ticket.
        retry_tries: Attempts so far, of a ticket.
        retry_first: Time of the first attempt, of a ticket.
        free_tickets: Free tickets.
    """

    tally: Integers
    pod: Indices
    phase: Integers
    request: Integers
    tries: Integers
    serial: Integers
    gone: Integers
    stale: Integers
    first: Floats
    since: Floats
    pause: Floats
    later: Integers
    earlier: Integers
    free: Indices
    wakes: Floats
    waking: Indices
    ring_times: Floats
    ring_slots: Indices
    ring_serials: Integers
    line_times: Floats
    line_slots: Indices
    line_serials: Integers
    retry_times: Floats
    ticket: Integers
    retry_request: Integers
    retry_tries: Integers
    retry_first: Floats
    free_tickets: Integers


class PodStats(NamedTuple):
    """Statistics of a run; see `EnvironmentStats`. waits: a histogram of the times in the queue."""

    series: Integers
    slowest: Floats
    first_sum: Floats
    latencies: Integers
    firsts: Integers
    waits: Integers
    counts: Integers
    totals: Floats
    samples: Floats
