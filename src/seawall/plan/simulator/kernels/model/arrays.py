"""The arrays of the model's quota: rules, levels, calls and statistics, and their indices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Quota"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Quota.rules
(
    CACHED_SHARE, QUEUE, RETRIES, BACKOFF, BACKOFF_CAP, RETRY_AFTER, WAIT_SECONDS, QUEUED_MOST,
    WIDTH, ROW_INPUT, ROW_OUTPUT, MAIN, REFUSE_EARLY, TYPICAL,
) = range(14)  # fmt: skip
# Quota.endpoints: rules of each
(
    REQUEST_RATE, REQUEST_BURST, TOKEN_RATE, TOKEN_BURST, INPUT_RATE, INPUT_BURST, OUTPUT_RATE,
    OUTPUT_BURST, CONCURRENT, COUNTING, GREATER, BURNDOWN, CACHED_COUNTS, REFUSALS_COUNT, WINDOW,
    PHASE, BOUND, SLOWER,
) = range(18)  # fmt: skip
RESERVE, ESTIMATE, PRODUCED = range(3)
# Quota.levels: of each endpoint
REQUESTS, TOKENS, INPUT, OUTPUT, UPDATED, DRAIN, CALLING, RESERVED_NOW = range(8)
# Quota.clock
NEXT, QUEUE_AT = range(2)
# Quota.numbers, by call
(
    OPENED, SECONDS, LEAVE_AT, CUT_AT, INPUT_TOKENS, OUTPUT_TOKENS, ADMITTED_AT, RESERVED, DRAINING,
    FIRST, SINCE, START,
) = range(12)  # fmt: skip
# Quota.items, by call
(
    STATE, VERDICT, LEAVE_AS, REQUEST, ATTEMPT, TRIED, ENDPOINT, EARLIER, LATER, PLACE, OWNER,
    FLAGS, FREE, OF_OWNER, WAITS,
) = range(15)  # fmt: skip
PENDING, QUEUED, LEAVING, ADMITTED = range(4)
GRANTED, FAILED, LEFT = range(3)  # verdicts
# Quota.tally
OPEN, SETTLING, HEAD, TAIL, WAITING, USED = range(6)
# Quota.series
(
    BEGUN, REFUSALS, FAILURES, WAIT_CHANGE, COUNTED, RESERVED_CHANGE, ON_FALLBACK, ON_PROVISIONED,
    SHORT_OF_TOKENS, SHORT_OF_REQUESTS, SHORT_OF_CALLS,
) = range(11)  # fmt: skip
# Quota.totals
WAITED, INPUT_SUM, OUTPUT_SUM, RESERVED_SUM, FALLBACK_INPUT, FALLBACK_OUTPUT = range(6)


class Quota(NamedTuple):
    """The model's quota in a run; times in seconds, tokens as numbers. Empty without a quota.

    Attributes:
        tokens: Stream of random numbers for input tokens.
        jitters: Stream of random numbers for backoff.
        services: Stream of random numbers of the model call, for output tokens: longer calls have
            more.
        stage: Index of the model's stage in that stream.
        rules: Of the turns; indices above.
        draws: Distributions of the tokens.
        tables: Their quantiles.
        endpoints: Rules of each endpoint, shape (endpoints, 18).
        levels: What is left of each quota, shape (endpoints, 8).
        clock: [time of the next event, time at which the queue's first call may be admitted].
        numbers: Of each call, shape (12, calls).
        items: Of each call, shape (15, calls). Its row FREE lists the calls, those in use first;
            its row OF_OWNER has the call of a pod's request, by slot.
        times: Heaps, shape (2, calls): of times of tries, and of ends of admitted calls.
        calls: Calls of these heaps.
        tally: Sizes and ends of the queue; indices above.
        series: Rows by bin.
        waits: Histogram of the times that calls waited for the quota.
        totals: Sums; indices above.
    """

    tokens: np.uint64
    jitters: np.uint64
    services: np.uint64
    stage: int
    rules: Floats
    draws: Floats
    tables: Floats
    endpoints: Floats
    levels: Floats
    clock: Floats
    numbers: Floats
    items: Integers
    times: Floats
    calls: Integers
    tally: Integers
    series: Floats
    waits: Integers
    totals: Floats
