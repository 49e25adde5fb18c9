"""Tables of counts: requests per period, or the number so far."""

import re
from collections.abc import Iterable

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.metrics import counts_trace
from seawall.plan.inputs.exports.rows import Row, cell, number, plain_name
from seawall.plan.inputs.exports.trace import Trace, spread, start_of
from seawall.plan.inputs.exports.units import TIME_FORMS, parse_time, seconds_of

__all__ = ["binned_column", "count_columns", "read_counts", "read_locust"]

_MOST_PERIODS = 3_000_000  # a month of seconds
_COUNTS = ("count", "counts", "requests", "requestcount", "hits", "invocations", "calls", "sum")
_COUNT = re.compile(r"count(_distinct)?\(.*\)|sum\(.*\)", re.IGNORECASE)
_BIN = re.compile(r"bin\((\d{1,4})\s*(ms|s|m|min|h|d)\w*\)", re.IGNORECASE)
_BINS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}


def binned_column(head: list[str]) -> int | None:
    """The column of periods of CloudWatch Logs Insights, such as `bin(5m)`. None: none."""
    return next((at for at, word in enumerate(head) if _BIN.fullmatch(word.strip())), None)


def count_columns(head: list[str]) -> list[int]:
    """The columns of counts."""
    return [
        at
        for at, word in enumerate(head)
        if plain_name(word) in _COUNTS or _COUNT.fullmatch(word.strip())
    ]


def read_counts(head: list[str], rows: Iterable[Row], time: int, name: str) -> Trace:
    """Read counts per period; `bin(5m)` says which, else it is that between the rows."""
    columns = [at for at in count_columns(head) if at != time]
    if len(columns) != 1:
        named = ", ".join(head[at].strip() for at in columns) or "none"
        raise ConfigError(
            f"{name}:1: columns of counts: {named}; one is needed, such as count(*), beside "
            f"{head[time].strip()}"
        )
    points: list[tuple[float, float]] = []
    for row in rows:
        when = parse_time(cell(row, time))
        if when is None:
            text = cell(row, time)[:40]
            raise ConfigError(f"{name}:{row.line}: {text!r} is not a time; {TIME_FORMS}")
        where = f"{name}:{row.line}: {head[columns[0]].strip()}"
        points.append((when, number(cell(row, columns[0]).strip() or "0", where)))
        if len(points) > _MOST_PERIODS:
            raise ConfigError(f"{name}:{row.line}: more than {_MOST_PERIODS:,} periods")
    if not points:
        raise ConfigError(f"{name}: the trace is empty")
    times = seconds_of(np.array([when for when, _ in points]), None, lambda _: name, head[time])
    points = [(float(at), count) for at, (_, count) in zip(times, points, strict=True)]
    found = _BIN.fullmatch(head[time].strip())
    width = float(found[1]) * _BINS[found[2].lower()] if found else None
    return counts_trace(points, f"{name}: {head[columns[0]].strip()}", "counts", width)


def read_locust(plain: list[str], rows: Iterable[Row], name: str) -> Trace:
    """Read Locust's `..._stats_history.csv`: the number of requests so far, once a second."""
    which, when, how_many = (
        plain.index(each) for each in ("name", "timestamp", "totalrequestcount")
    )
    points: list[tuple[float, float]] = []
    for row in rows:
        if cell(row, which).strip() == "Aggregated":
            at = parse_time(cell(row, when))
            if at is None:
                raise ConfigError(f"{name}:{row.line}: {cell(row, when)[:40]!r} is not a time")
            where = f"{name}:{row.line}: Total Request Count"
            points.append((at, number(cell(row, how_many).strip(), where)))
            if len(points) > _MOST_PERIODS:
                raise ConfigError(f"{name}:{row.line}: more than {_MOST_PERIODS:,} periods")
    if len(points) < 2:
        raise ConfigError(f"{name}: fewer than two rows named Aggregated")
    points.sort()
    ends, totals = (np.array(each) for each in zip(*points, strict=True))
    counts, widths = np.diff(totals), np.diff(ends)
    if (counts < 0).any() or not widths.any():
        raise ConfigError(f"{name}: Total Request Count: decreases, or has one time only")
    later = widths > 0  # counts of a repeated time belong to the period before it
    periods = np.maximum(np.cumsum(later) - 1, 0)
    grown = np.bincount(periods, weights=counts, minlength=int(later.sum())).astype(np.float64)
    starts = ends[:-1][later] - ends[0]
    times = spread(grown, starts, widths[later], f"{name}: Total Request Count")
    if not len(times):
        raise ConfigError(f"{name}: Total Request Count: no request arrived")
    return Trace(
        times,
        horizon=float(ends[-1] - ends[0]),
        start=start_of(ends),
        source="Locust's history",
    )
