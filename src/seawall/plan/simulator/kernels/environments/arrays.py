"""What a run on environments works on: its rules, crowd and books, and how they are indexed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Crowd", "EnvironmentParams", "EnvironmentStats"]

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


class EnvironmentParams(NamedTuple):
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


class EnvironmentStats(NamedTuple):
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
