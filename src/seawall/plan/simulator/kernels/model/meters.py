"""What is left of each quota: refilled over time, taken at admission, settled at the end."""

import math

from seawall.plan.simulator.kernels import compiled, inlined
from seawall.plan.simulator.kernels.model import arrays as k
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.primitives import bin_index, pop, push

__all__ = ["admit", "expected_wait", "fits", "ready_at", "refusal", "settle"]

_TOKEN = 1e-6  # rounding


@inlined
def _refill(quota: Quota, at: int, now: float) -> None:
    """Refill the buckets of an endpoint, and take what calls in progress have produced."""
    rules, levels = quota.endpoints, quota.levels
    since = levels[at, k.UPDATED]
    if now <= since:
        return
    drain = levels[at, k.DRAIN]
    window = rules[at, k.WINDOW]
    fresh = False
    if window > 0.0:
        begun = rules[at, k.PHASE] + math.floor((now - rules[at, k.PHASE]) / window) * window
        if begun > since:
            fresh = True
            since = begun
    passed = now - since
    for meter in range(4):
        rate = rules[at, k.REQUEST_RATE + 2 * meter]
        if rate == math.inf:
            continue
        most = rules[at, k.REQUEST_BURST + 2 * meter]
        used = 0.0
        if meter == k.TOKENS:
            used = drain * rules[at, k.BURNDOWN]
        elif meter == k.OUTPUT:
            used = drain
        if window > 0.0:
            level = most if fresh else levels[at, k.REQUESTS + meter]
            levels[at, k.REQUESTS + meter] = level - passed * used
        else:
            level = levels[at, k.REQUESTS + meter] + passed * (rate - used)
            levels[at, k.REQUESTS + meter] = min(most, level)
    levels[at, k.UPDATED] = now


@inlined
def _counted_input(quota: Quota, at: int, call: int) -> float:
    """Input tokens that count."""
    tokens = quota.numbers[k.INPUT_TOKENS, call]
    if quota.endpoints[at, k.CACHED_COUNTS] == 0.0:
        tokens *= 1.0 - quota.rules[k.CACHED_SHARE]
    return float(tokens)


@inlined
def _charge(quota: Quota, at: int, call: int) -> float:
    """Tokens of the quota of input and output together that a call takes when admitted."""
    tokens = _counted_input(quota, at, call)
    if quota.endpoints[at, k.COUNTING] == k.PRODUCED:
        return tokens
    bound = quota.endpoints[at, k.BOUND]
    if quota.endpoints[at, k.GREATER] == 1.0:
        return float(max(tokens, bound))
    return float(tokens + bound)


@inlined
def refusal(quota: Quota, at: int, call: int, now: float) -> int:
    """Why an endpoint does not admit a call; 0: it does.

    Returns:
        1: tokens, 2: requests, 3: calls in progress.
    """
    _refill(quota, at, now)
    rules, levels = quota.endpoints, quota.levels
    if levels[at, k.CALLING] >= rules[at, k.CONCURRENT]:
        return 3
    if levels[at, k.REQUESTS] < 1.0 - _TOKEN:
        return 2
    if levels[at, k.TOKENS] < _charge(quota, at, call) - _TOKEN:
        return 1
    if levels[at, k.INPUT] < _counted_input(quota, at, call) - _TOKEN:
        return 1
    bound = rules[at, k.BOUND] if rules[at, k.COUNTING] != k.PRODUCED else 1.0
    return 1 if levels[at, k.OUTPUT] < bound - _TOKEN else 0


@inlined
def fits(quota: Quota, at: int, call: int) -> bool:
    """Whether an endpoint with full buckets would admit a call."""
    rules = quota.endpoints
    bound = rules[at, k.BOUND] if rules[at, k.COUNTING] != k.PRODUCED else 1.0
    return bool(
        rules[at, k.REQUEST_BURST] >= 1.0 - _TOKEN
        and rules[at, k.TOKEN_BURST] >= _charge(quota, at, call) - _TOKEN
        and rules[at, k.INPUT_BURST] >= _counted_input(quota, at, call) - _TOKEN
        and rules[at, k.OUTPUT_BURST] >= bound - _TOKEN
    )


@inlined
def ready_at(quota: Quota, at: int, call: int, now: float) -> float:
    """When an endpoint would admit a call if no other came and none ended; infinite: never."""
    _refill(quota, at, now)
    rules, levels = quota.endpoints, quota.levels
    if levels[at, k.CALLING] >= rules[at, k.CONCURRENT] or not fits(quota, at, call):
        return math.inf
    drain = levels[at, k.DRAIN]
    bound = rules[at, k.BOUND] if rules[at, k.COUNTING] != k.PRODUCED else 1.0
    latest = now
    for meter in range(4):
        rate = rules[at, k.REQUEST_RATE + 2 * meter]
        if rate == math.inf:
            continue
        need, used = 1.0, 0.0
        if meter == k.TOKENS:
            need, used = _charge(quota, at, call), drain * rules[at, k.BURNDOWN]
        elif meter == k.INPUT:
            need = _counted_input(quota, at, call)
        elif meter == k.OUTPUT:
            need, used = bound, drain
        short = need - levels[at, k.REQUESTS + meter]
        if short <= _TOKEN:
            continue
        window = rules[at, k.WINDOW]
        if window > 0.0:
            phase = rules[at, k.PHASE]
            time = phase + (math.floor((now - phase) / window) + 1.0) * window
        elif rate <= used:
            return math.inf
        else:
            time = now + short / (rate - used) + 1e-9
        latest = max(latest, time)
    return float(latest)


@inlined
def expected_wait(quota: Quota, call: int, ahead: int, now: float) -> float:
    """Seconds until the only endpoint admits a call behind others.

    Those ahead use what a call typically uses, and what calls in progress have reserved beyond that
    is returned, as Seawall's own quotas reckon.
    """
    _refill(quota, 0, now)
    rules, levels = quota.endpoints, quota.levels
    charge, typical = _charge(quota, 0, call), quota.rules[k.TYPICAL]
    each = charge if rules[0, k.COUNTING] == k.ESTIMATE else min(charge, typical)
    short = charge - levels[0, k.TOKENS] + ahead * each
    if rules[0, k.COUNTING] == k.RESERVE:
        short -= max(0.0, levels[0, k.RESERVED_NOW] - levels[0, k.CALLING] * typical)
    longest = max(0.0, short / rules[0, k.TOKEN_RATE]) if rules[0, k.TOKEN_RATE] < math.inf else 0.0
    if rules[0, k.REQUEST_RATE] < math.inf:
        short = 1.0 + ahead - levels[0, k.REQUESTS]
        longest = max(longest, short / rules[0, k.REQUEST_RATE])
    return float(longest)


@inlined
def admit(quota: Quota, at: int, call: int, now: float) -> None:
    """Take what a call needs; its end is scheduled. The endpoint must be refilled until now."""
    rules, levels, numbers = quota.endpoints, quota.levels, quota.numbers
    output = min(numbers[k.OUTPUT_TOKENS, call], rules[at, k.BOUND])
    numbers[k.OUTPUT_TOKENS, call] = output
    charge = _charge(quota, at, call)
    numbers[k.RESERVED, call] = charge
    levels[at, k.REQUESTS] -= 1.0
    levels[at, k.TOKENS] -= charge
    levels[at, k.INPUT] -= _counted_input(quota, at, call)
    levels[at, k.CALLING] += 1.0
    levels[at, k.RESERVED_NOW] += charge
    end = min(now + numbers[k.SECONDS, call] * rules[at, k.SLOWER], numbers[k.CUT_AT, call])
    end = max(now, end)
    numbers[k.DRAINING, call] = 0.0
    if rules[at, k.COUNTING] != k.PRODUCED:
        levels[at, k.OUTPUT] -= rules[at, k.BOUND]
    elif end > now:
        numbers[k.DRAINING, call] = output / (end - now)
        levels[at, k.DRAIN] += numbers[k.DRAINING, call]
    numbers[k.ADMITTED_AT, call] = now
    quota.items[k.ENDPOINT, call] = at
    quota.items[k.STATE, call] = k.ADMITTED
    quota.tally[k.SETTLING] = push(
        quota.times[1], quota.calls[1], quota.tally[k.SETTLING], end, call
    )
    bins = quota.series.shape[1]
    here = bin_index(now, quota.rules[k.WIDTH], bins)
    quota.series[k.BEGUN, here] += 1.0
    quota.series[k.RESERVED_CHANGE, here] += charge
    quota.totals[k.RESERVED_SUM] += charge
    if at > quota.rules[k.MAIN]:
        quota.series[k.ON_FALLBACK, here] += 1.0
        quota.totals[k.FALLBACK_INPUT] += numbers[k.INPUT_TOKENS, call]
        quota.totals[k.FALLBACK_OUTPUT] += output
    elif at < quota.rules[k.MAIN]:
        quota.series[k.ON_PROVISIONED, here] += 1.0


@inlined
def _end(quota: Quota, call: int, now: float) -> None:
    """A call ends: the unused part of its reservation is returned, or more is taken."""
    at = quota.items[k.ENDPOINT, call]
    _refill(quota, at, now)
    rules, levels, numbers = quota.endpoints, quota.levels, quota.numbers
    output = numbers[k.OUTPUT_TOKENS, call]
    counted = _counted_input(quota, at, call) + rules[at, k.BURNDOWN] * output
    levels[at, k.CALLING] -= 1.0
    levels[at, k.RESERVED_NOW] -= numbers[k.RESERVED, call]
    if rules[at, k.COUNTING] == k.PRODUCED:
        left = levels[at, k.DRAIN] - numbers[k.DRAINING, call]
        # Sums of fractions do not return to 0 by themselves.
        levels[at, k.DRAIN] = left if levels[at, k.CALLING] > 0.0 else 0.0
    elif rules[at, k.COUNTING] == k.RESERVE:
        window = rules[at, k.WINDOW]
        same = True
        if window > 0.0:  # what was taken from another window is not returned to this one
            phase = rules[at, k.PHASE]
            then = math.floor((numbers[k.ADMITTED_AT, call] - phase) / window)
            same = then == math.floor((now - phase) / window)
        if same:
            back = numbers[k.RESERVED, call] - counted
            most = rules[at, k.TOKEN_BURST]
            levels[at, k.TOKENS] = min(most, levels[at, k.TOKENS] + back)
            back = rules[at, k.BOUND] - output
            most = rules[at, k.OUTPUT_BURST]
            levels[at, k.OUTPUT] = min(most, levels[at, k.OUTPUT] + back)
    bins = quota.series.shape[1]
    here = bin_index(now, quota.rules[k.WIDTH], bins)
    quota.series[k.COUNTED, here] += counted
    quota.series[k.RESERVED_CHANGE, here] -= numbers[k.RESERVED, call]
    quota.totals[k.INPUT_SUM] += numbers[k.INPUT_TOKENS, call]
    quota.totals[k.OUTPUT_SUM] += output
    quota.tally[k.USED] -= 1
    quota.items[k.FREE, quota.tally[k.USED]] = call


@compiled
def settle(quota: Quota, now: float) -> None:
    """Settle the calls that have ended."""
    while quota.tally[k.SETTLING] > 0 and quota.times[1, 0] <= now:
        end = quota.times[1, 0]
        call = quota.calls[1, 0]
        quota.tally[k.SETTLING] = pop(quota.times[1], quota.calls[1], quota.tally[k.SETTLING])
        _end(quota, call, end)
