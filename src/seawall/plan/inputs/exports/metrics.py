"""Counts and rates of requests from metrics: CloudWatch and Prometheus.

CloudWatch's answers to get-metric-statistics and get-metric-data:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html
(`{"Label": ..., "Datapoints": [{"Timestamp": ..., "Sum": ..., "Unit": "Count"}]}`, in no order),
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataResult.html
(`{"MetricDataResults": [{"Id", "Label", "Timestamps", "Values", "StatusCode"}]}`, latest first).
A timestamp is the start of its period; a period without counts is missing.

Prometheus's answer to a range query:
https://prometheus.io/docs/prometheus/latest/querying/api/#range-vectors, and «Expression query
result formats» there: `{"status": "success", "data": {"resultType": "matrix", "result": [{"metric":
{label: value}, "values": [[seconds, "sample"], ...]}, ...]}}`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.trace import Trace, spread, start_of
from seawall.plan.inputs.exports.units import parse_time

__all__ = ["counts_trace", "read_metric_data", "read_metric_statistics", "read_prometheus"]

Floats = NDArray[np.float64]


def read_metric_statistics(document: dict[str, Any], name: str) -> Trace:
    """Read a CloudWatch metric that counts requests, such as RequestCount, by its Sum.

    Raises:
        ConfigError: The field is named.
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
            raise ConfigError(f"{where}.Unit: {unit!r} is not a count of requests")
        found.append(
            _data_point(point.get("Timestamp"), point["Sum"], f"{where}.Timestamp", f"{where}.Sum")
        )
    return counts_trace(found, f"{name}: Datapoints", "CloudWatch's counts")


def read_metric_data(document: dict[str, Any], name: str) -> Trace:
    """Read the one metric of get-metric-data. Raises ConfigError, naming the field."""
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
        raise ConfigError(f"{where}.StatusCode: {status!r}: partial data; export all of it")
    if not times:
        raise ConfigError(f"{where}.Timestamps: the trace is empty")
    found = [
        _data_point(time, value, f"{where}.Timestamps.{at}", f"{where}.Values.{at}")
        for at, (time, value) in enumerate(zip(times, values, strict=True))
    ]
    return counts_trace(found, f"{where}.Timestamps", "CloudWatch's counts")


def _data_point(
    time: object, value: object, time_field: str, value_field: str
) -> tuple[float, float]:
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


def counts_trace(
    points: list[tuple[float, float]], where: str, source: str, width: float | None = None
) -> Trace:
    """The arrivals of counts per period.

    Args:
        points: Start of the period in seconds, and count; in any order.
        where: File and field, for errors.
        source: What the counts are.
        width: Seconds of a period. None: the greatest that all starts are multiples of.

    Raises:
        ConfigError: The counts make no sense; the field is named.
    """
    points = sorted(points)
    starts = np.array([when for when, _ in points])
    gaps = np.diff(starts)
    if not gaps.all():
        again = points[int(np.flatnonzero(gaps == 0)[0])][0]
        raise ConfigError(f"{where}: the time {again:.0f} occurs twice")
    if width is None:
        if len(points) < 2:
            raise ConfigError(f"{where}: one data point; the period needs at least two")
        # Periods are whole seconds, and a gap is a multiple of them.
        width = float(math.gcd(*(round(gap) for gap in gaps.tolist())))
    if width < 1.0:
        raise ConfigError(f"{where}: less than a second apart")
    counts = np.array([count for _, count in points])
    times = spread(counts, starts - starts[0], np.full(len(points), width), where)
    if not len(times):
        raise ConfigError(f"{where}: no requests in it")
    return Trace(
        times,
        horizon=float(starts[-1] - starts[0]) + width,
        start=start_of(starts),
        source=f"{source} per {width:g} s",
    )


def read_prometheus(document: dict[str, Any], name: str) -> Trace:
    """Read the arrivals of all series of a Prometheus range query.

    A series whose `__name__` ends in `_total` or `_count` is a counter (naming:
    https://prometheus.io/docs/practices/naming/): its growth is the arrivals, and a decrease is
    a reset to 0 (as for `rate`:
    https://prometheus.io/docs/prometheus/latest/querying/functions/#rate). A series without a
    name, as functions and sums return, or with `rate` in its name is requests a second over the
    step before each sample. Other series are rejected.

    Raises:
        ConfigError: The field is named.
    """
    if document.get("status") != "success":
        reason = document.get("error", "no reason given")
        raise ConfigError(f"{name}: status: {document.get('status')!r}: {reason}")
    data = document.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "matrix":
        kind = data.get("resultType") if isinstance(data, dict) else None
        raise ConfigError(f"{name}: data.resultType: {kind!r}; a range query gives 'matrix'")
    series = data.get("result")
    if not isinstance(series, list) or not series:
        raise ConfigError(f"{name}: data.result: the trace is empty")
    read = [_series(each, f"{name}: data.result.{at}") for at, each in enumerate(series)]
    step = min((float(np.diff(times).min()) for times, _, _ in read if len(times) > 1), default=0.0)
    if step <= 0.0:
        raise ConfigError(f"{name}: data.result.0.values: one sample; at least two are needed")
    counts, ends, widths = [], [], []
    for times, values, counter in read:
        if counter:
            grown = np.diff(values)
            counts.append(np.where(grown < 0, values[1:], grown))
            ends.append(times[1:])
            widths.append(np.diff(times))
        else:
            counts.append(values * step)
            ends.append(times)
            widths.append(np.full(len(times), step))
    width = np.concatenate(widths)
    starts = np.concatenate(ends) - width
    begin, end = float(starts.min()), float((starts + width).max())
    times = spread(np.concatenate(counts), starts - begin, width, f"{name}: data.result")
    if not len(times):
        raise ConfigError(f"{name}: data.result: no requests in it")
    return Trace(
        times,
        horizon=end - begin,
        start=start_of(np.array([begin])),
        source="Prometheus's range query",
    )


def _series(series: object, where: str) -> tuple[Floats, Floats, bool]:
    """Times, values, and whether the series is a counter; else it is a rate."""
    if not isinstance(series, dict) or not isinstance(series.get("metric"), dict):
        raise ConfigError(f"{where}.metric: missing")
    counter = _is_counter(series["metric"], f"{where}.metric")
    if "histograms" in series:
        raise ConfigError(f"{where}.histograms: no counts; ask for histogram_count(...)")
    samples = series.get("values")
    if not isinstance(samples, list) or not samples:
        raise ConfigError(f"{where}.values: the trace is empty")
    times, values = np.empty(len(samples)), np.empty(len(samples))
    for at, sample in enumerate(samples):
        if not isinstance(sample, list) or len(sample) != 2:
            raise ConfigError(f"{where}.values.{at}: not a time and a value")
        times[at] = _number(sample[0], f"{where}.values.{at}.0")
        values[at] = _number(sample[1], f"{where}.values.{at}.1")
        if values[at] < 0:
            raise ConfigError(f"{where}.values.{at}.1: {sample[1]} is negative")
        if at and times[at] <= times[at - 1]:
            raise ConfigError(f"{where}.values.{at}.0: earlier than the sample before it")
    return times, values, counter


def _is_counter(labels: dict[str, Any], where: str) -> bool:
    metric = str(labels.get("__name__", ""))
    for label in ("le", "quantile"):
        if label in labels:
            raise ConfigError(f"{where}.{label}: not a count of requests; export its _count")
    if metric.endswith(("_total", "_count")):
        return True
    if metric and "rate" not in metric:
        raise ConfigError(
            f"{where}.__name__: {metric!r} is neither a counter (_total, _count) nor a rate;"
            " ask for sum(rate(...))"
        )
    return False


def _number(value: object, where: str) -> float:
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"{where}: {value!r} is not a number")
    return found
