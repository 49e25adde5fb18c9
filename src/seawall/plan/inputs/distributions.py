"""Distributions of times and amounts, as data, and the validation of numbers."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from seawall.errors import ConfigError

__all__ = [
    "Distribution",
    "check_amounts",
    "constant",
    "empirical",
    "encode",
    "exponential",
    "lognormal",
    "mean_of",
    "quantile_of",
    "scaled",
    "uniform",
]

_KINDS = ("constant", "uniform", "exponential", "lognormal", "empirical")


class Distribution(Struct, frozen=True):
    """How a quantity varies. Made by the functions of this module, which validate it.

    Attributes:
        kind: `constant`: always `a`. `uniform`: between `a` and `b`. `exponential`: mean `a`,
            shifted by `b`. `lognormal`: `a` and `b` are mean and deviation of the logarithm.
            `empirical`: interpolated linearly between `values`.
        a: First parameter.
        b: Second parameter.
        values: Sorted quantiles, evenly spaced; for `empirical`.
        cap: Greater values are cut to this.
    """

    kind: Literal["constant", "uniform", "exponential", "lognormal", "empirical"]
    a: float = 0.0
    b: float = 0.0
    values: tuple[float, ...] = ()
    cap: float = math.inf


def check_amounts(where: str, **numbers: float) -> None:
    """Check that numbers are finite and not negative.

    Raises:
        ConfigError: One is not; it is named `where.name`.
    """
    for name, number in numbers.items():
        _check(f"{where}.{name}", number)


def _check(field: str, *numbers: float) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise ConfigError(f"{field}: {number} is not a number")
        if number < 0:
            raise ConfigError(f"{field}: {number:g} is negative")


def constant(value: float, *, field: str = "distribution") -> Distribution:
    """A distribution with one value. Raises ConfigError, naming `field`, if it is invalid."""
    _check(field, value)
    return Distribution("constant", float(value))


def uniform(low: float, high: float, *, field: str = "distribution") -> Distribution:
    """Every value between `low` and `high` equally likely. Raises ConfigError, naming `field`."""
    _check(field, low, high)
    if low > high:
        raise ConfigError(f"{field}: the minimum, {low:g}, exceeds the maximum, {high:g}")
    return constant(low) if low == high else Distribution("uniform", float(low), float(high))


def exponential(mean: float, *, least: float = 0.0, field: str = "distribution") -> Distribution:
    """An exponential distribution of this mean, shifted by `least`. Raises ConfigError."""
    _check(field, mean, least)
    return Distribution("exponential", float(mean), float(least))


def lognormal(
    median: float, p99: float, *, field: str = "distribution", cap: float = math.inf
) -> Distribution:
    """A lognormal distribution by its median and 99th percentile. Raises ConfigError."""
    _check(field, median, p99)
    if not 0 < median <= p99:
        raise ConfigError(f"{field}: a median of {median:g} and a 99th percentile of {p99:g}")
    deviation = math.log(p99 / median) / NormalDist().inv_cdf(0.99)
    return Distribution("lognormal", math.log(median), deviation, cap=cap)


def empirical(values: Sequence[float], *, field: str = "distribution") -> Distribution:
    """A distribution of measured values: at most 1,001 of their quantiles. Raises ConfigError."""
    if not len(values):
        raise ConfigError(f"{field}: no values")
    measured = np.asarray(values, dtype=np.float64)
    _check(field, float(measured.min()), float(measured.max()), float(measured.sum()))
    if len(measured) > 1_001:
        measured = np.quantile(measured, np.linspace(0.0, 1.0, 1_001))
    return Distribution("empirical", values=tuple(np.sort(measured).tolist()))


def mean_of(distribution: Distribution) -> float:
    """Its mean, without regard to the cap."""
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
    """The quantile at `share`, which is between 0 and 1."""
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


def scaled(distribution: Distribution, factor: float) -> Distribution:
    """The distribution with all values multiplied by a factor."""
    if distribution.kind == "lognormal":
        return structs.replace(
            distribution, a=distribution.a + math.log(factor), cap=distribution.cap * factor
        )
    return structs.replace(
        distribution,
        a=distribution.a * factor,
        b=distribution.b * factor,
        values=tuple(value * factor for value in distribution.values),
        cap=distribution.cap * factor,
    )


def encode(
    distributions: Sequence[Distribution], shifts: Sequence[float] = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Encode distributions for the compiled loops.

    Args:
        distributions: One for each row.
        shifts: Seconds to add to the values drawn from the first distributions.

    Returns:
        Rows `[kind, a, b, cap, shift]`, shape (n, 5), and the table of all empirical quantiles, as
        `kernels.randomness.draw` reads them.
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
