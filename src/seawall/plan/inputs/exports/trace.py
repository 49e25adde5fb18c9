"""A trace: recorded arrivals, from times or from counts per period."""

from datetime import UTC, datetime

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = [
    "MOST_REQUESTS",
    "Trace",
    "check_times",
    "scaled_times",
    "span_of",
    "span_words",
    "spread",
    "start_of",
    "within_seconds",
]

Floats = NDArray[np.float64]

# 800 MB of times; a day of 1,157 requests a second.
MOST_REQUESTS = 100_000_000
_DAY = 86_400.0
_LATEST = 1e11  # the year 5138
_EARLIEST = 1e8  # seconds since 1970; smaller times are relative


class Trace(Struct, frozen=True):
    """Recorded arrivals, and the other data that the file has on the requests.

    Attributes:
        times: Seconds from the start of the trace, in order.
        input_tokens: Of the requests that have them, in order of arrival. Where the file has both
            kinds of tokens, the two arrays have the same requests.
        output_tokens: Likewise.
        durations: Seconds, of the requests that have one; not necessarily of all.
        whole: Whether the durations are those of whole requests, not of the model call alone.
        horizon: Seconds that the trace covers, of counts per period; None: see `span_of`.
        start: Start of the trace in seconds since 1970; None: its times are relative.
        source: What the file is, for the list of inputs.
    """

    times: Floats
    input_tokens: Floats | None = None
    output_tokens: Floats | None = None
    durations: Floats | None = None
    whole: bool = False
    horizon: float | None = None
    start: float | None = None
    source: str = "arrivals"


def start_of(times: Floats) -> float | None:
    """The first of the times, if it is a date; None: times are relative."""
    first = float(times.min())
    return first if first > _EARLIEST else None


def check_times(times: Floats, field: str) -> None:
    """Raise ConfigError if there are no times, one is not a number, or they are not in order."""
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


def span_of(trace: Trace, name: str) -> float:
    """The seconds that a trace covers.

    Without counts per period: from the first to the last arrival, and a mean gap after that, so
    that n requests have n gaps.

    Args:
        trace: The trace.
        name: Of the file, for errors.

    Raises:
        ConfigError: All requests have one time, so that there is no rate.
    """
    if trace.horizon is not None:
        return trace.horizon
    count, span = len(trace.times), float(trace.times[-1])
    if span <= 0.0:
        many = "one request" if count == 1 else f"{count:,} requests"
        raise ConfigError(
            f"{name}: {many} at one time: there is no rate in it; at least two times are needed. "
            f"A crowd is given as --spike {count}@20s"
        )
    return span * count / (count - 1)


def span_words(trace: Trace, seconds: float) -> str:
    """What was read: the number of requests, the time, and the rate.

    Args:
        trace: The trace.
        seconds: What it covers.
    """
    count = len(trace.times)
    text = f"{count:,} requests in {_period(seconds)}"
    if trace.start is not None and trace.start + trace.times[-1] < _LATEST:
        first, last = (
            f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
            for at in (trace.start, trace.start + float(trace.times[-1]))
        )
        text += f", {first} to {last} UTC"
    return f"{text}; {count * _DAY / seconds:,.0f} a day"


def _period(seconds: float) -> str:
    for unit, name in ((_DAY, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.3g} s"


def within_seconds(times: Floats, *, seed: int = 1) -> Floats:
    """Place the requests of each second at random within it.

    A clock of whole seconds puts all of a second at its start, which would be a crowd every second.
    Times are left as they are if they have decimals, or no two of them are the same.

    Args:
        times: In seconds, in any order.
        seed: The same seed gives the same times.
    """
    distinct = len(np.unique(times))
    if distinct in (1, len(times)) or (times != np.floor(times)).any():
        return times
    return times + np.random.default_rng(seed).random(len(times))


def scaled_times(times: Floats, horizon: float, daily: float, name: str) -> Floats:
    """The arrivals of another number of requests a day with the shape of a trace.

    Each request becomes as many as the ratio of the two volumes says, at random within the time
    until the next request; fractions are carried over.

    Args:
        times: Of the trace, in order.
        horizon: Seconds that it covers.
        daily: Requests a day.
        name: Of the field, for errors.

    Raises:
        ConfigError: No request, or more than `MOST_REQUESTS`, would be left.
    """
    ratio = daily * horizon / _DAY / len(times)
    gaps = np.diff(times, append=horizon)
    scaled = spread(np.full(len(times), ratio), times, np.maximum(gaps, 0.0), name)
    if not len(scaled):
        raise ConfigError(
            f"{name}: {daily:g} a day leaves no request in the {_period(horizon)} of the trace"
        )
    return scaled


def spread(counts: Floats, starts: Floats, widths: Floats, name: str, *, seed: int = 1) -> Floats:
    """Turn counts per period into times of arrival, evenly at random within each period.

    That is a Poisson process, given the counts: its times are independent and uniform (S. Ross,
    Introduction to Probability Models, theorem 5.2).

    Args:
        counts: At least 0. Fractions are carried over, so that the total is right within one half.
        starts: Of the periods, in seconds.
        widths: Of the periods, in seconds.
        name: Of the file, for errors.
        seed: The same seed gives the same times.

    Raises:
        ConfigError: There are more than `MOST_REQUESTS`.
    """
    if counts.sum() > MOST_REQUESTS:
        raise ConfigError(
            f"{name}: {counts.sum():,.0f} requests; at most {MOST_REQUESTS:,}: export less time"
        )
    # A billionth, or thirds that add up to a half would be rounded by chance.
    upto = np.floor(np.cumsum(counts) + 0.5 + 1e-9).astype(np.int64)
    whole = np.diff(upto, prepend=0)
    times: Floats = np.random.default_rng(seed).random(int(whole.sum()))
    # In place: a hundred million are 800 MB.
    times *= np.repeat(widths, whole)
    times += np.repeat(starts, whole)
    times.sort()
    return times
