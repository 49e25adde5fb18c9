"""The simulator beside simulations by another method: within ten per cent, eight systems."""

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

from seawall.plan import (
    Arrivals,
    Clients,
    Distribution,
    Eks,
    Lambda,
    Result,
    Service,
    Spike,
    Stage,
    Workload,
    constant,
    exponential,
    simulate,
    uniform,
)
from tests.plan.independent import Found, functions, pods

SEEDS = 6


def near(found: list[Found], ours: list[Result], *, cold: bool = True) -> None:
    """Each figure within a tenth, or, of counts, within 4 + 2 % of the requests."""
    requests = fmean(each.requests for each in ours)
    slack = 4.0 + 0.02 * requests

    def same(of: Callable[[Any], float], absolute: float = 0.0) -> None:
        theirs, mine = fmean(map(of, found)), fmean(map(of, ours))
        assert mine == pytest.approx(theirs, rel=0.1, abs=absolute), (mine, theirs)

    same(lambda each: each.requests)
    same(lambda each: each.served)
    same(lambda each: each.refused, slack)
    if cold:
        theirs = fmean(each.cold for each in found)
        mine = fmean(each.cold_starts for each in ours)
        assert mine == pytest.approx(theirs, rel=0.1, abs=4.0)
    for share in (0.5, 0.9, 0.99):
        theirs = fmean(each.quantile(share) for each in found)
        mine = fmean(each.latency.quantile(share) for each in ours)
        assert mine == pytest.approx(theirs, rel=0.1), (share, mine, theirs)


def stage(seconds: Distribution) -> Service:
    return Service(stages=(Stage("work", seconds),), start=constant(1.0))


FUNCTIONS: dict[str, tuple[dict[str, Any], Distribution, dict[str, Any]]] = {
    "steady": (
        {"rate": 8.0, "horizon": 300.0, "service": lambda d: d.uniform(1.0, 3.0)},
        uniform(1.0, 3.0), {},
    ),
    "little traffic, idle environments reclaimed": (
        {"rate": 0.02, "horizon": 60_000.0, "service": lambda d: d.expovariate(0.5), "idle": 40.0},
        exponential(2.0), {"idle_seconds": 40.0},
    ),
    "a crowd, the scaling rate and retries": (
        {"rate": 5.0, "horizon": 60.0, "crowd": 900, "at": 20.0, "burst": 100.0, "refill": 10.0,
         "retries": 3, "service": lambda d: d.uniform(4.0, 7.0)},
        uniform(4.0, 7.0), {"start_burst": 100.0, "start_rate": 10.0},
    ),
    "the account's limit": (
        {"rate": 20.0, "horizon": 200.0, "limit": 50, "retries": 1,
         "service": lambda d: d.uniform(1.0, 4.0)},
        uniform(1.0, 4.0), {"account_limit": 50},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    theirs, seconds, fields = FUNCTIONS[name]
    found = [functions(seed, start=1.0, **theirs) for seed in range(SEEDS)]
    crowd = (Spike(theirs["crowd"], theirs["at"]),) if "crowd" in theirs else ()
    workload = Workload(
        arrivals=Arrivals(horizon=theirs["horizon"], rate=theirs["rate"], spikes=crowd),
        service=stage(seconds),
        clients=Clients(retries=theirs.get("retries", 0), patience=math.inf),
    )
    base: dict[str, Any] = {
        "account_limit": 100_000, "start_rate": math.inf, "start_burst": math.inf,
        "sandbox": constant(0.0), "lifetime": math.inf, "invocations_per_concurrency": math.inf,
    }  # fmt: skip
    platform = Lambda(**(base | fields))
    near(found, [simulate(workload, platform, seed=seed) for seed in range(SEEDS)])


PODS: dict[str, dict[str, Any]] = {
    "steady": {"rate": 15.0, "horizon": 60.0, "fleet": 3, "cores": 1.0, "slots": 100},
    "busy processors": {"rate": 22.0, "horizon": 60.0, "fleet": 2, "cores": 0.8, "slots": 500},
    "a crowd with queue and shedding": {
        "rate": 4.0, "horizon": 40.0, "crowd": 260, "at": 10.0, "fleet": 3, "cores": 1.5,
        "slots": 40, "queue": 30, "longest": 2.5,
    },
    "too few slots, and retries": {
        "rate": 20.0, "horizon": 60.0, "fleet": 2, "cores": 2.0, "slots": 12, "queue": 4,
        "longest": 5.0, "retries": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PODS)
def test_pods(name: str) -> None:
    settings = PODS[name]
    found = [
        pods(seed, before=0.02, after=0.04, wait=lambda d: d.uniform(0.5, 2.5), **settings)
        for seed in range(SEEDS)
    ]
    crowd = (Spike(settings["crowd"], settings["at"]),) if "crowd" in settings else ()
    service = Service(
        stages=(
            Stage("before", constant(0.02), cpu_ms=20.0),
            # Its processor time is after the wait, and is part of its time.
            Stage("model", uniform(0.54, 2.54), cpu_ms=40.0, model=True),
        )
    )
    workload = Workload(
        arrivals=Arrivals(horizon=settings["horizon"], rate=settings["rate"], spikes=crowd),
        service=service,
        clients=Clients(retries=settings.get("retries", 0), patience=math.inf),
    )
    platform = Eks(
        pods=settings["fleet"], cores=settings["cores"], concurrency=settings["slots"],
        queue=settings.get("queue", 0), queue_seconds=settings.get("longest", 1e9),
        memory_mb=1e6,
    )  # fmt: skip
    ours = [simulate(workload, platform, seed=seed) for seed in range(SEEDS)]
    near(found, ours, cold=False)
    mine = fmean(each.mean_busy * settings["horizon"] for each in ours)
    assert mine == pytest.approx(fmean(each.busy_seconds for each in found), rel=0.1)
