"""Model calls over time: opened, tried, repeated or queued, and decided."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.model import arrays as k
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.meters import (
    admit,
    expected_wait,
    fits,
    ready_at,
    refusal,
    settle,
)
from seawall.plan.simulator.kernels.primitives import bin_index, bucket
from seawall.plan.simulator.kernels.randomness import draw, uniform

__all__ = ["close_call", "next_call", "open_call", "withdraw"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@compiled
def _sift(
    times: Floats, calls: Integers, places: Integers, size: int, at: int, time: float, call: int
) -> None:
    """Put a call where it belongs in the heap of tries, from a free place."""
    while at > 0 and times[(at - 1) >> 1] > time:
        above = (at - 1) >> 1
        times[at], calls[at] = times[above], calls[above]
        places[calls[at]] = at
        at = above
    below = 2 * at + 1
    while below < size:
        if below + 1 < size and times[below + 1] < times[below]:
            below += 1
        if times[below] >= time:
            break
        times[at], calls[at] = times[below], calls[below]
        places[calls[at]] = at
        at = below
        below = 2 * at + 1
    times[at], calls[at] = time, call
    places[call] = at


@inlined
def _schedule(quota: Quota, time: float, call: int) -> None:
    """Schedule the next event of a call."""
    size = quota.tally[k.OPEN]
    quota.tally[k.OPEN] = size + 1
    _sift(quota.times[0], quota.calls[0], quota.items[k.PLACE], size + 1, size, time, call)


@inlined
def _unschedule(quota: Quota, call: int) -> None:
    """Remove the next event of a call."""
    at = quota.items[k.PLACE, call]
    quota.tally[k.OPEN] -= 1
    last = quota.tally[k.OPEN]
    if at != last:
        _sift(
            quota.times[0], quota.calls[0], quota.items[k.PLACE], last, at,
            quota.times[0, last], quota.calls[0, last],
        )  # fmt: skip


@inlined
def _update_next(quota: Quota) -> None:
    first = quota.times[0, 0] if quota.tally[k.OPEN] > 0 else math.inf
    if quota.tally[k.WAITING] > 0:
        first = min(first, quota.clock[k.QUEUE_AT])
    quota.clock[k.NEXT] = first


@compiled
def open_call(
    quota: Quota,
    owner: int,
    request: int,
    attempt: int,
    time: float,
    seconds: float,
    leave_at: float,
    leave_as: int,
    cut_at: float,
) -> int:
    """A call that is tried at a time.

    Args:
        quota: The model's.
        owner: Slot of the environment or of the request in a pod.
        request: Its number.
        attempt: Of the client, from 0.
        time: Of the first try.
        seconds: Of the call.
        leave_at: When it no longer waits for the quota: its client or its time ends.
        leave_as: Outcome then.
        cut_at: When it ends at the latest.

    Returns:
        The call.
    """
    call = quota.items[k.FREE, quota.tally[k.USED]]
    quota.tally[k.USED] += 1
    items, numbers = quota.items, quota.numbers
    items[k.STATE, call] = k.PENDING
    items[k.LEAVE_AS, call] = leave_as
    items[k.REQUEST, call] = request
    items[k.ATTEMPT, call] = attempt
    items[k.TRIED, call] = 0
    items[k.WAITS, call] = 0
    items[k.OWNER, call] = owner
    numbers[k.OPENED, call] = time
    numbers[k.SECONDS, call] = seconds
    numbers[k.LEAVE_AT, call] = max(time, leave_at)
    numbers[k.CUT_AT, call] = cut_at
    row = int(quota.rules[k.ROW_INPUT])
    numbers[k.INPUT_TOKENS, call] = draw(
        quota.draws, quota.tables, row, uniform(quota.tokens, request)
    )
    u = uniform(quota.services, request * 16 + quota.stage)
    row = int(quota.rules[k.ROW_OUTPUT])
    numbers[k.OUTPUT_TOKENS, call] = draw(quota.draws, quota.tables, row, u)
    _schedule(quota, time, call)
    _update_next(quota)
    return int(call)


@inlined
def close_call(quota: Quota, call: int) -> None:
    """A call that was not admitted is over."""
    quota.tally[k.USED] -= 1
    quota.items[k.FREE, quota.tally[k.USED]] = call


@inlined
def _count(quota: Quota, row: int, now: float, change: float) -> None:
    quota.series[row, bin_index(now, quota.rules[k.WIDTH], quota.series.shape[1])] += change


@inlined
def _set_waiting(quota: Quota, call: int, now: float, waits: int) -> None:
    """Whether a call waits for the quota, from now on."""
    if quota.items[k.WAITS, call] != waits:
        quota.items[k.WAITS, call] = waits
        _count(quota, k.WAIT_CHANGE, now, 1.0 if waits == 1 else -1.0)


@inlined
def _try(quota: Quota, call: int, now: float) -> bool:
    """Admit a call by the first endpoint that has enough left."""
    settle(quota, now)
    main = int(quota.rules[k.MAIN])
    for at in range(quota.endpoints.shape[0]):
        why = refusal(quota, at, call, now)
        if why == 0:
            admit(quota, at, call, now)
            waited = now - quota.numbers[k.OPENED, call]
            quota.waits[bucket(waited)] += 1
            quota.totals[k.WAITED] += waited
            return True
        if quota.endpoints[at, k.REFUSALS_COUNT] == 1.0 and quota.rules[k.QUEUE] == 0.0:
            quota.levels[at, k.REQUESTS] = max(0.0, quota.levels[at, k.REQUESTS] - 1.0)
        if at == main and (quota.rules[k.QUEUE] == 0.0 or quota.items[k.STATE, call] == k.PENDING):
            _count(quota, k.SHORT_OF_TOKENS + why - 1, now, 1.0)
    return False


@inlined
def _earliest(quota: Quota, call: int, now: float) -> float:
    """When an endpoint may admit a call: refilled, or after the next call has ended."""
    earliest = math.inf
    for at in range(quota.endpoints.shape[0]):
        earliest = min(earliest, ready_at(quota, at, call, now))
    if quota.tally[k.SETTLING] > 0:
        earliest = min(earliest, quota.times[1, 0])
    return float(max(earliest, now))


@inlined
def _repeat(quota: Quota, call: int, now: float) -> int:
    """A call was refused: its turn repeats it, or fails. Returns FAILED, or -1: undecided."""
    items, rules = quota.items, quota.rules
    _count(quota, k.REFUSALS, now, 1.0)
    tried = items[k.TRIED, call]
    if tried >= rules[k.RETRIES]:
        return k.FAILED
    items[k.TRIED, call] = tried + 1
    index = (items[k.REQUEST, call] * 32 + items[k.ATTEMPT, call]) * 32 + tried
    delay = min(rules[k.BACKOFF_CAP], rules[k.BACKOFF] * 2.0**tried) * uniform(quota.jitters, index)
    time = now + delay
    if rules[k.RETRY_AFTER] == 1.0:
        ready = ready_at(quota, int(rules[k.MAIN]), call, now)
        if ready < math.inf:
            time = ready + delay
    if time > quota.numbers[k.OPENED, call] + rules[k.WAIT_SECONDS]:
        return k.FAILED
    if time > quota.numbers[k.LEAVE_AT, call]:
        items[k.STATE, call] = k.LEAVING
        time = quota.numbers[k.LEAVE_AT, call]
    _set_waiting(quota, call, now, 1)
    _schedule(quota, time, call)
    return -1


@inlined
def _join(quota: Quota, call: int, now: float) -> int:
    """A call joins the queue, or fails: it is full, or no endpoint would admit it in time."""
    items = quota.items
    possible = False
    for at in range(quota.endpoints.shape[0]):
        possible = possible or fits(quota, at, call)
    if quota.rules[k.REFUSE_EARLY] == 1.0 and quota.endpoints.shape[0] == 1:
        settle(quota, now)
        wait = expected_wait(quota, call, quota.tally[k.WAITING], now)
        possible = possible and wait <= quota.rules[k.WAIT_SECONDS]
    if not possible or quota.tally[k.WAITING] >= quota.rules[k.QUEUED_MOST]:
        _count(quota, k.REFUSALS, now, 1.0)
        return k.FAILED
    _set_waiting(quota, call, now, 1)
    items[k.STATE, call] = k.QUEUED
    last = quota.tally[k.TAIL]
    items[k.EARLIER, call] = last
    items[k.LATER, call] = -1
    if quota.tally[k.WAITING] == 0:
        quota.tally[k.HEAD] = call
        quota.clock[k.QUEUE_AT] = _earliest(quota, call, now)
    else:
        items[k.LATER, last] = call
    quota.tally[k.TAIL] = call
    quota.tally[k.WAITING] += 1
    leave = quota.numbers[k.LEAVE_AT, call]
    _schedule(quota, min(leave, quota.numbers[k.OPENED, call] + quota.rules[k.WAIT_SECONDS]), call)
    return -1


@inlined
def _unqueue(quota: Quota, call: int, now: float) -> None:
    """Remove a call from the queue."""
    items, tally = quota.items, quota.tally
    tally[k.WAITING] -= 1
    if tally[k.WAITING] == 0:
        return
    if tally[k.HEAD] == call:
        tally[k.HEAD] = items[k.LATER, call]
        quota.clock[k.QUEUE_AT] = now
    elif tally[k.TAIL] == call:
        tally[k.TAIL] = items[k.EARLIER, call]
    else:
        items[k.LATER, items[k.EARLIER, call]] = items[k.LATER, call]
        items[k.EARLIER, items[k.LATER, call]] = items[k.EARLIER, call]


@compiled
def withdraw(quota: Quota, call: int, now: float) -> None:
    """A call that waits is given up."""
    if quota.items[k.STATE, call] == k.QUEUED:
        _unqueue(quota, call, now)
    _set_waiting(quota, call, now, 0)
    _unschedule(quota, call)
    close_call(quota, call)
    _update_next(quota)


@inlined
def _decide(quota: Quota, now: float) -> int:
    """Handle the next event; returns a call whose verdict it is, or -1."""
    items = quota.items
    if quota.tally[k.WAITING] > 0 and quota.clock[k.QUEUE_AT] <= now:
        call = quota.tally[k.HEAD]
        if _try(quota, call, now):
            _unschedule(quota, call)
            _unqueue(quota, call, now)
            items[k.VERDICT, call] = k.GRANTED
            return int(call)
        quota.clock[k.QUEUE_AT] = _earliest(quota, call, now)
        if quota.clock[k.QUEUE_AT] <= now:
            quota.clock[k.QUEUE_AT] = now + 1e-6
        return -1
    call = quota.calls[0, 0]
    _unschedule(quota, call)
    state = items[k.STATE, call]
    if state == k.QUEUED:
        _unqueue(quota, call, now)
        left = now >= quota.numbers[k.LEAVE_AT, call]
        items[k.VERDICT, call] = k.LEFT if left else k.FAILED
        return int(call)
    verdict = k.LEFT
    if state != k.LEAVING:
        queue = quota.rules[k.QUEUE] == 1.0
        if (not queue or quota.tally[k.WAITING] == 0) and _try(quota, call, now):
            verdict = k.GRANTED
        elif queue:
            verdict = _join(quota, call, now)
        else:
            verdict = _repeat(quota, call, now)
    items[k.VERDICT, call] = verdict
    return int(call) if verdict >= 0 else -1


@compiled
def next_call(quota: Quota, now: float) -> int:
    """Handle the event at `clock[NEXT]`.

    Returns:
        A call with its verdict in `items[VERDICT]`: GRANTED, in progress from now on; FAILED or
        LEFT, to be closed. -1: none is decided.
    """
    call = _decide(quota, now)
    if call >= 0:
        _set_waiting(quota, call, now, 0)
        if quota.items[k.VERDICT, call] == k.FAILED:
            _count(quota, k.FAILURES, now, 1.0)
    _update_next(quota)
    return call
