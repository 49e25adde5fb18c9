"""Distributions of times and amounts, as data: how they are written, checked and handed on."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = [
    "Distribution",
    "constant",
    "empirical",
    "encode",
    "exponential",
    "lognormal",
    "mean_of",
    "quantile_of",
    "uniform",
]

_KINDS = ("constant", "uniform", "exponential", "lognormal", "empirical")


class Distribution(Struct, frozen=True):
    """How a quantity varies. Make one with the functions beside it, which check it.

    constant: a. uniform: between a and b. exponential: mean a, on top of b. lognormal: a and b
    are mean and deviation of the logarithm. empirical: `values`, sorted, with straight lines
    between. cap: what is greater is cut down to this.
    """

    kind: Literal["constant", "uniform", "exponential", "lognormal", "empirical"]
    a: float = 0.0
    b: float = 0.0
    values: tuple[float, ...] = ()
    cap: float = math.inf


def _check(field: str, *numbers: float) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise ConfigError(f"{field}: {number} is not a number")
        if number < 0:
            raise ConfigError(f"{field}: {number:g} is negative")


def constant(value: float, *, field: str = "distribution") -> Distribution:
    """Always the same."""
    _check(field, value)
    return Distribution("constant", float(value))


def uniform(low: float, high: float, *, field: str = "distribution") -> Distribution:
    """Anything between, equally likely."""
    _check(field, low, high)
    if low > high:
        raise ConfigError(f"{field}: from {low:g} to {high:g} goes backwards")
    return constant(low) if low == high else Distribution("uniform", float(low), float(high))


def exponential(mean: float, *, least: float = 0.0, field: str = "distribution") -> Distribution:
    """`least`, and an exponentially distributed time of this mean on top."""
    _check(field, mean, least)
    return Distribution("exponential", float(mean), float(least))


def lognormal(
    median: float, p99: float, *, field: str = "distribution", cap: float = math.inf
) -> Distribution:
    """By its median and 99th percentile."""
    _check(field, median, p99)
    if not 0 < median <= p99:
        raise ConfigError(f"{field}: a median of {median:g} and a 99th percentile of {p99:g}")
    deviation = math.log(p99 / median) / NormalDist().inv_cdf(0.99)
    return Distribution("lognormal", math.log(median), deviation, cap=cap)


def empirical(values: Sequence[float], *, field: str = "distribution") -> Distribution:
    """As it was measured: quantiles of these values, 1,001 of them at most."""
    if not len(values):
        raise ConfigError(f"{field}: no values")
    measured = np.asarray(values, dtype=np.float64)
    _check(field, float(measured.min()), float(measured.max()), float(measured.sum()))
    if len(measured) > 1_001:
        measured = np.quantile(measured, np.linspace(0.0, 1.0, 1_001))
    return Distribution("empirical", values=tuple(np.sort(measured).tolist()))


def mean_of(distribution: Distribution) -> float:
    """Its mean, where there is no cap."""
    match distribution.kind:
        case "constant":
            return distribution.a
        case "uniform":
            return (distribution.a + distribution.b) / 2.0
        case "exponential":
            return distribution.a + distribution.b
        case "lognormal":
            return math.exp(distribution.a + distribution.b**2 / 2.0)
        case _:
            values = np.asarray(distribution.values)
            return float(np.trapezoid(values) / (len(values) - 1)) if len(values) > 1 else values[0]


def quantile_of(distribution: Distribution, share: float) -> float:
    """What this share of it does not exceed. share: between 0 and 1."""
    a, b = distribution.a, distribution.b
    match distribution.kind:
        case "constant":
            found = a
        case "uniform":
            found = a + share * (b - a)
        case "exponential":
            found = b - a * math.log1p(-share)
        case "lognormal":
            found = math.exp(a + b * NormalDist().inv_cdf(share))
        case _:
            found = float(np.quantile(np.asarray(distribution.values), share))
    return min(found, distribution.cap)


def encode(
    distributions: Sequence[Distribution], shifts: Sequence[float] = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and the table of quantiles as `kernels.randomness.draw` reads them.

    shifts: seconds to add to what is drawn of the first ones.
    """
    rows = np.zeros((len(distributions), 5))
    rows[: len(shifts), 4] = shifts
    table: list[float] = []
    for row, each in zip(rows, distributions, strict=True):
        a, b = each.a, each.b
        if each.kind == "empirical":
            a, b = float(len(table)), float(len(each.values))
            table.extend(each.values)
        row[:4] = (_KINDS.index(each.kind), a, b, each.cap)
    return rows, np.asarray(table, dtype=np.float64)
