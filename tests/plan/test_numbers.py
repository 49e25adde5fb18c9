"""Numbers as text: by examples and by properties; test_charts has those on the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.plan.decision.numbers import amount, by_times, money, price, seconds, share, within
from tests.properties import examples


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (amount(1_200_000), "1,200,000"),
        (amount(3.364), "3.36"),
        (amount(0.5), "0.5"),
        (money(333.66), "$334"),
        (money(0.118), "$0.12"),
        (money(-27_116.1), "-$27,116"),
        (money(0.001), "under $0.01"),
        (money(12.0, "EUR"), "EUR 12"),
        (seconds(0.15), "150 ms"),
        (seconds(3.364), "3.36 s"),
        (seconds(1_200.0), "20 min"),
        (seconds(None), "-"),
        (share(0.717), "71.7 %"),
        (share(0.0033), "0.33 %"),
        (share(0.99996), "over 99.9 %"),
        (share(0.00001), "under 0.01 %"),
        (share(1.0), "100 %"),
        (price(0.0000133334), "0.0000133334"),
        (by_times(1.284), "1.28"),
        (by_times(1.0036), "under 1.01"),
        (by_times(1.0), "1"),
        (within(3.364, 0.061, "seconds"), "3.36 ± 0.06 s"),
        (within(0.7004, 0.0041, "share"), "70.0 ± 0.4 %"),
        (within(1_343.2, 4.4, "count"), "1,343 ± 4"),
        (within(3.364, 0.0001, "seconds"), "3.36 s"),
        (within(None, None, "share"), "-"),
    ],
)
def test_examples(written: str, text: str) -> None:
    assert written == text


@given(st.floats(1e-6, 1e12))
@examples(100, 1_000)
def test_an_amount_is_right_to_half_a_per_cent(value: float) -> None:
    text = amount(value)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.00501)
    assert len(text.replace(",", "").replace(".", "").lstrip("0")) <= max(3, len(f"{value:.0f}"))


@given(st.floats(0.0, 1.0))
@examples(66, 1_000)
def test_only_all_is_all_and_only_none_is_none(value: float) -> None:
    assert (share(value) == "100 %") == (value == 1.0)
    assert (share(value) == "0 %") == (value == 0.0)
