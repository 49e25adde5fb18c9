"""Requests in JSON: an object on each line, an array of objects, rows of CloudWatch Logs Insights.

k6's JSON (https://grafana.com/docs/k6/latest/results-output/real-time/json/) has a point on each
line. Logs Insights (https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetQueryResults.html)
answers `{"status": "Complete", "results": [[{"field": "@timestamp", "value": "…"}, …], …]}`, and
filter-log-events (https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html)
`{"events": [{"timestamp": ms, "message": "…"}, …]}`.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.columns import read_table
from seawall.plan.inputs.exports.rows import Row
from seawall.plan.inputs.exports.trace import Trace

__all__ = ["read_insights", "read_json_lines", "read_log_events", "read_objects"]

Numbered = tuple[int, dict[str, Any]]

_SAMPLE = 100  # objects at the beginning, whose keys are the columns


def read_json_lines(first: dict[str, Any], lines: Iterable[tuple[int, str]], name: str) -> Trace:
    """Read a file with an object on each line.

    Args:
        first: The object of the first line.
        lines: The other lines with their numbers.
        name: Of the file, for errors.

    Raises:
        ConfigError: File, line and field are named.
    """
    return read_objects(chain([(1, first)], _objects(lines, name)), name)


def _objects(lines: Iterable[tuple[int, str]], name: str) -> Iterator[Numbered]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise ConfigError(f"{name}:{number}: not JSON") from None
        if not isinstance(found, dict):
            raise ConfigError(f"{name}:{number}: not a JSON object")
        yield number, found


def read_objects(objects: Iterable[Numbered], name: str) -> Trace:
    """Read numbered objects as a table; `usage`, with a model's tokens, counts as its own columns.

    Raises:
        ConfigError: File, number and field are named.
    """
    found = iter(objects)
    sample = list(islice(found, _SAMPLE))
    if sample and sample[0][1].get("type") == "Metric" and "metric" in sample[0][1]:
        head = ["metric_name", "timestamp", "metric_value"]
        flat = ((line, _k6_sample(each)) for line, each in chain(sample, found))
    else:
        flat = ((line, _flat(each)) for line, each in chain(sample, found))
        head = list(dict.fromkeys(key for _, each in sample for key in _flat(each)))
    return read_table(head, (_row(line, each, head) for line, each in flat), name)


def _k6_sample(found: dict[str, Any]) -> dict[str, Any]:
    data = found.get("data")
    sample = data if isinstance(data, dict) and found.get("type") == "Point" else {}
    return {
        "metric_name": found.get("metric") if sample else "",
        "timestamp": sample.get("time"),
        "metric_value": sample.get("value"),
    }


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    usage = found.get("usage")
    whole = (usage if isinstance(usage, dict) else {}) | found
    return {key: value for key, value in whole.items() if not isinstance(value, dict | list)}


def _row(line: int, found: dict[str, Any], head: list[str]) -> Row:
    cells = (found.get(key) for key in head)
    return Row(line, ["" if each is None else str(each) for each in cells])


def read_insights(document: dict[str, Any], name: str) -> Trace:
    """Read the answer of get-query-results. Raises ConfigError, naming the field."""
    status = document.get("status", "Complete")
    if status != "Complete":
        raise ConfigError(f"{name}: status: {status!r}: partial data; wait for 'Complete'")
    results = document.get("results")
    if not isinstance(results, list) or not results:
        raise ConfigError(f"{name}: results: the trace is empty")

    def objects() -> Iterator[Numbered]:
        for at, fields in enumerate(results):
            if not isinstance(fields, list) or not all(isinstance(each, dict) for each in fields):
                raise ConfigError(f"{name}: results.{at}: not a list of fields and values")
            yield at, {str(each.get("field")): each.get("value") for each in fields}

    return read_objects(objects(), f"{name}: results")


def read_log_events(document: dict[str, Any], name: str) -> Trace:
    """Read the answer of filter-log-events. Raises ConfigError, naming the field."""
    if document.get("nextToken"):
        raise ConfigError(f"{name}: nextToken: partial data; export all of it")
    events = document["events"]
    if not isinstance(events, list) or not events:
        raise ConfigError(f"{name}: events: the trace is empty")

    def objects() -> Iterator[Numbered]:
        for at, event in enumerate(events):
            if not isinstance(event, dict):
                raise ConfigError(f"{name}: events.{at}: not an object")
            yield (
                at,
                {"@timestamp": event.get("timestamp"), "@message": event.get("message")},
            )

    return read_objects(objects(), f"{name}: events")
