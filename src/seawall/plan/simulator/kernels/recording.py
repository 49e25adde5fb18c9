"""What a run counts: a histogram of logarithmic buckets, and levels over time."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels.compiled import inlined

__all__ = ["BUCKETS", "SUB_BITS", "bucket", "bucket_edges", "place"]

SUB_BITS = 6  # buckets in an octave, as a power of two: at most 1.6 % wide
_LOWEST = 1003  # the biased exponent of 2**-20: below a microsecond is zero
_OCTAVES = 44
BUCKETS = 1 + (_OCTAVES << SUB_BITS)


@inlined
def bucket(value: float) -> int:
    """The bucket of a time in seconds: 0 under a microsecond, then by exponent and mantissa."""
    bits = np.float64(value).view(np.int64)
    index = int(bits >> (52 - SUB_BITS)) - (_LOWEST << SUB_BITS) + 1
    if index < 0:
        return 0
    return BUCKETS - 1 if index >= BUCKETS else index


def bucket_edges() -> NDArray[np.float64]:
    """The edges of the buckets, BUCKETS + 1 of them, in seconds; the first bucket starts at 0."""
    number = np.arange(BUCKETS) + (_LOWEST << SUB_BITS)
    edges = (number << (52 - SUB_BITS)).astype(np.int64).view(np.float64)
    return np.concatenate(([0.0], edges))


@inlined
def place(time: float, width: float, bins: int) -> int:
    """The bin of a time; what is later than the last is in the last."""
    return min(int(time / width), bins - 1)
