"""Adaptive concurrency limit, driven by a queue of known capacity."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.resilience import GradientLimit


def answer(limit: GradientLimit, capacity: int, *, demand: int) -> float:
    """One answer of an upstream that serves `capacity` calls at full speed, slower beyond."""
    in_flight = min(limit.limit, demand)
    latency = 0.5 * max(1.0, in_flight / capacity)
    limit.sample(latency, in_flight=in_flight)
    return latency


def test_it_begins_at_its_maximum() -> None:
    assert GradientLimit(minimum=8, maximum=8_192).limit == 8_192


def test_it_finds_the_knee_of_an_upstream_that_slows_down() -> None:
    limit = GradientLimit(minimum=8, maximum=5_000)
    for _ in range(100):
        answer(limit, 200, demand=100)
    latencies = [answer(limit, 200, demand=5_000) for _ in range(60_000)]
    # It settles where calls take about three times as long as usual, not where they take 25 times.
    assert 400 <= limit.limit <= 800
    assert max(latencies[-20_000:]) < 2.1


def test_calls_sent_together_count_as_one_sample() -> None:
    limit = GradientLimit(minimum=8, maximum=8_192)
    for _ in range(100):
        limit.sample(0.4, in_flight=100)
    for left in range(2_500, 0, -1):  # a crowd, which its upstream takes ten times as long for
        limit.sample(4.0, in_flight=max(left, 1_250))
    assert limit.limit > 4_096


def test_the_baseline_is_learned_anew_when_the_upstream_slows_down() -> None:
    limit = GradientLimit(minimum=8, maximum=1_000)
    for _ in range(100):
        limit.sample(0.2, in_flight=300)
    lowest = limit.limit
    for _ in range(16_000):
        limit.sample(5.0, in_flight=min(300, limit.limit))
        lowest = min(lowest, limit.limit)
    assert lowest < 30
    assert limit.limit >= 300


def test_it_grows_back_after_congestion() -> None:
    limit = GradientLimit(minimum=8, maximum=1_000)
    for _ in range(100):
        answer(limit, 500, demand=100)
    for at in range(40):
        limit.record_drop(in_flight=limit.limit, at=float(at))
    assert limit.limit == 8
    for _ in range(20_000):
        answer(limit, 500, demand=2_000)
    assert limit.limit > 400


def test_an_unused_limit_does_not_grow() -> None:
    limit = GradientLimit(minimum=8, maximum=1_000)
    limit.record_drop(in_flight=100, at=0.0)
    assert limit.limit == 70
    for _ in range(100):
        limit.sample(0.5, in_flight=3)
    assert limit.limit == 70


def test_calls_throttled_together_shrink_it_once() -> None:
    limit = GradientLimit(minimum=8, maximum=1_000)
    for _ in range(50):
        limit.record_drop(in_flight=500, at=0.0)
    assert limit.limit == 350


def test_after_an_outage_it_begins_low_and_rises_fast() -> None:
    limit = GradientLimit(minimum=8, maximum=8_000)
    for _ in range(100):
        limit.sample(0.5, in_flight=400)
    limit.restart(was=400)
    assert limit.limit == 100
    for _ in range(100):
        limit.sample(0.5, in_flight=limit.limit)
    assert 190 <= limit.limit <= 210


@given(st.lists(st.tuples(st.floats(1e-6, 1e4), st.integers(0, 10_000), st.booleans())))
def test_it_stays_within_its_bounds(samples: list[tuple[float, int, bool]]) -> None:
    limit = GradientLimit(minimum=4, maximum=900)
    for at, (latency, in_flight, dropped) in enumerate(samples):
        if dropped:
            limit.record_drop(in_flight=in_flight, at=float(at))
        else:
            limit.sample(latency, in_flight=in_flight)
        assert 4 <= limit.limit <= 900


def test_a_latency_of_zero() -> None:
    limit = GradientLimit(minimum=8, maximum=1_000)
    for latency in (0.0, 0.0, 0.0004, 0.0):  # the event loop's clock may tick in milliseconds
        limit.sample(latency, in_flight=500)
    assert limit.limit == 1_000


def test_a_drop_with_few_calls_in_flight_is_ignored() -> None:
    limit = GradientLimit(minimum=8, maximum=5_000)
    limit.record_drop(in_flight=1, at=0.0)
    limit.record_drop(in_flight=8, at=10.0)
    assert limit.limit == 5_000
    limit.record_drop(in_flight=9, at=20.0)
    assert limit.limit == 8


def test_it_rises_fast_beyond_the_last_throttled_limit() -> None:
    """One call throttled at 100 in flight; all further ones have the baseline latency."""
    limit = GradientLimit(minimum=8, maximum=5_000)
    for _ in range(100):
        limit.sample(0.3, in_flight=100)
    limit.record_drop(in_flight=100, at=0.0)
    rounds = 0
    while limit.limit < 100:
        rounds += 1
        for _ in range(in_flight := limit.limit):
            limit.sample(0.3, in_flight=in_flight)
    assert rounds >= 5  # carefully, up to where it was
    while limit.limit < 2_000:
        rounds += 1
        for _ in range(in_flight := limit.limit):
            limit.sample(0.3, in_flight=in_flight)
    assert rounds <= 20
