"""The answer of Prometheus to a range query: counters, or rates a second.

Format: https://prometheus.io/docs/prometheus/latest/querying/api/#range-vectors, and «Expression
query result formats» there: `{"status": "success", "data": {"resultType": "matrix", "result":
[{"metric": {label: value}, "values": [[seconds, "sample"], ...]}, ...]}}`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.counts import spread
from seawall.plan.inputs.trace import Trace

__all__ = ["read_prometheus"]

Floats = NDArray[np.float64]


def read_prometheus(document: dict[str, Any], name: str) -> Trace:
    """Arrivals of all series together.

    A series whose `__name__` ends in `_total` or `_count` is a counter (naming:
    https://prometheus.io/docs/practices/naming/): its growth arrived, and where it falls it began
    again from 0 (as `rate` has it:
    https://prometheus.io/docs/prometheus/latest/querying/functions/#rate). A series without a
    name, as functions and sums give, or with `rate` in its name is requests a second over the
    step before each sample. Other series are refused. Raises ConfigError, which names the field.
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
        raise ConfigError(f"{name}: data.result.0.values: one sample; it takes two")
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
        raise ConfigError(f"{name}: data.result: nobody came in it")
    return Trace(times, horizon=end - begin, source="Prometheus's range query")


def _series(series: object, where: str) -> tuple[Floats, Floats, bool]:
    """Times, values, and whether it is a counter."""
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
    """Else it is a rate."""
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
