"""The reference article's scenarios, with numbers: Lambda vs. EKS for AI Orchestration."""

import math

import pytest

from seawall.plan import (
    Arrivals,
    Eks,
    Lambda,
    Platform,
    Result,
    Service,
    Spike,
    Workload,
    constant,
    simulate,
    split_duration,
)

CROWD = Workload(arrivals=Arrivals(horizon=120.0, spikes=(Spike(5_000, 20.0),)))
FREE = {"account_limit": 10_000, "sandbox": constant(0.0)}
UNLIMITED = FREE | {"start_rate": math.inf, "start_burst": math.inf}


def crowd(platform: Platform) -> Result:
    result = simulate(CROWD, platform)
    assert result.requests == 5_000
    return result


def test_classic_lambda_starts_an_environment_for_each() -> None:
    result = crowd(Lambda(**UNLIMITED))  # type: ignore[arg-type]
    assert (result.served, result.cold_starts, result.peak["capacity"]) == (5_000, 5_000, 5_000)
    assert result.usage.billed_start_seconds == pytest.approx(5_000.0)  # a second each, billed
    assert result.seconds["new_connections"][20] == 15_000  # three for each environment
    warm = crowd(Eks(pods=20))
    slower = result.first_token.mean - warm.first_token.mean
    assert slower == pytest.approx(1.0, abs=0.25)  # the second of initialisation


def test_provisioned_concurrency_of_100_leaves_4900_cold() -> None:
    result = crowd(Lambda(provisioned=100, **UNLIMITED))  # type: ignore[arg-type]
    assert (result.on_provisioned, result.cold_starts) == (100, 4_900)
    assert result.served == 5_000
    assert result.seconds["spilled"].sum() == 4_900


def test_the_scaling_rate_throttles_most_of_the_spike() -> None:
    """1,000 new environments at once and 100 a second after: the article does not mention it."""
    result = crowd(Lambda(**FREE))  # type: ignore[arg-type]
    assert result.seconds["cold_starts"][20] == pytest.approx(1_000, abs=100)
    assert result.seconds["throttled"][20] >= 4_000
    assert result.cold_starts < 1_600
    assert result.refused > 3_000  # three retries within seconds do not outlast it
    provisioned = crowd(Lambda(provisioned=100, **FREE))  # type: ignore[arg-type]
    assert provisioned.on_provisioned >= 100
    assert provisioned.refused > 3_000
    default = crowd(Lambda())  # and the account's limit of 1,000 is an answer, not an error
    assert default.peak["in_service"] == 1_000
    assert default.refused == 4_000


def test_twenty_pods_serve_the_spike_without_starts() -> None:
    result = crowd(Eks(pods=20))
    assert (result.served, result.cold_starts, result.usage.pod_starts) == (5_000, 0, 0)
    assert result.peak["in_one_pod"] == 250
    assert result.latency.quantile(0.99) < 7.5  # 4-7 s and next to no more
    assert result.latency.quantile(0.01) > 4.0
    assert result.peak["model_calls"] <= 5_000
    slow = simulate(CROWD, Eks(pods=20, cores=0.05))  # too little processor, and all wait for it
    assert slow.first_token.quantile(0.99) > result.first_token.quantile(0.99) + 1.0


def test_little_traffic_costs_lambda_next_to_nothing() -> None:
    """100 requests a day of 2 s: a pod around the clock is there for 200 s of work."""
    service = Service(stages=split_duration(constant(2.0)))
    quiet = Workload(arrivals=Arrivals(horizon=86_400.0, rate=100 / 86_400.0), service=service)
    functions, pods = simulate(quiet, Lambda()), simulate(quiet, Eks(pods=1))
    assert functions.requests == functions.served == pods.served
    assert functions.requests == pytest.approx(100, abs=40)
    assert functions.usage.billed_seconds == pytest.approx(2.0 * functions.requests, rel=0.01)
    assert pods.usage.pod_seconds == 86_400.0
    # Idle for ten minutes, with one every quarter of an hour: about half of them are cold.
    assert 0.3 < functions.cold_share < 0.7


def test_platforms_get_the_same_requests() -> None:
    """Common random numbers: what a request takes does not depend on the platform."""
    one = simulate(CROWD, Lambda(**UNLIMITED), keep=True).samples  # type: ignore[arg-type]
    other = simulate(CROWD, Eks(pods=100, cores=50.0), keep=True).samples
    assert one is not None and other is not None  # noqa: PT018
    assert (one.arrival == other.arrival).all()
    assert one.latency - 1.0 == pytest.approx(other.latency, abs=0.01)
