"""Checks for CI: title, words, exit status and comment agree."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.cli.main import main
from seawall.plan.decision.check import CheckResult
from seawall.plan.inputs.question import Objective
from seawall.plan.output.comment import MARK, format_comment
from seawall.plan.output.terminal import format_check
from tests.properties import examples

FILE = """
[arrivals]
daily = "20000"
spikes = ["400@20s"]
[service]
duration = "2s..4s"
start = "1s"
[objective]
first_token_p99 = {first}
[options]
platforms = ["lambda", "ecs-ec2", "eks"]
[deployed]
platform = "eks"
pods = {pods}
cores = 0.4
{check}
"""

RESULT = CheckResult(
    holds=True, title="EKS meets the objective", met=True, misses=(), platform="eks",
    words=("6 pods",), monthly_cost=334.0, whole_cost=100_973.0, model_title="Claude",
    first_token_p99=3.36, latency_p99=7.5, error_share=0.0,
    first_limit="", objective=Objective(),
    region="us-east-1", currency="USD", prices_date="2026-11-25",
)  # fmt: skip


def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *flags: str, pods: int = 2,
    first: float = 5.0, check: str = "",
) -> tuple[int, str]:  # fmt: skip
    file = tmp_path / "plan.toml"
    file.write_text(FILE.format(pods=pods, first=first, check=check), encoding="utf-8")
    status = main(["plan", "--check", str(file), *flags])
    out, error = capsys.readouterr()
    return status, out or error


@pytest.mark.parametrize(
    "case",
    [
        (5.0, "", 0, "PASSED: EKS meets the objective"),
        (0.5, "", 1, "FAILED: EKS misses the objective"),
        (5.0, '[check]\nchoice = "eks"', 1, "FAILED: EKS meets the objective, but the"),
        (0.5, '[check]\nchoice = "eks"', 1, "FAILED: EKS misses the objective, and the"),
    ],
)
def test_title_status_and_words_agree(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, case: tuple[float, str, int, str]
) -> None:
    first, check, status, title = case
    found, out = run(capsys, tmp_path, first=first, check=check)
    assert found == status
    assert out.startswith(title)
    assert ("\n  - " in out) == (status == 1)
    found, out = run(capsys, tmp_path, "--json", first=first, check=check)
    result = msgspec.json.decode(out, type=CheckResult)
    assert found == status
    assert result.holds == (status == 0)
    assert result.met == (first == 5.0)
    assert bool(result.misses) == (not result.holds)
    assert out == json.dumps(json.loads(out), separators=(",", ":")) + "\n"


def test_a_comment_compares_with_the_state_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, before = run(capsys, tmp_path, "--json", pods=4)
    baseline = tmp_path / "before.json"
    baseline.write_text(before, encoding="utf-8")
    status, out = run(capsys, tmp_path, "--markdown", "--baseline", str(baseline))
    again = run(capsys, tmp_path, "--markdown", "--baseline", str(baseline))
    assert (status, out) == again, "the same text each time"
    lines = out.splitlines()
    assert lines[0] == MARK
    assert lines[1] == "### Plan: EKS meets the objective"
    rows = [line for line in lines if line.startswith("| ")]
    assert rows[0] == "| | before | after | change |"
    assert {line.count("|") for line in rows} == {5}
    assert re.search(r"platform, a month \| \$\d+ \| \$\d+ \| -\$\d+ \(-[\d.]+ %\)", out)
    assert re.search(r"configuration \| EKS: 4 pods .* \| EKS: 2 pods .* \| changed", out)
    _, plain = run(capsys, tmp_path, "--markdown")
    assert "| | |" in plain
    assert "before" not in plain


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--baseline", "b.json"], "--baseline: only with --markdown"),
        (["--markdown", "--json"], "--json: not with --markdown"),
        (["--markdown", "--baseline", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--explain", "eks"], "--explain: not with --check"),
    ],
)
def test_flags_that_do_not_fit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    status, error = run(capsys, tmp_path, *flags)
    assert status == 2
    assert message in error
    assert main(["plan", "--markdown"]) == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": "seawall.plan/2"}', "\xff"])
def test_a_baseline_that_is_something_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "other.json"
    file.write_text(text, encoding="latin-1")
    status, error = run(capsys, tmp_path, "--markdown", "--baseline", str(file))
    assert status == 2
    assert "other.json: not the output of seawall plan --check FILE --json" in error


@given(
    words=st.text(max_size=30), miss=st.text(max_size=30),
    cost=st.floats(0, 1e9), old=st.floats(0, 1e9), first=st.none() | st.floats(1e-3, 1e3),
)  # fmt: skip
@examples(40, 1_000)
def test_a_comment_is_a_table_whatever_is_in_it(
    words: str, miss: str, cost: float, old: float, first: float | None
) -> None:
    after = structs.replace(
        RESULT, words=(words,), misses=(miss,), monthly_cost=cost, first_token_p99=first
    )
    text = format_comment(after, structs.replace(RESULT, monthly_cost=old))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 8
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert "<" not in text.replace(MARK, "").replace("\\<", "")
    assert format_check(after).startswith("PASSED: ")
