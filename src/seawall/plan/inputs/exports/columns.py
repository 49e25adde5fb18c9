"""Tables with a column of times, and perhaps of tokens or durations: CSV, TSV, JSON."""

import csv
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.exports.counts import (
    binned_column,
    count_columns,
    read_counts,
    read_locust,
)
from seawall.plan.inputs.exports.lambda_reports import is_function_log, only_reports
from seawall.plan.inputs.exports.layouts import (
    TIME_COLUMNS,
    Layout,
    bare_layout,
    table_layout,
    tool_layout,
)
from seawall.plan.inputs.exports.rows import Row, cell, number, plain_name
from seawall.plan.inputs.exports.tools import known_format, unusable_table
from seawall.plan.inputs.exports.trace import MOST_REQUESTS, Trace, start_of, within_seconds
from seawall.plan.inputs.exports.units import (
    TIME_FORMS,
    check_unit,
    parse_date,
    parse_duration,
    parse_time,
    seconds_of,
)

__all__ = ["read_columns", "read_table"]

Floats = NDArray[np.float64]

_MISSING = frozenset({"", "-", "null", "none", "n/a"})
_SAMPLE = 1_000  # lines at the beginning, which say whether a log is that of a function
_DELIMITERS = ",\t;|"


def read_columns(lines: Iterable[str], name: str) -> Trace:
    """Read a table separated by commas, tabs, semicolons or bars; see `read_table`."""
    lines = iter(lines)
    first, skipped = next(lines, ""), 0
    if first.lower().startswith("sep="):  # for spreadsheets
        first, skipped = next(lines, ""), 1
    unquoted = re.sub(r'"[^"]*"', "", first)
    delimiter = max(_DELIMITERS, key=unquoted.count)
    rows = _rows(chain([first] if first else [], lines), delimiter, name, skipped)
    head = next(rows, None)
    if head is None:
        raise ConfigError(f"{name}: the trace is empty")
    return read_table(head.cells, rows, name)


def _rows(lines: Iterable[str], delimiter: str, name: str, skipped: int) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ConfigError(f"{name}:{reader.line_num + skipped}: {error}") from None
        if cells is None:
            return
        if cells or reader.line_num == 1:
            yield Row(reader.line_num + skipped, cells)


def read_table(head: list[str], rows: Iterable[Row], name: str) -> Trace:
    """Read a table whose columns are recognised by their names or their content.

    Times are dates or numbers: in the unit in the column's name, else, by their size, in that of
    the usual clocks (ns, µs, ms, s since 1970), else in seconds. Where several requests have the
    same whole second, they are placed at random within it. A file without a header has its times in
    the first column. Durations are in the unit of the tool that wrote the file, or of the column's
    name, or beside the value; see `parse_durations`. A row with a count, and without a duration or
    tokens, is a period. Rows may be in any order.

    Args:
        head: Names of the columns.
        rows: Without the header, which may be repeated.
        name: Of the file, for errors.

    Raises:
        ConfigError: File, line and column are named.
    """
    plain = [plain_name(word) for word in head]
    layout = table_layout(head, plain)
    if layout is None and parse_time(head[0] if head else "") is not None:
        return _requests(bare_layout(head), chain([Row(1, head)], rows), name)
    rows = (row for row in rows if row.cells != head)
    if "@message" in plain and "@duration" not in plain:
        message, sample = plain.index("@message"), list(islice(rows, _SAMPLE))
        rows = chain(sample, rows)
        if is_function_log(sample, message):
            return read_table(*only_reports(head, rows, message), name)
    return _read_named(head, plain, rows, layout, name)


def _read_named(
    head: list[str], plain: list[str], rows: Iterable[Row], layout: Layout | None, name: str
) -> Trace:
    """Read a table by the names of its columns."""
    if {"timestamp", "name", "totalrequestcount"} <= set(plain):
        return read_locust(plain, rows, name)
    if (reason := unusable_table(plain)) is not None:
        raise ConfigError(f"{name}: {reason}")
    binned = binned_column(head)
    if binned is not None:
        return read_counts(head, rows, binned, name)
    found = known_format(head, plain)
    if found is not None:
        return _requests(tool_layout(found, head, plain), rows, name)
    if layout is None:
        raise ConfigError(
            f"{name}:1: no column of times; one of: {', '.join(TIME_COLUMNS)}; docs/plan.md lists "
            "the formats"
        )
    if layout.duration is None and layout.output_tokens is None and count_columns(head):
        return read_counts(head, rows, layout.time, name)
    return _requests(layout, rows, name)


class _Cells:
    """The columns of a table, as numbers; NaN where there is none."""

    def __init__(self) -> None:
        self.lines = array("q")
        self.times = array("d")
        self.durations = array("d")
        self.bare = array("b")
        self.failed = array("b")
        self.inputs = array("d")
        self.outputs = array("d")


def _requests(layout: Layout, rows: Iterable[Row], name: str) -> Trace:
    """A trace with a request for each row, in any order: tools write them as they end."""
    cells, dated = _cells_of(layout, rows, name)
    if not len(cells.times):
        raise ConfigError(f"{name}: the trace is empty")

    def where(at: int) -> str:
        return f"{name}:{cells.lines[at]}"

    times = np.array(cells.times)
    if not dated:
        times = seconds_of(times, layout.time_scale, where, layout.names[layout.time].strip())
    times = within_seconds(times)
    durations = np.array(cells.durations)
    known = np.isfinite(durations)
    if layout.duration is not None and known.any():
        bare, first = np.array(cells.bare, dtype=bool), int(np.flatnonzero(known)[0])
        if layout.duration_scale is not None:
            durations[bare] *= layout.duration_scale
        elif (known & bare).any():
            check_unit(durations[known & bare], where(first), layout.names[layout.duration].strip())
    if layout.ends:
        times = times - np.where(known, durations, 0.0)
    order = np.argsort(times, kind="stable")
    start = start_of(times)
    times = times[order]
    good = durations[known & ~np.array(cells.failed, dtype=bool)]
    inputs, outputs = (
        None if column is None else np.array(values)[order]
        for column, values in (
            (layout.input_tokens, cells.inputs), (layout.output_tokens, cells.outputs),
        )
    )  # fmt: skip
    there = np.ones(len(times), dtype=bool)
    for tokens in (inputs, outputs):
        if tokens is not None:
            there &= np.isfinite(tokens)
    return Trace(
        times - times[0],
        input_tokens=inputs[there] if inputs is not None and there.any() else None,
        output_tokens=outputs[there] if outputs is not None and there.any() else None,
        durations=good if len(good) else None,
        whole=layout.whole,
        start=start,
        source=layout.source,
    )


def _cells_of(layout: Layout, rows: Iterable[Row], name: str) -> tuple[_Cells, bool]:
    """The rows that count, and whether their times are dates."""
    cells, dated = _Cells(), False
    for row, duration, bare in _measured(layout, rows, name):
        text = cell(row, layout.time)
        if layout.date is not None:
            text = f"{cell(row, layout.date)}T{text}"
        if not cells.times:
            dated = _parse_number(text) is None
        elif len(cells.times) == MOST_REQUESTS:
            raise ConfigError(f"{name}:{row.line}: more than {MOST_REQUESTS:,} requests")
        found = parse_date(text) if dated else _parse_number(text)
        if found is None:
            raise ConfigError(f"{name}:{row.line}: {text[:40]!r} is not a time; {TIME_FORMS}")
        cells.times.append(found)
        cells.lines.append(row.line)
        cells.durations.append(duration)
        cells.bare.append(bare)
        cells.failed.append(
            layout.failed is not None
            and cell(row, layout.failed[0]).strip().lower() == layout.failed[1]
        )
        for column, values in (
            (layout.input_tokens, cells.inputs),
            (layout.output_tokens, cells.outputs),
        ):
            if column is not None:
                values.append(_tokens(row, column, layout, name))
    return cells, dated


def _measured(layout: Layout, rows: Iterable[Row], name: str) -> Iterator[tuple[Row, float, bool]]:
    """The rows that count, with the duration (NaN: none) and whether it has no unit."""
    for row in rows:
        if layout.only is not None and cell(row, layout.only[0]).strip() != layout.only[1]:
            continue
        text = "" if layout.duration is None else cell(row, layout.duration)
        if layout.duration is not None and text.strip().lower() not in _MISSING:
            called = layout.names[layout.duration].strip()
            yield row, *parse_duration(text, f"{name}:{row.line}", called)
        elif not layout.measured:
            yield row, float("nan"), False


def _parse_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _tokens(row: Row, column: int, layout: Layout, name: str) -> float:
    """A number of tokens; NaN if there is none."""
    text = cell(row, column)
    if not text[:1].isdigit() and text.strip().lower() in _MISSING:
        return float("nan")
    return number(text, f"{name}:{row.line}: {layout.names[column].strip()}")
