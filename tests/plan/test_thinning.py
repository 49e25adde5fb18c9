"""A fraction of a large system finds what the whole does: errors of it stated and bounded here."""

import math

import pytest
from msgspec import structs

from seawall.plan import (
    Arrivals,
    Eks,
    HpaSettings,
    Lambda,
    Managed,
    Platform,
    Spike,
    Workload,
    from_flags,
    simulate,
)
from seawall.plan.decision.places.eks import eks
from seawall.plan.decision.places.lambda_function import CLASSIC, function
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.model import ModelLimits, ModelUse
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.stability import overload
from seawall.plan.simulator.thinning import thinned, whole

MOST = 30_000.0
FREE = ModelUse()  # of any quota


def crowd(size: int, rate: float, model: ModelUse = FREE) -> Workload:
    arrivals = Arrivals(horizon=110.0, rate=rate, spikes=(Spike(size, 30.0),))
    return Workload(arrivals=arrivals, model=model)


SCALER = HpaSettings(minimum=85, maximum=130, metric="in-flight", target=500.0)
QUOTA = ModelUse(limits=ModelLimits(tokens_a_minute=40e6, requests_a_minute=40e3))
CASES: dict[str, tuple[Workload, Platform]] = {
    "crowd on pods": (
        crowd(75_000, 150.0),
        Eks(pods=85, cores=0.85, concurrency=1_000, queue=1_000, scaler=SCALER),
    ),
    "crowd on too few pods": (
        crowd(150_000, 300.0), Eks(pods=64, cores=0.6, concurrency=1_000, queue=1_000),
    ),
    "crowd on functions": (crowd(75_000, 500.0), Lambda(account_limit=100_000, warm=3_000)),
    "crowd on provisioned functions": (
        crowd(75_000, 500.0), Lambda(account_limit=100_000, provisioned=60_000),
    ),
    "load near the limit": (
        Workload(arrivals=Arrivals(horizon=120.0, rate=2_000.0)),
        Lambda(account_limit=10_700, start_rate=math.inf, start_burst=math.inf),
    ),
    "crowd on instances": (crowd(60_000, 1_000.0), Managed(minimum=900, maximum=1_200)),
    "crowd at a quota": (
        crowd(40_000, 300.0, QUOTA), Eks(pods=50, concurrency=1_000, queue=1_000),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_fraction_is_like_the_whole(name: str) -> None:
    """Within 1 percentage point of errors, 3 % of times, 2 % of what is billed."""
    workload, platform = CASES[name]
    part, fraction, factor = thinned(workload, platform, MOST)
    assert factor > 2.0
    full = simulate(workload, platform, seed=3)
    small = whole(simulate(part, fraction, seed=3), factor)
    assert small.requests == pytest.approx(full.requests, rel=0.02)
    assert small.error_share == pytest.approx(full.error_share, abs=0.01)
    for share in (0.5, 0.99):
        for times in ("latency", "first_token"):
            found = getattr(small, times).quantile(share)
            assert found == pytest.approx(getattr(full, times).quantile(share), rel=0.03), times
    for billed in ("invocations", "billed_seconds", "pod_seconds", "provisioned_seconds"):
        expected = getattr(full.usage, billed)
        assert getattr(small.usage, billed) == pytest.approx(expected, rel=0.02, abs=1.0), billed
    assert small.peak["in_service"] == pytest.approx(full.peak["in_service"], rel=0.03)
    if full.model is not None and small.model is not None:
        assert small.model.admitted == pytest.approx(full.model.admitted, rel=0.02)
        assert small.model.refusals == pytest.approx(full.model.refusals, rel=0.03)


def test_small_systems_and_short_windows_stay_whole() -> None:
    for workload, platform in (
        (crowd(5_000, 14.0), Eks(pods=6)),
        (crowd(500_000, 14.0), Eks(pods=16)),
        (crowd(3_000, 14.0), Lambda()),
    ):
        assert thinned(workload, platform, MOST) == (workload, platform, 1.0)


def test_what_is_hopeless_is_not_simulated_to_the_last_request() -> None:
    """Two pods for a crowd of ten million: 99 % or more are refused, of fewer requests."""
    workload, platform = crowd(10_000_000, 0.0), Eks(pods=2, concurrency=500, queue=500)
    assert overload(workload, platform) == pytest.approx(5_000.0)
    part, fraction, factor = thinned(workload, platform, MOST)
    assert (part.arrivals.spikes[0].size, fraction, factor) == (200_000, platform, 1.0)
    assert simulate(part, fraction).error_share > 0.98


@pytest.mark.parametrize(
    ("daily", "spikes"), [("1000000000000", []), ("0", ["10000000@20s"]), ("0.01", [])]
)
def test_extreme_amounts_are_simulated_in_bounded_work(daily: str, spikes: list[str]) -> None:
    workload = from_flags(daily=daily, spikes=spikes, duration="4s..7s", start="1s")
    question = Question(workload=workload)
    month, runs = month_of(question), SimulationRunner()
    pods = max(2, math.ceil(month.peak / 1_000))
    try:
        for candidate in (
            eks(question, month, cores=0.85, pods=pods),
            eks(question, month, cores=0.4, pods=2),
            function(question, month, CLASSIC, memory_mb=256),
        ):
            found = runs.judged(candidate, month.judged)
            assert found.requests > 0
            if candidate.size == pods and pods > 2:
                assert found.error_share == 0.0
    finally:
        runs.close()
    assert runs.requests < 3_000_000
    assert runs.simulations <= 12


def test_a_thinned_window_counts_all_requests() -> None:
    workload = from_flags(daily="100000000", spikes=["200000@20s"], duration="4s..7s", start="1s")
    question = Question(workload=workload)
    month, runs = month_of(question), SimulationRunner()
    try:
        found = runs.judged(eks(question, month, cores=0.85, pods=210), month.judged)
    finally:
        runs.close()
    inside = month.judged.until - month.judged.at
    assert found.requests == pytest.approx(200_000 + inside * 1e8 / 86_400, rel=0.02)
    assert runs.requests < 60_000
    small = structs.replace(month.judged)
    assert small.horizon == found.horizon
