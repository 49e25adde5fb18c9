"""Quotas, concurrency limit and slowdown of a simulated provider."""

import math

from hypothesis import given
from hypothesis import strategies as st

from seawall.lab.sim_model.limits import LimitExceeded, Limits, SimLimits

pauses = st.lists(st.floats(0, 30, allow_nan=False), max_size=100)


@given(st.integers(1, 500), pauses)
def test_admitted_requests_never_exceed_bucket_and_refill(rate: int, pauses: list[float]) -> None:
    limits, now, admitted = Limits(SimLimits(requests_per_minute=rate)), 0.0, []
    for pause in pauses:
        now += pause
        if limits.admit(0, now) is None:
            admitted.append(now)
    for index, begin in enumerate(admitted):
        for number, end in enumerate(admitted[index:], start=1):
            assert number <= rate + (end - begin) * rate / 60 + 1e-6


@given(st.integers(1, 500), st.integers(1, 600), pauses)
def test_a_request_is_admitted_after_the_reported_wait(
    rate: int, tokens: int, pauses: list[float]
) -> None:
    limits, now = Limits(SimLimits(tokens_per_minute=rate)), 0.0
    for pause in pauses:
        now += pause
        refused = limits.admit(tokens, now)
        if refused is None:
            continue
        assert refused.limit == "tokens-per-minute"
        if tokens > rate:
            assert refused.seconds == math.inf
            continue
        assert limits.admit(tokens, now + refused.seconds * 0.9) is not None
        now += refused.seconds + 1e-6
        assert limits.admit(tokens, now) is None


def test_a_refused_request_is_charged_nothing() -> None:
    limits = Limits(SimLimits(requests_per_minute=60, tokens_per_minute=600))
    assert limits.admit(600, 0.0) is None
    assert limits.admit(10, 0.5) == LimitExceeded("tokens-per-minute", 0.5)
    left = limits.quotas(0.5)
    assert (left["requests"].remaining, left["requests"].limit) == (59, 60)
    assert left["tokens"].remaining == 5
    assert left["tokens"].reset == 59.5


def test_concurrency_and_stretch() -> None:
    limits = Limits(SimLimits(slow_above=4, max_concurrent=12))
    assert limits.stretch() == 1
    limits.open = 4
    assert limits.stretch() == 1
    limits.open = 12
    assert limits.stretch() == 3
    assert limits.admit(1, 0.0) == LimitExceeded("max-concurrent", 1.0)
    limits.open = 11
    assert limits.admit(1, 0.0) is None
    assert limits.quotas(0.0) == {}


def test_bedrocks_rule_reserves_the_bound_and_returns_what_was_not_used() -> None:
    """2 M a minute and 500 of input: https://github.com/aws/agent-toolkit-for-aws, quota-health."""
    rules = SimLimits(tokens_per_minute=2_000_000, reserve="input+max_tokens", burndown=5.0)
    for bound, calls in ((64_000, 31), (0, 31), (1_000, 1_333)):
        limits = Limits(rules)
        charge = limits.charge(500, bound)
        admitted = 0
        while limits.admit(charge.tokens, 0.0) is None:
            admitted += 1
        assert admitted == calls
        before = limits.quotas(0.0)["tokens"].remaining
        limits.settle(charge, 100, 0.0)
        after = limits.quotas(0.0)["tokens"].remaining
        assert after - before == charge.tokens - (500 + 5 * 100)


def test_the_larger_of_prompt_and_bound_is_kept() -> None:
    limits = Limits(SimLimits(tokens_per_minute=1_000))
    charge = limits.charge(200, 700)
    assert limits.admit(charge.tokens, 0.0) is None
    limits.settle(charge, 10, 0.0)
    assert limits.quotas(0.0)["tokens"].remaining == 300
