"""Arrivals as they were recorded: a CSV file with a column of timestamps, and perhaps more."""

import csv
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = ["Trace", "check_times", "read_trace"]

_TIMES = ("timestamp", "time", "arrival", "date", "datetime", "@timestamp", "start", "ts")
_TOKENS = ("generatedtokens", "outputtokens", "completiontokens", "tokens")
_DURATIONS = ("duration", "latency", "elapsed", "responsetime", "seconds", "targetprocessingtime")
_MILLISECONDS = ("durationms", "latencyms", "elapsedms", "responsetimems", "milliseconds")


class Trace(Struct, frozen=True):
    """Arrivals in seconds from the first; with each, where recorded, its tokens or seconds."""

    times: NDArray[np.float64]
    tokens: NDArray[np.float64] | None = None
    durations: NDArray[np.float64] | None = None


def check_times(times: NDArray[np.float64], field: str) -> None:
    """Refuse what is no trace: nothing, something that is not a number, or out of order."""
    if not len(times):
        raise ConfigError(f"{field}: the trace is empty")
    if not np.isfinite(times).all():
        row = int(np.flatnonzero(~np.isfinite(times))[0])
        raise ConfigError(f"{field}: the time of request {row + 1} is not a number")
    if times[0] < 0:
        raise ConfigError(f"{field}: the first time, {times[0]:g}, is negative")
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        row = int(backwards[0]) + 2
        raise ConfigError(f"{field}: request {row} arrived before request {row - 1}: sort the file")


def read_trace(path: Path) -> Trace:
    """Read a CSV file; its columns are told by their names, or by what is in them.

    The times are ISO 8601, or seconds or milliseconds since whenever. A line without a head has
    its times first. Raises ConfigError, which names file, line and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(csv.reader(file), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text in UTF-8") from None


def _read(lines: Iterator[list[str]], name: str) -> Trace:
    head = next(lines, None)
    if head is None:
        raise ConfigError(f"{name}: the trace is empty")
    plain = ["".join(c for c in word.lower() if c.isalnum() or c == "@") for word in head]
    named = [at for at, word in enumerate(plain) if word in _TIMES]
    rows: list[tuple[int, list[str]]] = []
    if not named:
        if _moment(head[0]) is None:
            raise ConfigError(f"{name}:1: no column of times; one of: {', '.join(_TIMES)}")
        rows.append((1, head))
        plain = []
    rows.extend((number, row) for number, row in enumerate(lines, start=2) if row)
    if not rows:
        raise ConfigError(f"{name}: the trace is empty")
    column = named[0] if named else 0
    times = np.array([_time(row, column, name, number) for number, row in rows])
    span = times[-1] - times[0]
    whole = np.all(times == np.floor(times)) and len(times) > 1
    if times[0] > 1e11 or (plain and whole and head[column].lower().endswith("ms")):
        times, span = times / 1e3, span / 1e3  # milliseconds since 1970, or so named
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        number = rows[int(backwards[0]) + 1][0]
        raise ConfigError(f"{name}:{number}: earlier than the line before it: sort the file")
    tokens = _column(rows, plain, _TOKENS, name)
    durations = _column(rows, plain, _DURATIONS, name)
    if durations is None and (found := _column(rows, plain, _MILLISECONDS, name)) is not None:
        durations = found / 1e3
    return Trace(times - times[0], tokens, durations)


def _moment(text: str) -> float | None:
    """Seconds; of a date since 1970, which is in UTC where it does not say. None: is no time."""
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        return value if math.isfinite(value) else None
    whole, dot, rest = text.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    # Seven digits, as .NET writes them, are more than Python reads.
    short = f"{whole}{dot}{rest[: min(digits, 6)]}{rest[digits:]}" if dot else whole
    try:
        moment = datetime.fromisoformat(short)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.timestamp() + (float(f"0.{rest[:digits]}") % 1e-6 if digits > 6 else 0.0)


def _time(row: list[str], column: int, name: str, number: int) -> float:
    text = row[column] if column < len(row) else ""
    moment = _moment(text)
    if moment is None:
        raise ConfigError(f"{name}:{number}: {text!r} is not a time")
    return moment


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
