"""What a run on pods works on: its rules, pods, requests and books, and how they are indexed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["PodParams", "PodStats", "Pods", "Requests"]

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


class PodParams(NamedTuple):
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


class PodStats(NamedTuple):
    """What is counted; as in `environments.EnvironmentStats`."""

    series: Integers
    slowest: Floats
    first_sum: Floats
    latencies: Integers
    firsts: Integers
    waits: Integers
    counts: Integers
    totals: Floats
    kept: Floats
