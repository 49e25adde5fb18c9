"""Rolling quantile, compared with the standard library's."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.resilience import RollingQuantile


@given(st.lists(st.floats(0, 100), min_size=30, max_size=600))
def test_it_is_the_quantile_of_the_last_values(values: list[float]) -> None:
    running = RollingQuantile(0.95)
    for value in values:
        running.add(value)
    last = values[-256:]
    assert running.value is not None
    assert sum(value <= running.value for value in last) >= 0.95 * len(last)
    assert sum(value < running.value for value in last) <= 0.95 * len(last)


def test_it_is_near_the_inclusive_quantile_of_the_standard_library() -> None:
    running = RollingQuantile(0.9)
    values = [float(n * 7919 % 256) for n in range(256)]
    for value in values:
        running.add(value)
    expected = statistics.quantiles(values, n=10, method="inclusive")[-1]
    assert running.value == pytest.approx(expected, abs=1.0)


def test_no_quantile_of_a_few_values() -> None:
    running = RollingQuantile(0.5)
    for value in range(29):
        running.add(float(value))
    assert running.value is None
