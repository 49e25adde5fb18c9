"""Metrics of turns as lines of a function's log."""

import json

from seawall.budgets import ModelSpend
from seawall.hosts.aws_lambda.metrics import METRICS, metric_line
from seawall.turn import TurnReport, Usage


def line(report: TurnReport) -> dict[str, object]:
    found: dict[str, object] = json.loads(metric_line(report, "shop", 1_700_000_000.0))
    return found


def test_a_turn_is_counted_in_the_embedded_metric_format() -> None:
    report = TurnReport("trn_1", outcome="completed", agent="one", usage=Usage(10, 4, 1))
    report.timings = {"total": 120.5, "first_text": 80.0}
    report.spent, report.currency = {"m": ModelSpend(Usage(10, 4, 1), 2_000_000)}, "USD"
    entry = line(report)
    aws = entry["_aws"]
    assert isinstance(aws, dict)
    assert aws["Timestamp"] == 1_700_000_000_000
    (directive,) = aws["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Function"]]
    names = {each["Name"]: each["Unit"] for each in directive["Metrics"]}
    assert names == METRICS
    # Every metric and every dimension has its member beside, as the format requires.
    assert entry["Function"] == "shop"
    assert all(isinstance(entry[name], int | float) for name in names)
    assert entry["FirstText"] == 80.0
    assert entry["Cost"] == 0.002


def test_outcomes_of_turns() -> None:
    for outcome, counted in (
        ("completed", "Completed"),
        ("overloaded", "Refused"),
        ("upstream-failed", "Failed"),
    ):
        entry = line(TurnReport("trn_1", outcome=outcome))
        ended = {name: entry[name] for name in ("Completed", "Refused", "Failed")}
        assert ended == {name: int(name == counted) for name in ended}
    for outcome in ("replayed", "cancelled", "paused", "person"):  # not failures
        assert line(TurnReport("trn_1", outcome=outcome))["Failed"] == 0
