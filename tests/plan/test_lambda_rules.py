"""Lambda's rules one by one."""

import math

import numpy as np
import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import (
    Arrivals,
    Clients,
    Lambda,
    Scheduled,
    Service,
    Spike,
    Stage,
    Tracking,
    Workload,
    constant,
    simulate,
    uniform,
)
from tests.plan.models import PATIENT, unlimited, work


def crowd(
    size: int, seconds: float = 100.0, *, start: float = 0.0, horizon: float = 200.0
) -> Workload:
    return Workload(
        arrivals=Arrivals(horizon=horizon, spikes=(Spike(size, 1.0),)),
        service=Service(stages=(Stage("work", constant(seconds)),), start=constant(start)),
        clients=PATIENT,
    )


def test_the_concurrency_scaling_rate_refills_continuously() -> None:
    """1,000 at once, then 100 a second: 30 s of 500 a second get 1,000 + 2,900 environments."""
    steady = Workload(
        arrivals=Arrivals(horizon=30.0, rate=500.0),
        service=Service(stages=(Stage("work", constant(60.0)),)),
        clients=PATIENT,
    )
    result = simulate(steady, Lambda(account_limit=100_000, sandbox=constant(0.0)))
    assert result.cold_starts == pytest.approx(1_000 + 100 * 30, abs=5)
    assert result.seconds["cold_starts"][10:29] == pytest.approx(100, abs=2)
    # Unused rate does not accumulate: after a minute of quiet it is 1,000 again, no more.
    late = Workload(
        arrivals=Arrivals(horizon=90.0, spikes=(Spike(5_000, 60.0),)),
        service=steady.service, clients=PATIENT,
    )  # fmt: skip
    assert simulate(late, Lambda(account_limit=100_000)).cold_starts == 1_000


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"account_limit": 300}, 300),
        ({"account_limit": 1_000, "reserved": 50}, 50),
        ({"account_limit": 1_000, "elsewhere": 900}, 100),
        ({"account_limit": 1_000, "elsewhere": 980, "reserved": 50}, 20),
    ],
)
def test_account_and_reserved_concurrency(limits: dict[str, int], expected: int) -> None:
    result = simulate(crowd(2_000), unlimited(**limits))
    assert (result.peak["in_service"], result.refused) == (expected, 2_000 - expected)


def test_requests_a_second_are_ten_for_each_of_the_limit() -> None:
    fast = Workload(
        arrivals=Arrivals(horizon=60.0, rate=500.0),
        service=Service(stages=(Stage("work", constant(0.01)),), start=constant(0.0)),
        clients=PATIENT,
    )
    result = simulate(fast, unlimited(account_limit=20, invocations_per_concurrency=10.0))
    assert result.served / 60.0 == pytest.approx(200.0, rel=0.02)
    assert simulate(fast, unlimited(account_limit=20)).refused < 30


def test_an_idle_environment_is_used_again_until_it_is_reclaimed() -> None:
    def at(*times: float) -> Workload:
        return Workload(
            arrivals=Arrivals(horizon=400.0, trace=np.array(times)),
            service=Service(stages=(Stage("work", constant(1.0)),), start=constant(0.0)),
            clients=PATIENT,
        )

    platform = unlimited(idle_seconds=50.0)
    assert simulate(at(0.0, 51.0), platform).cold_starts == 1
    assert simulate(at(0.0, 51.1), platform).cold_starts == 2
    result = simulate(at(0.0), platform)
    assert result.usage.environment_seconds == pytest.approx(51.0)
    assert result.seconds["capacity"][50] == 1
    assert result.seconds["capacity"][51] == 0
    old = unlimited(idle_seconds=50.0, lifetime=40.0)
    assert simulate(at(0.0, 20.0, 41.0, 60.0), old).cold_starts == 2


def test_initialisation_beyond_ten_seconds_starts_again() -> None:
    for start, expected in ((9.0, 9.0), (12.0, 22.0)):
        result = simulate(crowd(10, 5.0, start=start), unlimited())
        assert result.latency.mean == pytest.approx(expected + 5.0)
        assert result.usage.billed_start_seconds == pytest.approx(10 * expected)


def test_only_the_initialisations_beyond_ten_seconds_start_again() -> None:
    """Of 8 to 13 s three fifths do: 10.5 s on average, and 6 s more."""
    base = crowd(2_000, 5.0)
    service = structs.replace(base.service, start=uniform(8.0, 13.0))
    result = simulate(structs.replace(base, service=service), unlimited())
    assert result.latency.mean == pytest.approx(5.0 + 10.5 + 0.6 * 10.0, abs=0.25)


def test_snapstart_restores_in_place_of_initialising() -> None:
    base = crowd(10, 5.0, start=8.0)
    slow = simulate(base, unlimited())
    quick = simulate(base, unlimited(snapstart=True))
    assert slow.latency.mean == pytest.approx(13.0)
    assert quick.latency.mean == pytest.approx(5.0 + 8.0 / 5.0)
    assert (slow.usage.restores, quick.usage.restores) == (0, 10)
    with pytest.raises(ConfigError, match=r"lambda\.snapstart: not together"):
        Lambda(snapstart=True, provisioned=5)


def test_a_function_that_takes_too_long_is_cut_off_and_billed() -> None:
    result = simulate(crowd(10, 20.0), unlimited(timeout=7.0))
    assert (result.failed, result.served) == (10, 0)
    assert result.usage.billed_seconds == pytest.approx(70.0)


def test_durations_are_billed_to_the_next_millisecond() -> None:
    result = simulate(crowd(100, 0.0101), unlimited())
    assert result.usage.billed_seconds == pytest.approx(100 * 0.011)


def test_processor_is_proportional_to_memory() -> None:
    """1,769 MB are one; at a quarter, 100 ms of processor take 300 ms more."""
    workload = Workload(
        arrivals=Arrivals(horizon=60.0, spikes=(Spike(5, 1.0),)),
        service=Service(stages=(Stage("work", constant(1.0), cpu_ms=100.0),), start=constant(0.0)),
    )
    assert simulate(workload, unlimited()).latency.mean == pytest.approx(1.0)
    small = simulate(workload, unlimited(memory_mb=442))
    assert small.latency.mean == pytest.approx(1.3, abs=0.001)


def test_provisioned_concurrency_by_schedule() -> None:
    """More is there a minute later; less at once. What is provisioned counts against the limit."""
    platform = unlimited(
        account_limit=500, provisioned=10, schedule=(Scheduled(100.0, 200), Scheduled(300.0, 20))
    )
    workload = work(1.0, constant(1.0), 600.0)
    result = simulate(workload, platform)
    levels = result.seconds["provisioned"]
    assert [levels[50], levels[130], levels[200], levels[310]] == [10, 10, 200, 20]
    expected = 10 * 160 + 200 * 140 + 20 * 300
    assert result.usage.provisioned_seconds == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"lambda\.provisioned: 600 exceeds the limit of 500"):
        Lambda(account_limit=500, schedule=(Scheduled(0.0, 600),))


def test_provisioned_concurrency_is_there_when_all_of_it_is() -> None:
    """AWS: up to 6,000 a minute, and none of 5,000 can be used before all are allocated."""
    platform = Lambda(account_limit=20_000, schedule=(Scheduled(100.0, 5_000),))
    levels = simulate(work(0.1, constant(1.0), 400.0), platform).seconds["provisioned"]
    assert levels[205] == 0
    assert levels[100 + 60 + 5_000 // 100] == 5_000
    assert sorted(set(levels)) == [0.0, 5_000.0]


def test_target_tracking_reacts_after_three_minutes() -> None:
    platform = unlimited(provisioned=10, tracking=Tracking(0.7, minimum=5, maximum=500))
    result = simulate(work(70.0, constant(1.0), 3_600.0), platform)
    levels = result.seconds["provisioned"]
    assert levels[:239].max() == 10  # and a minute more until they are there
    assert 15 <= levels[300] <= 30  # utilisation is 1 at most: 10, 15, 22, ...
    assert levels[1_500] == pytest.approx(100, abs=25)  # 70 in flight at 70 %
    assert result.seconds["spilled"][:180].sum() > 50 * 60
    quiet = simulate(work(0.5, constant(1.0), 3_600.0), platform)
    assert quiet.seconds["provisioned"][-1] == 5  # after a quarter of an hour of little


def test_clients_retry_with_backoff_and_time_out() -> None:
    base = crowd(100, 2.0)
    again = Workload(
        arrivals=base.arrivals, service=base.service,
        clients=Clients(retries=10, backoff=1.0, backoff_cap=5.0, patience=math.inf),
    )  # fmt: skip
    result = simulate(again, unlimited(account_limit=10), keep=True)
    assert result.attempts > 200
    assert 50 < result.served < 100
    assert result.samples is not None
    assert result.latency.quantile(1.0) > 10.0  # the last of them retried many times
    hasty = Workload(
        arrivals=base.arrivals, service=base.service,
        clients=Clients(retries=2, backoff=0.0, patience=1.5, retry_timeouts=True),
    )  # fmt: skip
    left = simulate(hasty, unlimited())
    assert (left.timed_out, left.served, left.attempts) == (100, 0, 300)
    assert left.usage.billed_seconds == pytest.approx(600.0)  # Lambda continues without the client
