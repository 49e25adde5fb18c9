"""From counts per period to times of arrival."""

import numpy as np
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.trace import MOST_REQUESTS

__all__ = ["spread"]

Floats = NDArray[np.float64]


def spread(counts: Floats, starts: Floats, widths: Floats, name: str, *, seed: int = 1) -> Floats:
    """Times of arrival in order, of so many in each period: evenly at random within it.

    That is a Poisson process, given how many came: its times are independent and uniform (S. Ross,
    Introduction to Probability Models, theorem 5.2). counts: at least 0; what is not whole is
    carried over, so that all together are right within one half. starts, widths: of the periods,
    in seconds. The same seed, the same times.
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
