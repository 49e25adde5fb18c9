"""Quantities with units: the same in flags and in files, and refused where they are ambiguous."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.plan.inputs.notation import (
    in_unit,
    parse_amount,
    parse_money,
    parse_seconds,
    parse_share,
    parse_size,
)
from seawall.plan.inputs.prices import parse_discounts
from seawall.plan.inputs.question_file import read_question
from seawall.plan.inputs.workload_file import read_workload


@given(percent=st.integers(0, 100))
def test_a_share_as_it_is_said_and_as_it_is_computed(percent: int) -> None:
    for text in (f"{percent}%", f"{percent} %", repr(percent / 100) if percent < 100 else "100%"):
        assert parse_share(text, "x") == pytest.approx(percent / 100)
    if percent:
        assert parse_share(str(percent), "x") == percent / 100  # --errors 1, ec2=28
        if percent < 100:
            assert parse_discounts([f"ec2={percent}"]) == {"ec2": percent / 100}


@pytest.mark.parametrize("text", ["0.1", "0.5", ".9", "0.28", "0.10"])
def test_half_of_one_is_ambiguous_where_it_may_be_half_a_per_cent(text: str) -> None:
    value = float(text)
    with pytest.raises(ConfigError) as raised:
        parse_share(text, "--errors", ambiguous=0.1)
    assert str(raised.value) == (
        f"--errors: {text!r} is ambiguous; write {value:g}% or {100 * value:g}%"
    )
    assert parse_discounts([f"spot={text}"]) == {"spot": value}


@given(amount=st.integers(0, 10**9), cents=st.integers(0, 99))
def test_money(amount: int, cents: int) -> None:
    number = f"{amount}.{cents:02}"
    for text in (number, f"${number}", f"{number} USD", f"usd {number}", f"${amount:,}.{cents:02}"):
        assert parse_money(text, "x", "USD") == pytest.approx(amount + cents / 100)
    assert parse_money(f"€{number}", "x", "EUR") == pytest.approx(amount + cents / 100)
    with pytest.raises(ConfigError, match="is not in USD, as the prices are"):
        parse_money(f"{number} EUR", "x", "USD")


@given(seconds=st.integers(0, 10**7))
def test_times_in_parts_and_in_words(seconds: int) -> None:
    minutes, rest = divmod(seconds, 60)
    hours, left = divmod(minutes, 60)
    written = (f"{minutes}m{rest}s", f"{hours}h {left}min {rest}sec", f"{seconds * 1000}ms")
    for text in (*written, f"{seconds} seconds", f"{seconds}S", str(seconds)):
        assert parse_seconds(text, "x") == pytest.approx(seconds)
    assert in_unit(str(seconds), "ms", "x") == pytest.approx(seconds)
    assert in_unit(f"{seconds}s", "ms", "x") == pytest.approx(1_000 * seconds)
    assert in_unit(f"{seconds}s", "min", "x") == pytest.approx(seconds / 60)


@given(size=st.integers(0, 10**6))
def test_sizes(size: int) -> None:
    for text in (f"{size}MB", f"{size} MiB", f"{size / 1024!r}GB", f"{size * 1024}KB", str(size)):
        assert parse_size(text, "x", "MB") == pytest.approx(size)
    assert parse_size(f"{size}KB", "x", "KB") == parse_size(str(size), "x", "KB") == size


@pytest.mark.parametrize(
    ("unit", "text", "words"),
    [
        (
            "",
            "1,5",
            "x: '1,5' is not a number such as 1200000 or 1.2M; write decimals with a point",
        ),
        ("", "1.200.000", "x: '1.200.000' is not a number"),
        ("money", "1,5k", "x: '1,5k' is not a number such as"),
        ("money", "lots", "x: 'lots' is not an amount such as 500"),
        ("money", "$", "x: '$' is not an amount"),
        ("money", "$5 EUR", "x: '$5 EUR' is not in USD"),
        ("money", "-5", "x: '-5' is negative"),
        ("share", "101", "x: '101' is not from 0 to 100 per cent"),
        ("share", "-1%", "x: '-1%' is not from 0 to 100 per cent"),
        ("share", "%", "x: '%' is not a share"),
        ("MB", "5s", "x: '5s' is not a size such as 512MB"),
        ("KB", "-5KB", "x: '-5KB' is negative"),
        ("s", "5MB", "x: '5MB' is not a time"),
        ("s", "1m30", "x: '1m30' is not a time"),
        ("s", "1.5.5s", "x: '1.5.5s' is not a number"),
    ],
)
def test_what_is_no_quantity_is_refused(unit: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        in_unit(text, unit, "x")
    assert str(raised.value).startswith(words)
    with pytest.raises(ConfigError):
        parse_amount(f"{text} things", "x")


def test_a_file_may_write_every_number_with_its_unit(tmp_path: Path) -> None:
    with_units, bare = tmp_path / "units.toml", tmp_path / "bare.toml"
    with_units.write_text("""
        [arrivals]
        daily = "1.2M"
        [service]
        memory_mb = "0.5GB"
        memory_kb_in_flight = "1MB"
        stages = [{ name = "all", seconds = "2s", cpu_ms = "5ms", model = true }]
        [clients]
        backoff = "250ms"
        backoff_cap = "1m"
        patience = "1m30s"
        [objective]
        first_token_p99 = "4s"
        latency_p99 = "20s"
        error_share = "1%"
        monthly_cost = "$1.5k"
        [options]
        lead_minutes = "0.5h"
        account_limit = "5k"
        [each]
        input_tokens = "1.5k"
        log_kb = "2KB"
        [levers]
        batch = "25%"
        [deployed]
        platform = "lambda"
        memory_mb = "1GB"
    """)
    bare.write_text("""
        [arrivals]
        daily = 1_200_000
        [service]
        memory_mb = 512
        memory_kb_in_flight = 1024
        stages = [{ name = "all", seconds = 2, cpu_ms = 5, model = true }]
        [clients]
        backoff = 0.25
        backoff_cap = 60
        patience = 90
        [objective]
        first_token_p99 = 4
        latency_p99 = 20
        error_share = 1
        monthly_cost = 1500
        [options]
        lead_minutes = 30
        account_limit = 5000
        [each]
        input_tokens = 1500
        log_kb = 2
        [levers]
        batch = 0.25
        [deployed]
        platform = "lambda"
        memory_mb = 1024
    """)
    assert read_question(with_units) == read_question(bare)
    assert read_question(bare).question.objective.error_share == 0.01
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[clients]\npatience = "5MB"\n')
    with pytest.raises(ConfigError, match=r"wrong\.toml: clients\.patience: '5MB' is not a time"):
        read_workload(wrong)
