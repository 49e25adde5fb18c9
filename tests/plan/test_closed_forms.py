"""The simulator against queueing theory: within the confidence interval of independent runs."""

import math

import numpy as np
import pytest

from seawall.plan import (
    Arrivals,
    Distribution,
    Eks,
    Nodes,
    Servers,
    Service,
    Spike,
    Stage,
    Workload,
    constant,
    exponential,
    lognormal,
    simulate,
    uniform,
)
from tests.plan import closed_forms as exact
from tests.plan.models import PATIENT, agrees, measured, unlimited, work
from tests.properties import number_of_examples


def test_erlang_b_and_c_are_the_published_values() -> None:
    # Tables of Erlang B: 10 servers, 5 erlangs: 0.018385; 20 and 15: 0.045593 (Angus 2001).
    assert exact.erlang_b(10, 5.0) == pytest.approx(0.018385, abs=5e-7)
    assert exact.erlang_b(20, 15.0) == pytest.approx(0.045593, abs=1e-5)
    assert exact.erlang_c(1, 0.7) == pytest.approx(0.7)  # M/M/1: the load itself
    assert exact.mmck_blocking(3, 2.0, 3) == pytest.approx(exact.erlang_b(3, 2.0))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (4, 0.8), (50, 0.95)])
def test_waits_of_mmc(servers: int, load: float) -> None:
    rate = servers * load
    requests = number_of_examples(1_000_000, 2_000_000) if load > 0.9 else 200_000
    workload = work(rate, exponential(1.0), requests / rate)
    found = measured(workload, Servers(slots=servers), lambda r: r.wait.mean)
    agrees(found, exact.mmc_wait(servers, rate, 1.0))


@pytest.mark.parametrize(("servers", "room", "rate"), [(5, 5, 4.0), (5, 12, 5.5), (1, 4, 0.9)])
def test_blocking_and_waits_of_mmck(servers: int, room: int, rate: float) -> None:
    workload = work(rate, exponential(1.0), 100_000.0 / rate)
    platform = Servers(slots=servers, queue=room - servers)
    blocked = measured(workload, platform, lambda r: r.refused / r.requests)
    agrees(blocked, exact.mmck_blocking(servers, rate, room))
    if room > servers:
        waits = measured(workload, platform, lambda r: r.wait.mean)
        agrees(waits, exact.mmck_wait(servers, rate, 1.0, room))


def test_blocking_does_not_depend_on_the_shape_of_service() -> None:
    """M/G/c/c: by load alone; here as environments under the account's limit."""
    workload = work(8.0, uniform(0.5, 1.5), 20_000.0)
    found = measured(workload, unlimited(account_limit=10), lambda r: r.refused / r.requests)
    agrees(found, exact.erlang_b(10, 8.0))


@pytest.mark.parametrize(
    ("service", "second"),
    [(constant(0.8), 0.64), (uniform(0.0, 1.6), 1.6**2 / 3), (exponential(0.8), 2 * 0.64)],
)
def test_pollaczek_khinchine(service: Distribution, second: float) -> None:
    found = measured(work(1.0, service, 100_000.0), Servers(slots=1), lambda r: r.wait.mean, 20)
    agrees(found, exact.pollaczek_khinchine(1.0, 0.8, second))


@pytest.mark.parametrize("service", [exponential(2.0), constant(2.0), lognormal(1.5, 7.0)])
def test_occupancy_of_mg_infinity(service: Distribution) -> None:
    """Poisson with mean rate times service: its mean, and a variance like its mean."""
    from seawall.plan.inputs.distributions import mean_of  # noqa: PLC0415

    workload = work(10.0, service, 20_000.0)
    found = measured(workload, unlimited(), lambda r: r.mean_busy)
    load = 10.0 * mean_of(service)
    agrees(found, load)
    steady = slice(100, 19_900)
    spread = measured(
        workload, unlimited(), lambda r: float(np.var(r.seconds["in_service"][steady]))
    )
    agrees(spread, load, width=2.5)


def test_littles_law() -> None:
    """Number in the system = rate of those taken times their time in it, in every run."""
    for platform in (Servers(slots=4, queue=6), unlimited()):
        result = simulate(work(4.0, exponential(1.0), 50_000.0), platform, seed=3)
        inside = result.seconds["in_service"] + result.seconds["queued"]
        mean = inside[100:49_900].mean()
        rate = result.served / 50_000.0
        assert mean == pytest.approx(rate * result.latency.mean, rel=0.02)


@pytest.mark.parametrize(("rate", "idle"), [(5.0, 10.0), (0.9, 60.0), (0.02, 30.0)])
def test_cold_starts_and_idle_environments(rate: float, idle: float) -> None:
    seconds = number_of_examples(100_000, 300_000) if rate > 1.0 else 300_000
    workload = work(rate, exponential(1.0), float(seconds))
    platform = unlimited(idle_seconds=idle)
    cold = measured(workload, platform, lambda r: r.cold_share)
    agrees(cold, exact.cold_start_share(rate, 1.0, idle))
    spare = measured(workload, platform, lambda r: r.mean_capacity - r.mean_busy)
    agrees(spare, exact.idle_environments(rate, 1.0, idle))


def test_cold_start_share_at_little_traffic() -> None:
    """Service of no length: cold without an arrival for `idle` seconds, exp(-rate idle)."""
    assert exact.cold_start_share(0.01, 1e-6, 100.0) == pytest.approx(math.exp(-1.0), rel=1e-3)
    found = measured(
        work(0.01, constant(0.001), 3e6), unlimited(idle_seconds=100.0), lambda r: r.cold_share
    )
    agrees(found, math.exp(-1.0))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_pods_processor_is_shared(load: float) -> None:
    """M/G/1 with processor sharing: mean time s / (1 - load), whatever the shape (Kleinrock)."""
    cpu = 0.01
    workload = Workload(
        arrivals=Arrivals(horizon=3_000.0, rate=load / cpu),
        service=Service(stages=(Stage("work", constant(cpu), cpu_ms=cpu * 1e3),)),
        clients=PATIENT,
    )
    platform = Eks(pods=1, cores=1.0, concurrency=10_000, memory_mb=100_000)
    agrees(measured(workload, platform, lambda r: r.latency.mean, 6), cpu / (1.0 - load))
    agrees(measured(workload, platform, lambda r: r.usage.cpu_seconds / 3_000.0, 6), load)


def test_a_saturated_pod_slows_down() -> None:
    """A thousand at once, 10 ms each on two cores: all are done after 5 s, and all at the end."""
    workload = Workload(
        arrivals=Arrivals(horizon=20.0, spikes=(Spike(1_000, 1.0),)),
        service=Service(stages=(Stage("work", constant(0.01), cpu_ms=10.0),)),
        clients=PATIENT,
    )
    nodes = Nodes(pods_each=1)
    result = simulate(workload, Eks(pods=1, cores=2.0, concurrency=1_000, nodes=nodes))
    assert result.latency.quantile(0.0) == pytest.approx(5.0, rel=0.02)
    assert result.latency.quantile(1.0) == pytest.approx(5.0, rel=0.02)
    assert result.usage.cpu_seconds == pytest.approx(10.0)
