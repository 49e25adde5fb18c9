"""Arrivals as they were recorded."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = ["MOST_REQUESTS", "Trace", "check_times"]

# 800 MB of times; a day of 1,157 requests a second.
MOST_REQUESTS = 100_000_000


class Trace(Struct, frozen=True):
    """Arrivals in seconds from its beginning; with them, where recorded, their tokens or seconds.

    durations: of requests that have one, which need not be all. whole: they are those of whole
    requests, not of the model's call alone. horizon: how many seconds it covers; None: to the last
    arrival. source: what the file is.
    """

    times: NDArray[np.float64]
    tokens: NDArray[np.float64] | None = None
    durations: NDArray[np.float64] | None = None
    whole: bool = False
    horizon: float | None = None
    source: str = "arrivals"


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
