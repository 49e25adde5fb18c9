"""Numbers as text: by examples, by properties, and the same in Python and on the page."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.plan.decision.numbers import amount, by_times, money, price, seconds, share, within
from seawall.plan.output.charts import page
from tests.plan.browser import visit

VALUES = (
    0.0, 1e-9, 0.00123, 0.0333, 0.1, 0.12345, 0.4999, 0.5, 0.9, 0.9994, 0.9995, 1.0, 1.005, 3.364,
    9.994, 9.996, 10.4, 11.74, 59.95, 99.94, 99.96, 100.4, 123.5, 599.9, 600.0, 6_001.0, 12_345.6,
    1_234_567.8, 0.717, 0.99949, 0.9996, 0.00005,
)  # fmt: skip


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
@settings(max_examples=300, deadline=None)
def test_an_amount_is_right_to_half_a_per_cent(value: float) -> None:
    text = amount(value)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.00501)
    assert len(text.replace(",", "").replace(".", "").lstrip("0")) <= max(3, len(f"{value:.0f}"))


@given(st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None)
def test_only_all_is_all_and_only_none_is_none(value: float) -> None:
    assert (share(value) == "100 %") == (value == 1.0)
    assert (share(value) == "0 %") == (value == 0.0)


def test_the_page_writes_numbers_alike(tmp_path: Path) -> None:
    script = f"""
    const values = {json.dumps(VALUES)};
    found.amount = values.map(count);
    found.seconds = values.map(seconds);
    found.share = values.filter((each) => each <= 1).map(percent);
    found.money = values.map((each) => moneyIn("USD", each));
    found.euros = values.map((each) => moneyIn("EUR", -each));
    """
    (found,) = visit(page("Numbers", "", []), [(script, 800)], tmp_path)
    assert found["amount"] == [amount(each) for each in VALUES]
    assert found["seconds"] == [seconds(each) for each in VALUES]
    assert found["share"] == [share(each) for each in VALUES if each <= 1]
    assert found["money"] == [money(each) for each in VALUES]
    assert found["euros"] == [money(-each, "EUR") for each in VALUES]
