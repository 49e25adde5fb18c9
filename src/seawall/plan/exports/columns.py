"""A CSV file with a column of timestamps, and perhaps tokens or durations."""

import csv
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.exports.moments import moment
from seawall.plan.trace import Trace

__all__ = ["read_columns"]

_TIMES = ("timestamp", "time", "arrival", "date", "datetime", "@timestamp", "start", "ts")
_TOKENS = ("generatedtokens", "outputtokens", "completiontokens", "tokens")
_DURATIONS = ("duration", "latency", "elapsed", "responsetime", "seconds", "targetprocessingtime")
_MILLISECONDS = ("durationms", "latencyms", "elapsedms", "responsetimems", "milliseconds")


def read_columns(text: Iterable[str], name: str) -> Trace:
    """The columns are told by their names, or by what is in them.

    The times are ISO 8601, or seconds or milliseconds since whenever. A file without a head has
    its times first. Raises ConfigError, which names file, line and column.
    """
    lines = csv.reader(text)
    head = next(lines, None)
    if head is None:
        raise ConfigError(f"{name}: the trace is empty")
    plain = ["".join(c for c in word.lower() if c.isalnum() or c == "@") for word in head]
    named = [at for at, word in enumerate(plain) if word in _TIMES]
    rows: list[tuple[int, list[str]]] = []
    if not named:
        if not head or moment(head[0]) is None:
            raise ConfigError(f"{name}:1: no column of times; one of: {', '.join(_TIMES)}")
        rows.append((1, head))
        plain = []
    rows.extend((number, row) for number, row in enumerate(lines, start=2) if row)
    if not rows:
        raise ConfigError(f"{name}: the trace is empty")
    column = named[0] if named else 0
    times = np.array([_time(row, column, name, number) for number, row in rows])
    whole = np.all(times == np.floor(times)) and len(times) > 1
    if times[0] > 1e11 or (plain and whole and head[column].lower().endswith("ms")):
        times = times / 1e3  # milliseconds since 1970, or so named
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        number = rows[int(backwards[0]) + 1][0]
        raise ConfigError(f"{name}:{number}: earlier than the line before it: sort the file")
    tokens = _column(rows, plain, _TOKENS, name)
    durations = _column(rows, plain, _DURATIONS, name)
    if durations is None and (found := _column(rows, plain, _MILLISECONDS, name)) is not None:
        durations = found / 1e3
    return Trace(times - times[0], tokens, durations)


def _time(row: list[str], column: int, name: str, number: int) -> float:
    text = row[column] if column < len(row) else ""
    found = moment(text)
    if found is None:
        raise ConfigError(f"{name}:{number}: {text!r} is not a time")
    return found


def _column(
    rows: list[tuple[int, list[str]]], head: list[str], names: tuple[str, ...], name: str
) -> NDArray[np.float64] | None:
    """The first column with one of these names, if there is one."""
    at = next((head.index(each) for each in names if each in head), None)
    if at is None:
        return None
    values = np.empty(len(rows))
    for place, (number, row) in enumerate(rows):
        try:
            values[place] = float(row[at])
        except (ValueError, IndexError):
            raise ConfigError(f"{name}:{number}: {head[at]}: not a number") from None
        if not math.isfinite(values[place]) or values[place] < 0:
            raise ConfigError(f"{name}:{number}: {head[at]}: {row[at]} is not a positive number")
    return values
