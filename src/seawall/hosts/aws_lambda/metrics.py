"""Metrics of turns as log lines in CloudWatch's embedded metric format.

CloudWatch extracts the metrics from the log, so no call is made and nothing is awaited:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

__all__ = ["METRICS", "metric_line", "metric_observer"]

NAMESPACE = "Seawall"
METRICS = {
    "Completed": "Count",
    "Failed": "Count",
    "Refused": "Count",
    "FirstText": "Milliseconds",
    "Total": "Milliseconds",
    "PromptTokens": "Count",
    "CompletionTokens": "Count",
    "Cost": "None",
}
"""Names and units. The line of a turn has only those that apply to it."""

_REFUSED = frozenset({"overloaded", "budget-exhausted", "upstream-throttled"})


def metric_line(report: Any, function: str, now: float) -> bytes:  # noqa: ANN401
    """The log line of a turn.

    Outcome and agent are properties, which can be searched without being metrics of their own.

    Args:
        report: A `TurnReport`.
        function: Name of the function.
        now: Unix time.
    """
    outcome = report.outcome
    values: dict[str, float] = {
        "Completed": int(outcome == "completed"),
        "Refused": int(outcome in _REFUSED),
        "Failed": int(not (report.succeeded or outcome == "cancelled" or outcome in _REFUSED)),
        "Total": report.timings.get("total", 0.0),
    }
    if "first_text" in report.timings:
        values["FirstText"] = report.timings["first_text"]
    if outcome == "completed":
        values["PromptTokens"] = report.usage.prompt_tokens
        values["CompletionTokens"] = report.usage.completion_tokens
    if report.currency:
        values["Cost"] = sum(each.cost for each in report.spent.values()) / 1e9
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Function"]],
        "Metrics": [{"Name": name, "Unit": METRICS[name]} for name in values],
    }
    return msgspec.json.encode(
        {
            "_aws": {"Timestamp": int(now * 1e3), "CloudWatchMetrics": [directive]},
            "Function": function,
            "outcome": outcome,
            "agent": report.agent,
            **values,
        }
    )


def metric_observer(environment: Mapping[str, str]) -> Callable[[Any], None]:
    """An observer that writes the line of each finished turn to standard output."""
    function = environment.get("AWS_LAMBDA_FUNCTION_NAME", "")

    def observe(report: Any) -> None:  # noqa: ANN401 - a TurnReport, not imported by the runtime
        sys.stdout.write(metric_line(report, function, time.time()).decode() + "\n")
        sys.stdout.flush()

    return observe
