"""Counts of CloudWatch: what get-metric-statistics or get-metric-data answers.

Formats:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
(`{"Label": ..., "Datapoints": [{"Timestamp": ..., "Sum": ..., "Unit": "Count"}]}`, in no order),
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataResult.html
(`{"MetricDataResults": [{"Id", "Label", "Timestamps", "Values", "StatusCode"}]}`, latest first).
A timestamp is the start of its period; a period in which nothing was counted is not there.
"""

import math
from typing import Any

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.counts import spread
from seawall.plan.inputs.exports.moments import parse_time
from seawall.plan.inputs.trace import Trace

__all__ = ["read_metric_data", "read_metric_statistics"]


def read_metric_statistics(document: dict[str, Any], name: str) -> Trace:
    """Arrivals of a metric that counts requests, such as RequestCount or Invocations, by its Sum.

    Raises ConfigError, which names the field.
    """
    points = document.get("Datapoints")
    if not isinstance(points, list) or not points:
        raise ConfigError(f"{name}: Datapoints: the trace is empty")
    found: list[tuple[float, float]] = []
    for at, point in enumerate(points):
        where = f"{name}: Datapoints.{at}"
        if not isinstance(point, dict):
            raise ConfigError(f"{where}: not a data point")
        if "Sum" not in point:
            raise ConfigError(f"{where}.Sum: missing; export with --statistics Sum")
        unit = point.get("Unit", "None")
        if unit not in ("Count", "None"):
            raise ConfigError(f"{where}.Unit: {unit!r} is no count of requests")
        found.append(
            _point(point.get("Timestamp"), point["Sum"], f"{where}.Timestamp", f"{where}.Sum")
        )
    return _trace(found, f"{name}: Datapoints")


def read_metric_data(document: dict[str, Any], name: str) -> Trace:
    """Arrivals of the one metric in it. Raises ConfigError, which names the field."""
    results = document.get("MetricDataResults")
    if not isinstance(results, list) or not results:
        raise ConfigError(f"{name}: MetricDataResults: the trace is empty")
    if len(results) > 1:
        ids = ", ".join(str(each.get("Id")) for each in results if isinstance(each, dict))
        raise ConfigError(
            f"{name}: MetricDataResults: {len(results)} metrics ({ids}); export the one that counts"
            " requests"
        )
    where = f"{name}: MetricDataResults.0"
    result = results[0]
    times, values = (
        result.get(key) if isinstance(result, dict) else None for key in ("Timestamps", "Values")
    )
    if not isinstance(times, list) or not isinstance(values, list):
        raise ConfigError(f"{where}.Timestamps: not a list")
    if len(times) != len(values):
        raise ConfigError(f"{where}.Values: {len(values)} of them at {len(times)} timestamps")
    status = result.get("StatusCode", "Complete")
    if status != "Complete" or document.get("NextToken"):
        raise ConfigError(f"{where}.StatusCode: {status!r}: a part only; export all of it")
    if not times:
        raise ConfigError(f"{where}.Timestamps: the trace is empty")
    found = [
        _point(time, value, f"{where}.Timestamps.{at}", f"{where}.Values.{at}")
        for at, (time, value) in enumerate(zip(times, values, strict=True))
    ]
    return _trace(found, f"{where}.Timestamps")


def _point(time: object, value: object, time_field: str, value_field: str) -> tuple[float, float]:
    when = parse_time(str(time))
    if when is None:
        raise ConfigError(f"{time_field}: {time!r} is not a time")
    try:
        count = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        count = math.inf
    if not math.isfinite(count):
        raise ConfigError(f"{value_field}: {value!r} is not a number")
    if count < 0:
        raise ConfigError(f"{value_field}: {value} is negative")
    return when, count


def _trace(points: list[tuple[float, float]], where: str) -> Trace:
    points.sort()
    starts = np.array([when for when, _ in points])
    gaps = np.diff(starts)
    if len(points) < 2:
        raise ConfigError(f"{where}: one data point, which does not say its period; it takes two")
    if not gaps.all():
        again = points[int(np.flatnonzero(gaps == 0)[0])][0]
        raise ConfigError(f"{where}: the time {again:.0f} is there twice")
    # Periods are whole seconds, and a gap is some of them.
    period = float(math.gcd(*(round(gap) for gap in gaps.tolist())))
    if period < 1.0:
        raise ConfigError(f"{where}: less than a second apart")
    counts = np.array([count for _, count in points])
    times = spread(counts, starts - starts[0], np.full(len(points), period), where)
    if not len(times):
        raise ConfigError(f"{where}: nobody came in it")
    horizon = float(starts[-1] - starts[0]) + period
    return Trace(times, horizon=horizon, source=f"CloudWatch's counts per {period:g} s")
