"""The arrays of a run on environments: parameters, state and statistics, and their indices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["EnvironmentParams", "EnvironmentState", "EnvironmentStats"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# EnvironmentState.tally
ALIVE, IDLE, BUSY, FREE_SLOTS, OLDEST, NEWEST, BORN, SPARE, PROVISIONED, PROVISIONED_BUSY = range(
    10
)
RETRYING, TICKETS, CALLING = range(10, 13)  # CALLING: busy, at the model or before it
# EnvironmentState.clock
STARTS_LEFT, STARTS_AT, INVOKES_LEFT, INVOKES_AT = range(4)
# EnvironmentStats.series
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
# EnvironmentStats.counts
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
# EnvironmentStats.totals
LATENCY, FIRST, BILLED, BILLED_START, BILLED_PROVISIONED, ALIVE_TIME, BUSY_TIME, LAST = range(8)


class EnvironmentParams(NamedTuple):
    """Parameters of a run; times in seconds. For those not listed, see `Lambda` and `Clients`.

    Attributes:
        services: Stream of random numbers for durations.
        starts: Stream of random numbers for starts.
        jitters: Stream of random numbers for backoff.
        stages: Rows of durations.
        before: Rows of the stages before the model's.
        fixed_before: Seconds of the stages before the model's, if all are constant; else -1.
        fixed_after: Seconds of the stages after the model's, if all are constant; else -1.
        row_first: Row of the time to the model's first token.
        row_start: Row of the start of an environment.
        row_cold: Row of a whole cold request; -1: not measured.
        width: Seconds of a bin.
        limited: Whether the model has a quota.
    """

    services: np.uint64
    starts: np.uint64
    jitters: np.uint64
    stages: int
    before: int
    fixed_before: float
    fixed_after: float
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
    newest_first: bool
    retries: int
    retry_timeouts: bool
    backoff: float
    backoff_cap: float
    patience: float
    width: float
    horizon: float
    limited: bool = False


class EnvironmentState(NamedTuple):
    """Environments by slot, and requests that wait for a retry by ticket.

    Attributes:
        tally: Numbers and list ends; indices above.
        clock: Token buckets of starts and invocations; indices above.
        born: Time of the start.
        number: Serial number; -1: the slot is free.
        since: Time since which it is idle; -1: it is not.
        later: Neighbour that became idle later; -1: none.
        earlier: Neighbour that became idle earlier; -1: none.
        slots: Free slots.
        ends: Heap of the times at which environments end their work.
        ending: Slots of that heap; -1: a provisioned environment.
        newest: Heap of negative serial numbers of idle environments.
        ranked: Slots of that heap.
        retry_times: Heap of the times of retries.
        ticket: Tickets of that heap.
        retry_request: Request of a ticket.
        retry_tries: Attempts so far, of a ticket.
        retry_first: Time of the first attempt, of a ticket.
        free_tickets: Free tickets.
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
    retry_times: Floats
    ticket: Integers
    retry_request: Integers
    retry_tries: Integers
    retry_first: Floats
    free_tickets: Integers


class EnvironmentStats(NamedTuple):
    """Statistics of a run.

    Attributes:
        series: Rows by bin; indices above.
        slowest: Longest time to first token by bin of arrival.
        first_sum: Sum of the times to first token by bin of arrival.
        latencies: Histogram.
        firsts: Histogram of the times to first token.
        counts: Indices above.
        totals: Seconds; indices above.
        samples: A row [arrival, first token, latency, outcome, cold] for each request, or no rows.
    """

    series: Integers
    slowest: Floats
    first_sum: Floats
    latencies: Integers
    firsts: Integers
    counts: Integers
    totals: Floats
    samples: Floats
