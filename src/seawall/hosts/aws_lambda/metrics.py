"""Metrics of turns as lines of the log, from which CloudWatch makes metrics by itself.

Nothing is called and nothing is waited for. The embedded metric format:
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
"""Names and units. Each is in a turn's line only where the turn has it."""

_REFUSED = frozenset({"overloaded", "budget-exhausted", "upstream-throttled"})
_FINE = frozenset({"completed", "replayed", "cancelled"})


def metric_line(report: Any, function: str, now: float) -> bytes:  # noqa: ANN401
    """The line of a turn's report (`pipeline.report`). now: seconds since 1970.

    Outcome and agent stand beside as properties, which can be searched and cost no metric each.
    """
    outcome = report.outcome
    values: dict[str, float] = {
        "Completed": int(outcome == "completed"),
        "Refused": int(outcome in _REFUSED),
        "Failed": int(outcome not in _FINE and outcome not in _REFUSED),
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
    """Writes the line of each finished turn to standard output."""
    function = environment.get("AWS_LAMBDA_FUNCTION_NAME", "")

    def observe(report: Any) -> None:  # noqa: ANN401 - a TurnReport, not imported by the runtime
        sys.stdout.write(metric_line(report, function, time.time()).decode() + "\n")
        sys.stdout.flush()

    return observe
