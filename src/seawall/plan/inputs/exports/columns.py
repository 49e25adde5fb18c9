"""Tables with a column of times, and perhaps of tokens or durations: CSV, TSV, JSON lines."""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.tools import Format, known_format
from seawall.plan.inputs.exports.trace import MOST_REQUESTS, Trace, spread
from seawall.plan.inputs.exports.units import (
    is_number,
    parse_durations,
    parse_time,
    split_unit,
)

__all__ = ["Row", "read_columns", "read_table"]

Floats = NDArray[np.float64]

_TIMES = (
    *("timestamp", "time", "arrival", "date", "datetime", "@timestamp", "start", "ts"),
    *("starttime", "timestamputc", "msec", "timeiso8601", "timelocal"),
)
_TOKENS = ("generatedtokens", "outputtokens", "completiontokens", "tokens")
# That of the whole request before that of its first byte.
_DURATIONS = (
    *("duration", "elapsed", "elapsedtime", "responsetime", "requesttime", "totaltime"),
    *("timetaken", "targetprocessingtime", "latency", ""),
)
_VEGETA = 6  # columns at least, without a head
_NANOSECONDS = 1e17  # since 1970, at least
_MICROSECONDS = 1e14
_MILLISECONDS = 1e11


class Row(Struct, frozen=True):
    """The cells of a row, and the number of its line."""

    line: int
    cells: list[str]


def read_columns(lines: Iterable[str], name: str) -> Trace:
    """Read a table separated by commas, tabs or semicolons; see `read_table`."""
    lines = iter(lines)
    first = next(lines, "")
    delimiter = next((each for each in ",\t;" if each in first), ",")
    rows = _rows(chain([first] if first else [], lines), delimiter, name)
    head = next(rows, None)
    if head is None:
        raise ConfigError(f"{name}: the trace is empty")
    return read_table(head.cells, rows, name)


def _rows(lines: Iterable[str], delimiter: str, name: str) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ConfigError(f"{name}:{reader.line_num}: {error}") from None
        if cells is None:
            return
        if cells or reader.line_num == 1:
            yield Row(reader.line_num, cells)


def read_table(head: list[str], rows: Iterable[Row], name: str) -> Trace:
    """Read a table whose columns are recognised by their names or their content.

    Times are dates or numbers: in the unit in the column's name, else, by their size, in that of
    the usual clocks (ns, µs, ms, s since 1970), else in seconds. A file without a header has its
    times in the first column. Durations are in the unit of the tool that wrote the file, or of the
    column's name, or beside the value; see `parse_durations`.

    Args:
        head: Names of the columns.
        rows: Without the header.
        name: Of the file, for errors.

    Raises:
        ConfigError: File, line and column are named.
    """
    plain = [_plain(word) for word in head]
    if {"timestamp", "name", "totalrequestcount"} <= set(plain):
        return _locust(plain, rows, name)
    found = known_format(head, plain)
    if found is not None:
        return _of_tool(found, plain, list(rows), name)
    bare = [split_unit(word) for word in head]
    times_at = _first(_TIMES, plain)
    if times_at is None:
        times_at = _first(_TIMES, [word for word, _ in bare])
    if times_at is None:
        if parse_time(head[0] if head else "") is None:
            raise ConfigError(
                f"{name}:1: no column of times; one of: {', '.join(_TIMES)}; docs/plan.md lists "
                "the formats"
            )
        read = [Row(1, head), *rows]
        if _is_vegeta(head):
            return _requests("vegeta", read, (0, 2, None), 1e-9, name)
        times = _ordered(_times(read, 0, None, name), read, name)
        return Trace(times - times[0])
    read = list(rows)
    if not read:
        raise ConfigError(f"{name}: the trace is empty")
    times = _ordered(_times(read, times_at, bare[times_at][1], name), read, name)
    tokens = _tokens(read, plain, name)
    return Trace(times - times[0], tokens, _durations(read, head, bare, times_at, name))


def _plain(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum() or c == "@")


def _first(names: Sequence[str], words: Sequence[str]) -> int | None:
    return next((words.index(each) for each in names if each in words), None)


def _cell(row: Row, column: int) -> str:
    return row.cells[column] if column < len(row.cells) else ""


def _times(rows: list[Row], column: int, scale: float | None, name: str) -> Floats:
    """Times in seconds. scale: seconds in the unit that the column's name has."""
    times = np.empty(len(rows))
    for at, row in enumerate(rows):
        found = parse_time(_cell(row, column))
        if found is None:
            raise ConfigError(f"{name}:{row.line}: {_cell(row, column)[:40]!r} is not a time")
        times[at] = found
    if not is_number(_cell(rows[0], column)):
        return times
    size = float(times[0])
    for least, unit in ((_NANOSECONDS, 1e-9), (_MICROSECONDS, 1e-6), (_MILLISECONDS, 1e-3)):
        if size > least:
            return times * unit
    return times if scale is None else times * scale


def _ordered(times: Floats, rows: list[Row], name: str) -> Floats:
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        line = rows[int(backwards[0]) + 1].line
        raise ConfigError(f"{name}:{line}: earlier than the line before it: sort the file")
    return times


def _tokens(rows: list[Row], plain: list[str], name: str) -> Floats | None:
    at = _first(_TOKENS, plain)
    return None if at is None else _numbers(rows, at, plain[at], name)


def _numbers(rows: list[Row], column: int, called: str, name: str) -> Floats:
    values = np.empty(len(rows))
    for at, row in enumerate(rows):
        text = _cell(row, column)
        try:
            values[at] = float(text)
        except ValueError:
            raise ConfigError(f"{name}:{row.line}: {called}: not a number") from None
        if not math.isfinite(values[at]) or values[at] < 0:
            raise ConfigError(f"{name}:{row.line}: {called}: {text} is not a positive number")
    return values


def _durations(
    rows: list[Row],
    head: list[str],
    bare: list[tuple[str, float | None]],
    times_at: int,
    name: str,
) -> Floats | None:
    """The first column with one of the names, with a unit or without."""
    for wanted in _DURATIONS:
        for at, (word, scale) in enumerate(bare):
            if at != times_at and word == wanted and (wanted or scale is not None):
                values = [_cell(row, at) for row in rows]
                return parse_durations(values, scale, _location(rows, name), head[at].strip())
    return None


def _location(rows: list[Row], name: str) -> Callable[[int], str]:
    """File and line of a row, by its index."""
    return lambda at: f"{name}:{rows[at].line}"


def _is_vegeta(first: list[str]) -> bool:
    """`vegeta encode --to csv` writes time, status, latency, bytes out, bytes in, error, ..."""
    if len(first) < _VEGETA or not all(each.isdigit() for each in first[:5]):
        return False
    return float(first[0]) > _NANOSECONDS and (first[1] == "0" or 100 <= int(first[1]) <= 999)


def _of_tool(found: Format, plain: list[str], rows: list[Row], name: str) -> Trace:
    if found.only is not None:
        column, value = plain.index(found.only[0]), found.only[1]
        rows = [row for row in rows if _cell(row, column).strip() == value]
    times_at, durations_at = (_first(each, plain) for each in (found.time, found.duration))
    if times_at is None or durations_at is None or not rows:
        raise ConfigError(f"{name}: the trace is empty")
    failed = None
    if found.failed is not None and found.failed[0] in plain:
        failed = (plain.index(found.failed[0]), found.failed[1])
    return _requests(
        *(found.tool, rows, (times_at, durations_at, failed), found.scale, name),
        ends=found.ends,
    )


def _requests(
    tool: str,
    rows: list[Row],
    columns: tuple[int, int, tuple[int, str] | None],
    scale: float,
    name: str,
    *,
    ends: bool = False,
) -> Trace:
    """Durations of whole requests, in any order: tools write them as they end."""
    if len(rows) > MOST_REQUESTS:
        raise ConfigError(f"{name}: more than {MOST_REQUESTS:,} requests")
    times_at, durations_at, failed = columns
    times = _times(rows, times_at, None, name)
    values = [_cell(row, durations_at) for row in rows]
    durations = parse_durations(values, scale, _location(rows, name), "the duration")
    arrivals = times - durations if ends else times
    if failed is not None:
        good = [_cell(row, failed[0]).strip().lower() != failed[1] for row in rows]
        durations = durations[np.array(good)]
    arrivals = np.sort(arrivals)
    return Trace(
        arrivals - arrivals[0],
        durations=durations if len(durations) else None,
        whole=True,
        source=f"requests recorded by {tool}",
    )


def _locust(plain: list[str], rows: Iterable[Row], name: str) -> Trace:
    """Read Locust's `..._stats_history.csv`: the number of requests so far, once a second."""
    which, when, how_many = (
        plain.index(each) for each in ("name", "timestamp", "totalrequestcount")
    )
    read = [row for row in rows if _cell(row, which).strip() == "Aggregated"]
    if len(read) < 2:
        raise ConfigError(f"{name}: fewer than two rows named Aggregated")
    ends = _ordered(_times(read, when, None, name), read, name)
    counts = np.diff(_numbers(read, how_many, "Total Request Count", name))
    widths = np.diff(ends)
    if (counts < 0).any() or not widths.any():
        raise ConfigError(f"{name}: Total Request Count: decreases, or has one time only")
    later = widths > 0  # counts of a repeated time belong to the period before it
    periods = np.maximum(np.cumsum(later) - 1, 0)
    grown = np.bincount(periods, weights=counts, minlength=int(later.sum())).astype(np.float64)
    starts = ends[:-1][later] - ends[0]
    times = spread(grown, starts, widths[later], f"{name}: Total Request Count")
    if not len(times):
        raise ConfigError(f"{name}: Total Request Count: no request arrived")
    return Trace(times, horizon=float(ends[-1] - ends[0]), source="Locust's history")
