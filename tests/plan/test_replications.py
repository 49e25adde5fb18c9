"""Replications: intervals, comparisons, sweeps; and random numbers."""

import math
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from msgspec import structs

from seawall.plan import (
    Arrivals,
    Clients,
    Eks,
    Lambda,
    Platform,
    Servers,
    Spike,
    Workload,
    exponential,
    from_flags,
    simulate,
)
from seawall.plan.decision.places.eks import eks
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.kernels.randomness import normal_quantile, uniform
from seawall.plan.simulator.replications import compare, estimate, interval, student_quantile, sweep
from tests.plan.models import unlimited, work


@pytest.mark.parametrize(
    ("freedom", "expected"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, table of Student's t, 0.975
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (100, 1.984)],
)
def test_students_quantiles_are_the_published_ones(freedom: int, expected: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=6e-4)


def test_an_interval_contains_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    inside = sum(
        abs(found.mean) <= found.half
        for found in (interval(random.normal(size=5).tolist()) for _ in range(4_000))
    )
    assert inside / 4_000 == pytest.approx(0.95, abs=0.012)
    assert interval([1.0]).half == math.inf


def test_estimates_stop_at_their_precision() -> None:
    workload = work(3.2, exponential(1.0), 5_000.0)
    rough = estimate(workload, Servers(slots=4), lambda r: r.wait.mean, relative=0.2)
    fine = estimate(workload, Servers(slots=4), lambda r: r.wait.mean, relative=0.06)
    assert rough.half <= 0.2 * rough.mean
    assert fine.half <= 0.06 * fine.mean
    assert len(rough.values) < len(fine.values) < 64
    unsure = estimate(workload, Servers(slots=4), lambda r: r.wait.mean, relative=1e-6, most=6)
    assert len(unsure.values) == 6


def test_common_random_numbers_need_few_runs() -> None:
    """Five slots or six: the difference needs fewer runs than either figure by itself."""
    workload = work(4.0, exponential(1.0), 2_000.0)
    both = compare(
        workload, Servers(slots=5), Servers(slots=6), lambda r: r.wait.mean, relative=0.1
    )
    assert both.low > 0
    alone = [
        interval([simulate(workload, Servers(slots=slots), seed=seed).wait.mean
                  for seed in range(1, len(both.values) + 1)])
        for slots in (5, 6)
    ]  # fmt: skip
    assert both.half < alone[0].half


def test_a_sweep_equals_single_runs() -> None:
    crowd = Workload(arrivals=Arrivals(horizon=60.0, rate=20.0, spikes=(Spike(500, 5.0),)))
    platforms: list[Platform] = [Lambda(), Lambda(snapstart=True), Eks(pods=2), Servers(slots=9)]
    together = sweep([(crowd, each) for each in platforms], seed=4, workers=3)
    for platform, result in zip(platforms, together, strict=True):
        assert repr(result.as_dict()) == repr(simulate(crowd, platform, seed=4).as_dict())


def test_seeds_are_independent() -> None:
    workload = work(5.0, exponential(1.0), 1_000.0)
    counts = [simulate(workload, unlimited(), seed=seed).requests for seed in range(200)]
    assert len(set(counts)) > 50
    assert np.mean(counts) == pytest.approx(5_000, abs=4 * math.sqrt(5_000 / 200))
    assert np.var(counts) == pytest.approx(5_000, rel=0.4)


def test_splitmix64_is_the_published_one() -> None:
    """Its first numbers for the seed 1234567 (Vigna's splitmix64.c, as in many test suites)."""
    published = (
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
        16408922859458223821,
    )  # fmt: skip
    for index, expected in enumerate(published, start=1):
        found = uniform(np.uint64(1234567), index)
        assert found == (expected >> 11) * 2.0**-53 + 2.0**-54


def test_normal_quantiles() -> None:
    for p in (1e-12, 1e-4, 0.02425, 0.1, 0.5, 0.9, 0.976, 0.9999):
        assert normal_quantile(p) == pytest.approx(NormalDist().inv_cdf(p), rel=2e-9, abs=2e-9)


def test_memory_does_not_grow_with_requests() -> None:
    """Fifty times as many in the same time: the same arrays."""

    def peak(rate: float, platform: Platform) -> int:
        workload = work(rate, exponential(0.05), 2_000.0)
        tracemalloc.start()
        simulate(workload, platform)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    for platform in (Servers(slots=1_000), Lambda(), Eks(pods=2)):
        assert peak(500.0, platform) < 1.5 * peak(10.0, platform) + 8_000_000


def test_outcomes_without_refusals_are_shared_between_clients() -> None:
    """Clients with more or fewer retries are simulated again only if there are refusals."""
    base = from_flags(daily="86400", spikes=("300@20s",), duration="2s", start="1s")
    keen = structs.replace(base, clients=Clients(retries=8, backoff=0.1))
    runs = SimulationRunner()
    for least, same in ((3, True), (1, False)):
        found = []
        for workload in (base, keen):
            question = Question(workload=workload)
            month = month_of(question)
            candidate = eks(question, month, cores=0.4, pods=least)
            if not same:
                peak = structs.replace(candidate.peak, pods=1, scaler=None, concurrency=20, queue=5)
                candidate = structs.replace(candidate, peak=peak)
            found.append(runs.judged(candidate, month.judged))
            alone = SimulationRunner()
            again = alone.judged(candidate, month.judged)
            alone.close()
            assert found[-1].latency == again.latency
            assert (found[-1].served, found[-1].refused) == (again.served, again.refused)
        assert (found[0] is found[1]) == same
    assert runs.simulations == 3
    runs.close()
