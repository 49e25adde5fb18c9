"""The unit of a column of durations: by its name, by its values, never by guessing."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = ["parse_durations", "split_unit"]

Floats = NDArray[np.float64]

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


def split_unit(column: str) -> tuple[str, float | None]:
    """The name of a column without its unit, in small letters; and the unit in seconds.

    `latency_ms`, `responseTimeMs`, `Duration (milliseconds)`; None: the name has no unit.
    """
    words = [each.lower() for each in _WORD.findall(column)]
    if words and words[-1] in _UNITS:
        return "".join(words[:-1]), _UNITS[words[-1]]
    return "".join(words), None


def parse_durations(
    values: Sequence[str], scale: float | None, where: Callable[[int], str], column: str
) -> Floats:
    """Durations in seconds.

    Args:
        values: As they stand in the file: `0.874`, `874ms`, `1m2.5s`, `00:00:01.5`.
        scale: Seconds in the unit of bare numbers; None where the column does not name it. Then
            they are seconds if they have decimals and are as short as requests are.
        where: File and line of the value at a place, for errors.
        column: What errors call it.

    Raises:
        ConfigError: One is not a duration, or the unit is ambiguous.
    """
    found = np.empty(len(values))
    bare = np.zeros(len(values), dtype=bool)
    for at, value in enumerate(values):
        found[at], bare[at] = _duration(value.strip(), where, at, column)
    if scale is not None:
        found[bare] *= scale
    elif bare.any():
        _check_unit(found[bare], where(int(np.flatnonzero(bare)[0])), column)
    return found


def _duration(text: str, where: Callable[[int], str], at: int, column: str) -> tuple[float, bool]:
    """The number, and whether it has no unit."""
    try:
        number, bare = float(text), True
    except ValueError:
        number, bare = _with_unit(text), False
    if not np.isfinite(number):
        raise ConfigError(f"{where(at)}: {column}: {text[:40]!r} is not a number")
    if number < 0:
        raise ConfigError(f"{where(at)}: {column}: {text[:40]} is not a positive number")
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


def _check_unit(values: Floats, where: str, column: str) -> None:
    whole = bool((values == np.floor(values)).all()) and bool(values.any())
    median = float(np.median(values))
    if whole or median > _LONGEST_MEDIAN or float(values.max()) > _LONGEST:
        raise ConfigError(
            f"{where}: {column}: the unit is ambiguous (median {median:g}, seconds or "
            f"milliseconds?); name the column {column}_s or {column}_ms"
        )
