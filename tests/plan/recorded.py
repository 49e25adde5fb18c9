"""Runs whose figures were recorded before the loops were made faster.

`python -m tests.plan.recorded` records them again, which is right only after a rule has changed.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from seawall.plan import (
    Arrivals,
    Clients,
    Eks,
    HpaSettings,
    KedaSettings,
    Lambda,
    Managed,
    Nodes,
    Platform,
    Result,
    Scheduled,
    Service,
    Spike,
    Stage,
    Tracking,
    Workload,
    constant,
    empirical,
    exponential,
    lognormal,
    simulate,
)

__all__ = ["FILE", "SCENARIOS", "figures"]

FILE = Path(__file__).with_name("recorded.json")
HEAVY = Service(
    stages=(
        Stage("before", exponential(0.2), cpu_ms=20.0),
        Stage("model", lognormal(1.0, 4.0), cpu_ms=30.0, model=True),
        Stage("after", empirical([0.05, 0.1, 0.4]), cpu_ms=10.0, store_calls=1),
    )
)
IMPATIENT = Clients(retries=4, patience=2.5, retry_timeouts=True)


def _steady(rate: float, horizon: float = 400.0) -> Workload:
    return Workload(arrivals=Arrivals(horizon=horizon, rate=rate))


USUAL, KEEN = Service(), Clients()


def _crowd(size: int, clients: Clients = KEEN, service: Service = USUAL) -> Workload:
    arrivals = Arrivals(horizon=150.0, rate=14.0, spikes=(Spike(size, 30.0), Spike(99, 60.0, 20.0)))
    return Workload(arrivals=arrivals, clients=clients, service=service)


SCENARIOS: dict[str, tuple[Workload, Platform]] = {
    "lambda, steady": (_steady(100.0), Lambda()),
    "lambda, newest": (_steady(50.0), Lambda(reuse="newest", idle_seconds=20.0, lifetime=90.0)),
    "lambda, crowd": (_crowd(5_000), Lambda(account_limit=10_000)),
    "lambda, impatient": (_crowd(900, IMPATIENT, HEAVY), Lambda(memory_mb=256, timeout=3.0)),
    "lambda, provisioned": (
        _crowd(600),
        Lambda(provisioned=100, schedule=(Scheduled(20.0, 400),), tracking=Tracking(out_minutes=1)),
    ),
    "lambda, cold measured": (
        Workload(
            arrivals=Arrivals(horizon=9_000.0, rate=0.9),
            service=Service(
                stages=(Stage("work", exponential(1.991)),), cold_request=exponential(2.244)
            ),
        ),
        Lambda(start_rate=math.inf, start_burst=math.inf),
    ),
    "eks, steady": (_steady(100.0), Eks(pods=10)),
    "eks, autoscaler": (_steady(100.0), Eks(pods=10, scaler=HpaSettings())),
    "eks, crowd": (_crowd(5_000), Eks(pods=6, cores=0.85, concurrency=1_000)),
    "eks, busy processors": (_crowd(800, service=HEAVY), Eks(pods=3, cores=0.6)),
    "eks, impatient": (_crowd(900, IMPATIENT, HEAVY), Eks(pods=3, concurrency=40, queue=30)),
    "eks, random": (_crowd(900, service=HEAVY), Eks(pods=4, balance="random", queue_seconds=2.0)),
    "eks, round robin": (_crowd(500), Eks(pods=3, balance="round-robin", concurrency=100)),
    "eks, in-flight": (
        _crowd(2_000),
        Eks(pods=2, scaler=HpaSettings(metric="in-flight", target=40.0, maximum=40)),
    ),
    "eks, keda": (_crowd(400), Eks(pods=0, scaler=KedaSettings(target=20.0))),
    "eks, deployment": (_crowd(700), Eks(pods=4, deploys=(28.0,), grace=4.0, prestop=1.0)),
    "eks, spot": (
        _crowd(300, service=HEAVY),
        Eks(pods=6, nodes=Nodes(pods_each=2, spot_interruptions=90.0), grace=3.0),
    ),
    "eks, many cores": (_crowd(1_500, service=HEAVY), Eks(pods=2, cores=3.5)),
    "managed": (_crowd(300), Managed(minimum=3, maximum=9)),
    "managed, processes": (_crowd(60, service=HEAVY), Managed(runtime="processes", vcpus=2.0)),
    "no waits": (
        Workload(
            arrivals=Arrivals(horizon=300.0, rate=160.0),
            service=Service(stages=(Stage("work", constant(0.01), cpu_ms=10.0),)),
        ),
        Eks(pods=2),
    ),
}


def figures(result: Result) -> dict[str, Any]:
    """The figures of a run without those of its identity, and the sum of each array over time."""
    found = result.as_dict()
    found["sums"] = {name: float(np.nansum(array)) for name, array in result.seconds.items()}
    return found


def main() -> None:
    """Record all."""
    runs = {name: figures(simulate(*run, seed=7)) for name, run in SCENARIOS.items()}
    FILE.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
