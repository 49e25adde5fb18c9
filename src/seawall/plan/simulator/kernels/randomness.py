"""Counter-based random numbers: the n-th of a stream is a function of seed, stream and n.

So the requests of a run have the same durations on every platform (common random numbers), in
whatever order a platform serves them. The mixing function is SplitMix64's: Steele, Lea, Flood,
"Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled, inlined

__all__ = [
    "CONSTANT",
    "EMPIRICAL",
    "EXPONENTIAL",
    "LOGNORMAL",
    "UNIFORM",
    "draw",
    "normal_quantile",
    "stream",
    "uniform",
]

CONSTANT, UNIFORM, EXPONENTIAL, LOGNORMAL, EMPIRICAL = range(5)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@inlined
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@compiled
def stream(seed: np.uint64, number: int) -> np.uint64:
    """The state of stream `number` of a seed, to be passed on as np.uint64."""
    return _mix(_mix(np.uint64(seed) + _GOLDEN) + np.uint64(number) * _GOLDEN)


@inlined
def uniform(state: np.uint64, index: int) -> float:
    """The index-th number of a stream, in (0, 1)."""
    z = _mix(np.uint64(state) + np.uint64(index) * _GOLDEN)
    return float(z >> np.uint64(11)) * 2.0**-53 + 2.0**-54


@inlined
def normal_quantile(p: float) -> float:
    """The inverse of the standard normal distribution, p in (0, 1), to 1.2e-9 of its value.

    Source: P. J. Acklam's rational approximation.
    """
    if p < 0.02425 or p > 0.97575:
        tail = p if p < 0.5 else 1.0 - p
        q = math.sqrt(-2.0 * math.log(tail))
        top = -7.784894002430293e-03 * q - 3.223964580411365e-01
        top = ((top * q - 2.400758277161838) * q - 2.549732539343734) * q + 4.374664141464968
        top = top * q + 2.938163982698783
        low = (7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996
        low = (low * q + 3.754408661907416) * q + 1.0
        x = top / low if p < 0.5 else -top / low
    else:
        q = p - 0.5
        r = q * q
        top = (-3.969683028665376e01 * r + 2.209460984245205e02) * r - 2.759285104469687e02
        top = ((top * r + 1.383577518672690e02) * r - 3.066479806614716e01) * r
        top += 2.506628277459239
        low = (-5.447609879822406e01 * r + 1.615858368580409e02) * r - 1.556989798598866e02
        low = ((low * r + 6.680131188771972e01) * r - 1.328068155288572e01) * r + 1.0
        x = top * q / low
    return x


@inlined
def draw(rows: NDArray[np.float64], tables: NDArray[np.float64], row: int, u: float) -> float:
    """One value of the distribution in a row, from one uniform number.

    rows: [kind, a, b, cap, shift] each; the shift is added, and nothing is below 0.
    Constant: a. Uniform: a to b. Exponential: mean a, shifted by b.
    Lognormal: exp of a normal with mean a, deviation b. Empirical: `tables[a : a + b]` are its
    quantiles, evenly spaced. Values above the cap are the cap.
    """
    kind = int(rows[row, 0])
    a = rows[row, 1]
    b = rows[row, 2]
    if kind == CONSTANT:
        return float(max(0.0, a + rows[row, 4]))
    if kind == UNIFORM:
        value = a + (b - a) * u
    elif kind == EXPONENTIAL:
        value = b - a * math.log(u)
    elif kind == LOGNORMAL:
        value = math.exp(a + b * normal_quantile(u))
    else:
        position = u * (b - 1.0)
        low = int(position)
        start = int(a) + low
        if low + 1 < int(b):
            value = tables[start] + (position - low) * (tables[start + 1] - tables[start])
        else:
            value = tables[start]
    return float(max(0.0, min(value, rows[row, 3]) + rows[row, 4]))
