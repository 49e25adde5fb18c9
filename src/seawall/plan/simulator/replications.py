"""Replications with other seeds: confidence intervals, and comparisons of platforms."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist, fmean, stdev

from msgspec import Struct

from seawall.plan.inputs.platforms import Platform
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.result import Result
from seawall.plan.simulator.simulate import simulate

__all__ = ["Estimate", "compare", "estimate", "interval", "student_quantile", "sweep"]

Measure = Callable[[Result], float]


class Estimate(Struct, frozen=True):
    """A mean over replications; its 95 % confidence interval is from mean - half to mean + half."""

    mean: float
    half: float
    values: tuple[float, ...]

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half


def student_quantile(share: float, freedom: int) -> float:
    """A quantile of Student's distribution.

    Exact for one and two degrees of freedom, for more by Hill's expansion, to 0.3 % at three and
    better above. Source: G. W. Hill, Algorithm 396, Communications of the ACM 13(10), 1970.
    """
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        a = 2.0 * share - 1.0
        return a * math.sqrt(2.0 / (1.0 - a * a))
    p = 2.0 * (1.0 - share)
    a = 1.0 / (freedom - 0.5)
    b = 48.0 / (a * a)
    c = ((20_700.0 * a / b - 98.0) * a - 16.0) * a + 96.36
    d = ((94.5 / (b + c) - 3.0) / b + 1.0) * math.sqrt(a * math.pi / 2.0) * freedom
    x = d * p
    y = x ** (2.0 / freedom)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(p * 0.5)
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b
        y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x
        y = a * y * y
        y = math.expm1(y)
    else:
        near = 1.0 / (
            ((freedom + 6.0) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2.0) * 3.0
        ) + 0.5 / (freedom + 4.0)
        y = (near * y - 1.0) * (freedom + 1.0) / (freedom + 2.0) + 1.0 / y
    return math.sqrt(freedom * y)


def interval(values: Sequence[float]) -> Estimate:
    """The mean of independent values with its interval; infinite for fewer than two values."""
    mean = fmean(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Estimate(mean, math.inf, tuple(values))
    error = stdev(values) / math.sqrt(len(values))
    half = student_quantile(0.975, len(values) - 1) * error
    return Estimate(mean, half, tuple(values))


def _until_narrow(
    draw: Callable[[int], float], relative: float, absolute: float, fewest: int, most: int
) -> Estimate:
    values: list[float] = []
    for seed in range(1, most + 1):
        values.append(draw(seed))
        if len(values) >= fewest:
            found = interval(values)
            if found.half <= max(absolute, relative * abs(found.mean)):
                return found
    return interval(values)


def estimate(
    workload: Workload,
    platform: Platform,
    measure: Measure,
    *,
    relative: float = 0.05,
    absolute: float = 0.0,
    fewest: int = 4,
    most: int = 64,
) -> Estimate:
    """Estimate a figure of the result by as many runs as the precision requires.

    Args:
        workload: Simulated with the seeds 1, 2, ….
        platform: That serves it.
        measure: The figure.
        relative: Stop when half the interval is at most this share of the mean.
        absolute: Stop when half the interval is at most this.
        fewest: Runs at least.
        most: Runs at most.
    """
    return _until_narrow(
        lambda seed: measure(simulate(workload, platform, seed=seed)),
        relative, absolute, fewest, most,
    )  # fmt: skip


def compare(
    workload: Workload,
    one: Platform,
    other: Platform,
    measure: Measure,
    *,
    relative: float = 0.05,
    absolute: float = 0.0,
    fewest: int = 4,
    most: int = 64,
) -> Estimate:
    """Estimate by how much a figure is greater on `one` than on `other`; see `estimate`.

    Both get the same requests with the same durations (common random numbers), so that only the
    platforms differ and few runs suffice. An interval without 0 is significant.
    """

    def difference(seed: int) -> float:
        left = measure(simulate(workload, one, seed=seed))
        return left - measure(simulate(workload, other, seed=seed))

    return _until_narrow(difference, relative, absolute, fewest, most)


def sweep(
    runs: Iterable[tuple[Workload, Platform]], *, seed: int = 1, workers: int | None = None
) -> list[Result]:
    """Many runs in parallel, in threads: the compiled loops run without the GIL.

    Args:
        runs: Workloads and platforms.
        seed: Of every run.
        workers: Threads; by default as many as there are processors.

    Returns:
        The results in the order of `runs`.
    """
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda run: simulate(run[0], run[1], seed=seed), runs))
