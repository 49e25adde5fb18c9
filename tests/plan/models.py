"""Small workloads and platforms with known results, and helpers for estimates."""

import math
from collections.abc import Callable
from typing import Any

from seawall.plan import (
    Arrivals,
    Clients,
    Distribution,
    Lambda,
    Platform,
    Result,
    Service,
    Stage,
    Workload,
    constant,
    simulate,
)
from seawall.plan.simulator.replications import Estimate, interval

PATIENT = Clients(retries=0, patience=math.inf)


def work(
    rate: float, service: Distribution, horizon: float, *, cold: Distribution | None = None
) -> Workload:
    """Poisson arrivals, one stage, clients that neither time out nor retry."""
    return Workload(
        arrivals=Arrivals(horizon=horizon, rate=rate),
        service=Service(stages=(Stage("work", service),), start=constant(0.0), cold_request=cold),
        clients=PATIENT,
    )


def unlimited(**fields: object) -> Lambda:
    """Environments without any limit but what is given."""
    base: dict[str, object] = {
        "account_limit": 100_000,
        "start_rate": math.inf,
        "start_burst": math.inf,
        "invocations_per_concurrency": math.inf,
        "lifetime": math.inf,
        "sandbox": constant(0.0),
    }
    return Lambda(**(base | fields))  # type: ignore[arg-type]


_latest: list[Any] = []  # what was simulated, and its results


def measured(
    workload: Workload, platform: Platform, measure: Callable[[Result], float], runs: int = 8
) -> Estimate:
    key = (workload, platform, runs)
    if key not in _latest:  # several measures are asked for one after the other
        _latest[:] = [key, [simulate(workload, platform, seed=seed) for seed in range(1, runs + 1)]]
    return interval([measure(each) for each in _latest[1]])


def agrees(estimate: Estimate, exact: float, width: float = 1.8) -> None:
    """Within the interval: 1.8 times that of 95 %, or one test in twenty would fail by chance."""
    assert abs(estimate.mean - exact) <= width * estimate.half, (
        f"{estimate.mean:.6g} ± {estimate.half:.2g}, exactly {exact:.6g}"
    )
    assert estimate.half <= 0.1 * abs(exact) + 1e-3, f"too wide to say: {estimate.half:.2g}"
