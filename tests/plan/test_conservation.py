"""Conservation on any platform and workload: every request ends once."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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
    Scheduled,
    Servers,
    Service,
    Spike,
    Stage,
    Tracking,
    Workload,
    constant,
    exponential,
    simulate,
    uniform,
)
from tests.properties import examples

HORIZON = 400.0

workloads = st.builds(
    lambda rate, crowd, retries, patience, again, cpu: Workload(
        arrivals=Arrivals(
            horizon=HORIZON, rate=rate, spikes=(Spike(crowd, 50.0), Spike(crowd // 2, 120.0, 30.0))
        ),
        service=Service(
            stages=(
                Stage("before", exponential(0.2), cpu_ms=cpu),
                Stage("model", uniform(0.5, 3.0), cpu_ms=cpu, model=True),
                Stage("after", constant(0.1), cpu_ms=cpu, store_calls=1),
            )
        ),
        clients=Clients(retries=retries, patience=patience, retry_timeouts=again),
    ),
    rate=st.floats(0.0, 30.0),
    crowd=st.integers(0, 800),
    retries=st.integers(0, 4),
    patience=st.sampled_from([1.0, 2.5, 10.0, math.inf]),
    again=st.booleans(),
    cpu=st.sampled_from([0.0, 1.0, 30.0]),
)
lambdas = st.one_of(
    st.builds(
        Lambda,
        account_limit=st.integers(20, 2_000),
        idle_seconds=st.floats(0.0, 100.0),
        lifetime=st.sampled_from([5.0, 7_200.0]),
        timeout=st.sampled_from([1.5, 900.0]),
        reuse=st.sampled_from(["recent", "newest"]),
        start_rate=st.floats(0.5, 100.0),
        start_burst=st.floats(1.0, 1_000.0),
        snapstart=st.booleans(),
    ),
    st.builds(
        Lambda,
        account_limit=st.just(200),
        provisioned=st.integers(0, 100),
        schedule=st.just((Scheduled(100.0, 150), Scheduled(250.0, 5))),
        tracking=st.sampled_from([None, Tracking(maximum=200)]),
    ),
)
scalers = st.sampled_from(
    [
        None,
        HpaSettings(minimum=1, maximum=12),
        HpaSettings(minimum=1, maximum=12, metric="in-flight", target=10.0),
        KedaSettings(maximum=12, target=10.0, polling=5.0, cooldown=20.0),
    ]
)
clusters = st.builds(
    Eks,
    pods=st.integers(0, 6),
    scaler=scalers,
    cores=st.sampled_from([0.25, 1.0, 4.0]),
    concurrency=st.integers(1, 60),
    queue=st.integers(0, 60),
    queue_seconds=st.sampled_from([0.0, 0.7, 20.0, math.inf]),
    balance=st.sampled_from(["random", "round-robin", "least"]),
    prestop=st.sampled_from([0.0, 5.0]),
    grace=st.sampled_from([1.0, 30.0]),
    deploys=st.sampled_from([(), (60.0,), (60.0, 75.0)]),
    nodes=st.builds(
        Nodes, pods_each=st.integers(1, 4), spot_interruptions=st.sampled_from([0, 60])
    ),
)
managed = st.builds(
    Managed, runtime=st.sampled_from(["processes", "async"]), maximum=st.integers(3, 10)
)
servers = st.builds(
    Servers, slots=st.integers(1, 30), queue=st.one_of(st.none(), st.integers(0, 50))
)


@given(workload=workloads, platform=st.one_of(lambdas, clusters, managed, servers))
@examples(50, 2_500)
def test_every_request_ends_once(workload: Workload, platform: Platform) -> None:
    result = simulate(workload, platform, seed=7, keep=True)
    ended = result.served + result.refused + result.timed_out + result.failed
    assert ended == result.requests
    samples = result.samples
    assert samples is not None
    assert len(samples.arrival) == result.requests
    counts = np.bincount(samples.outcome, minlength=4)
    assert counts.tolist() == [result.served, result.refused, result.timed_out, result.failed]
    assert (np.diff(samples.arrival) >= 0).all()

    # The sums of the arrays over time are the counts.
    for name in ("refused", "timed_out", "failed", "throttled"):
        if name in result.seconds:
            assert result.seconds[name].sum() == getattr(result, name), name
    assert result.seconds["arrived"].sum() == result.requests
    # Nothing is in service or waits at the end, and levels are never negative.
    for name in ("in_service", "queued", "model_calls"):
        if name in result.seconds:
            assert result.seconds[name].min() >= 0.0, name
    for name in ("in_service", "queued", "model_calls"):
        assert result.seconds.get(name, np.zeros(1))[-1] == 0.0, name

    served = samples.outcome == 0
    assert result.latency.count == result.served
    if result.served:
        least = 0.6 if not isinstance(platform, Servers) else 0.0
        assert samples.latency[served].min() >= least - 1e-9
        assert np.isclose(result.latency.mean, samples.latency[served].mean())
        quantile = result.latency.quantile(0.5)
        exact = float(np.quantile(samples.latency[served], 0.5, method="inverted_cdf"))
        assert abs(quantile - exact) <= 0.017 * exact + 1e-6
    patience = workload.clients.patience
    if workload.clients.retries == 0 and served.any() and not isinstance(platform, Servers):
        assert samples.latency[served].max() <= patience + 1e-9


@given(seed=st.integers(0, 2**63 - 1), workload=workloads, platform=st.one_of(lambdas, clusters))
@examples(10, 250)
def test_the_same_seed_is_the_same_result(
    seed: int, workload: Workload, platform: Platform
) -> None:
    one, other = (simulate(workload, platform, seed=seed) for _ in range(2))
    assert repr(one.as_dict()) == repr(other.as_dict())  # NaN is not itself
    for name, values in one.seconds.items():
        assert np.array_equal(values, other.seconds[name], equal_nan=True), name
