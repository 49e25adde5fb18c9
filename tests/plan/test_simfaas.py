"""SimFaaS's published example, beside the figures that simfaas 0.2.2 printed.

Recorded 2026-11-25 with `bench/plan/run.py`'s environment: numpy.random.seed(1..5), then
ServerlessSimulator(arrival_rate=0.9, warm_service_rate=1/1.991, cold_service_rate=1/2.244,
expiration_threshold=600, max_time=1e6).generate_trace(); print_trace_results().
"""

from collections.abc import Callable

import pytest

from seawall.plan import Result, exponential
from seawall.plan.replications import interval
from tests.plan.models import measured, unlimited, work

COLD = (1249 / 899228, 1229 / 898902, 1174 / 897979, 1237 / 900853, 1193 / 899258)
SERVERS = (7.7034, 7.7040, 7.7006, 7.6988, 7.6723)
RUNNING = (1.7881, 1.7901, 1.7911, 1.7953, 1.7913)
IDLE = (5.9152, 5.9139, 5.9095, 5.9035, 5.8810)


@pytest.mark.parametrize(
    ("theirs", "ours", "published"),
    [
        # The last column: the example in its README and in Mahmoudi & Khazaei 2021, table 1.
        (COLD, lambda r: r.cold_share, 0.0014),
        (SERVERS, lambda r: r.mean_capacity, 7.6612),
        (RUNNING, lambda r: r.mean_busy, 1.7879),
        (IDLE, lambda r: r.mean_capacity - r.mean_busy, 5.8733),
    ],
    ids=["cold", "servers", "running", "idle"],
)
def test_the_published_example(
    theirs: tuple[float, ...], ours: Callable[[Result], float], published: float
) -> None:
    workload = work(0.9, exponential(1.991), 1e6, cold=exponential(2.244))
    platform = unlimited(idle_seconds=600.0, reuse="newest")
    found, recorded = measured(workload, platform, ours, 8), interval(theirs)
    apart = abs(found.mean - recorded.mean)
    assert apart <= found.half + recorded.half, (found, recorded)
    assert found.mean == pytest.approx(published, rel=0.05)
