"""Times and durations as they are written in exports, and the units of columns."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = [
    "TIME_FORMS",
    "check_unit",
    "parse_date",
    "parse_duration",
    "parse_durations",
    "parse_time",
    "seconds_of",
    "split_unit",
]

Floats = NDArray[np.float64]

TIME_FORMS = (
    "accepted: 2026-01-31T10:00:00.5Z, 2026-01-31 10:00:00+01:00, 31/Jan/2026:10:00:00 +0000, and "
    "numbers in s, ms, µs or ns since 1970"
)

_SCALES = {
    1e-9: ("ns", "nanos", "nanosecond", "nanoseconds"),
    1e-6: ("us", "µs", "usec", "usecs", "micros", "microsecond", "microseconds"),
    1e-3: ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"),
    1.0: ("s", "sec", "secs", "second", "seconds"),
    60.0: ("m", "min", "mins", "minute", "minutes"),
    3_600.0: ("h", "hour", "hours"),
}
_UNITS = {word: scale for scale, words in _SCALES.items() for word in words}
_WORD = re.compile(r"[A-Z]+(?![a-zµ])|[A-Z]?[a-zµ]+|\d+")
_PART = re.compile(r"([\d.]+(?:e[+-]?\d+)?)\s*(ns|us|µs|μs|ms|s|m|h)", re.IGNORECASE)
_CLOCK = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:\.\d+)?)")
_LONGEST = 900.0  # seconds; of a column without a unit, as AWS Lambda's longest request
_LONGEST_MEDIAN = 60.0
_LATEST = 1e11  # seconds since 1970: the year 5138
# The least number of each unit of a clock since 1970: 1973 in that unit, far beyond the one before.
_CLOCKS = ((1e17, 1e-9), (1e14, 1e-6), (_LATEST, 1e-3))


def split_unit(column: str) -> tuple[str, float | None]:
    """Split a column's name into its lower-case name and its unit in seconds.

    `latency_ms`, `responseTimeMs`, `Duration (milliseconds)`; None: it has no unit.
    """
    words = [each.lower() for each in _WORD.findall(column)]
    if words and words[-1] in _UNITS:
        return "".join(words[:-1]), _UNITS[words[-1]]
    return "".join(words), None


def seconds_of(
    numbers: Floats, scale: float | None, where: Callable[[int], str], column: str
) -> Floats:
    """Times that are written as numbers, in seconds.

    Args:
        numbers: At least one.
        scale: Seconds in the unit that the column's name has. None: it has none; then numbers are
            in the unit of the usual clocks (ns, µs, ms, s since 1970) by their size, else seconds.
        where: File and line of the number at an index, for errors.
        column: Its name, for errors.

    Raises:
        ConfigError: They are in different units, or not in that of the column's name.
    """
    if scale is None:
        scales = np.ones(len(numbers))
        for least, unit in reversed(_CLOCKS):
            scales[numbers >= least] = unit
        scale = float(scales[0])
        if (scales != scale).any():
            other = int(np.flatnonzero(scales != scale)[0])
            raise ConfigError(
                f"{where(other)}: {column}: {numbers[other]:.15g} is in another unit than "
                f"{numbers[0]:.15g} in the first row"
            )
    times = numbers * scale
    beyond = np.flatnonzero(np.abs(times) >= _LATEST)
    if len(beyond):
        first = int(beyond[0])
        raise ConfigError(
            f"{where(first)}: {column}: {numbers[first]:.15g} is not a time in the unit of the "
            f"column; {TIME_FORMS}"
        )
    return times


def parse_durations(
    values: Sequence[str], scale: float | None, where: Callable[[int], str], column: str
) -> Floats:
    """Parse durations into seconds.

    Args:
        values: As written in the file: `0.874`, `874ms`, `1m2.5s`, `00:00:01.5`.
        scale: Seconds in the unit of bare numbers; None where the column does not name it. Then
            they are seconds if they have decimals and are as short as requests are.
        where: File and line of the value at an index, for errors.
        column: Its name, for errors.

    Raises:
        ConfigError: One is not a duration, or the unit is ambiguous.
    """
    found = np.empty(len(values))
    bare = np.zeros(len(values), dtype=bool)
    for at, value in enumerate(values):
        found[at], bare[at] = parse_duration(value, where(at), column)
    if scale is not None:
        found[bare] *= scale
    elif bare.any():
        check_unit(found[bare], where(int(np.flatnonzero(bare)[0])), column)
    return found


def parse_duration(text: str, where: str, column: str) -> tuple[float, bool]:
    """A duration, and whether it is a bare number; else it is in seconds. Raises ConfigError."""
    text = text.strip()
    try:
        number, bare = float(text), True
    except ValueError:
        number, bare = _with_unit(text), False
    if not math.isfinite(number):
        raise ConfigError(f"{where}: {column}: {text[:40]!r} is not a number")
    if number < 0:
        raise ConfigError(f"{where}: {column}: {text[:40]} is not a positive number")
    return number, bare


def _with_unit(text: str) -> float:
    """Seconds; NaN if it is not a duration."""
    if clock := _CLOCK.fullmatch(text):
        return 3_600.0 * float(clock[1]) + 60.0 * float(clock[2]) + float(clock[3])
    total, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end or part[1].count(".") > 1:
            return float("nan")
        try:
            total += float(part[1]) * _UNITS[part[2].lower().replace("μ", "µ")]
        except ValueError:
            return float("nan")
        end = part.end()
    return total if end and end == len(text) else float("nan")


def check_unit(values: Floats, where: str, column: str) -> None:
    """Raise ConfigError if durations without a unit may be in another than seconds.

    Args:
        values: At least one.
        where: File and line of the first, for errors.
        column: Its name, for errors.
    """
    whole = bool((values == np.floor(values)).all()) and bool(values.any())
    median = float(np.median(values))
    if whole or median > _LONGEST_MEDIAN or float(values.max()) > _LONGEST:
        raise ConfigError(
            f"{where}: {column}: the unit is ambiguous (median {median:g}, seconds or "
            f"milliseconds?); name the column {column}_s or {column}_ms"
        )


_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
# As nginx, Apache and HAProxy write it: 10/Oct/2000:13:55:36.123 -0700.
_LOGGED = re.compile(
    r"\[?(\d\d)/([A-Za-z]{3})/(\d{4}):(\d\d:\d\d:\d\d(?:\.\d+)?)(?: ([+-]\d{4}))?\]?"
)
_SLASHES = re.compile(r"(\d{4})/(\d\d)/(\d\d)(?=[ T])")
_UTC = re.compile(r"\s?(?:UTC|GMT)$")


def parse_time(text: str) -> float | None:
    """Parse a number, or a date as `parse_date` does. None: neither."""
    try:
        value = float(text)
    except ValueError:
        return parse_date(text)
    return value if math.isfinite(value) else None


def parse_date(text: str) -> float | None:
    """Parse a date into seconds since 1970; it is in UTC unless it says otherwise.

    Dates are in ISO 8601, or as in access logs (10/Oct/2000:13:55:36.123 -0700). None: not a date.
    """
    if text[4:5] == "-" and len(text) <= 27:  # by far the fastest; drops parts of a µs
        try:
            return _timestamp(text)
        except (ValueError, OverflowError):
            pass
    text = _UTC.sub("+00:00", _SLASHES.sub(r"\1-\2-\3", text.strip()))
    if (logged := _LOGGED.fullmatch(text)) and logged[2].lower() in _MONTHS:
        month = _MONTHS.index(logged[2].lower()) + 1
        text = f"{logged[3]}-{month:02}-{logged[1]}T{logged[4]}{logged[5] or ''}"
    whole, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    # Seven digits, as .NET writes them, are more than Python reads.
    short = f"{whole}{dot}{rest[: min(digits, 6)]}{rest[digits:]}" if dot else whole
    if not short[:4].isdigit() or "-" not in short[:5]:
        return None  # 20260131 is a number
    try:
        seconds = _timestamp(short)
    except (ValueError, OverflowError):
        return None
    return seconds + (float(f"0.{rest[:digits]}") % 1e-6 if digits > 6 else 0.0)


def _timestamp(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
