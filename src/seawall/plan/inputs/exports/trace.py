"""A trace: recorded arrivals, from times or from counts per period."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = ["MOST_REQUESTS", "Trace", "check_times", "spread"]

Floats = NDArray[np.float64]

# 800 MB of times; a day of 1,157 requests a second.
MOST_REQUESTS = 100_000_000


class Trace(Struct, frozen=True):
    """Recorded arrivals, and the other data that the file has on the requests.

    Attributes:
        times: Seconds from the start of the trace, in order.
        tokens: Output tokens of each request.
        durations: Seconds, of the requests that have one; not necessarily of all.
        whole: Whether the durations are those of whole requests, not of the model call alone.
        horizon: Seconds that the trace covers; None: until the last arrival.
        source: What the file is, for the list of inputs.
    """

    times: Floats
    tokens: Floats | None = None
    durations: Floats | None = None
    whole: bool = False
    horizon: float | None = None
    source: str = "arrivals"


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
    drawn = np.random.default_rng(seed).random(int(whole.sum()))
    times: Floats = np.repeat(starts, whole) + np.repeat(widths, whole) * drawn
    times.sort()
    return times
