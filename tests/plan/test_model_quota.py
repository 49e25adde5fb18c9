"""The model's quota against published examples, closed forms and an independent simulation."""

import heapq
import math
import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from seawall.plan import (
    Arrivals,
    Clients,
    Distribution,
    Eks,
    Lambda,
    Managed,
    Platform,
    Result,
    Service,
    Spike,
    Stage,
    Workload,
    constant,
    exponential,
    from_flags,
    simulate,
    uniform,
)
from seawall.plan.inputs.model import Endpoint, ModelLimits, ModelUse
from seawall.plan.simulator.result import ModelCalls
from tests.plan.closed_forms import erlang_b
from tests.plan.models import PATIENT, agrees, measured, unlimited
from tests.plan.test_conservation import clusters, lambdas, managed, workloads
from tests.properties import examples, number_of_examples

ROOMY = Eks(pods=4, cores=8.0, concurrency=20_000, queue=0)


def calling(
    arrivals: Arrivals, call: Distribution, model: ModelUse, *, clients: Clients = PATIENT
) -> Workload:
    """Requests that are a model call and nothing else."""
    service = Service(stages=(Stage("model", call, model=True),), start=constant(0.0))
    return Workload(arrivals=arrivals, service=service, clients=clients, model=model)


def once(size: int, horizon: float = 100.0) -> Arrivals:
    return Arrivals(horizon=horizon, spikes=(Spike(size, 1.0),))


def quota_of(result: Result) -> ModelCalls:
    assert result.model is not None
    return result.model


FAILING = ModelUse(retries=0, limits=ModelLimits())


def limited(model: ModelUse = FAILING, **limits: object) -> ModelUse:
    return structs.replace(model, limits=structs.replace(model.limits or ModelLimits(), **limits))


@pytest.mark.parametrize(("bound", "admitted"), [(None, 31), (1_000, 1_333)])
@pytest.mark.parametrize("platform", [unlimited(), ROOMY])
def test_the_worked_example_of_aws(platform: Platform, bound: int | None, admitted: int) -> None:
    """2 M a minute, 500 in: about 31 calls at once without a bound (64,000), 1,333 with 1,000.

    github.com/aws/agent-toolkit-for-aws, quota-health.md.
    """
    model = limited(tokens_a_minute=2e6)
    model = structs.replace(model, input_tokens=constant(500.0), max_tokens=bound)
    result = simulate(calling(once(2_000, 30.0), constant(10.0), model), platform)
    assert quota_of(result).admitted == result.served == admitted
    assert quota_of(result).failed == result.refused == 2_000 - admitted


def test_the_settlement_of_aws() -> None:
    """Input 3,000, read from cache 4,000, written to it 1,000, output 1,000, bound 32,000, 5x.

    36,000 are taken at first, 9,000 in the end: docs.aws.amazon.com/bedrock/latest/userguide/
    quotas-token-burndown.html.
    """
    model = ModelUse(
        limits=ModelLimits(tokens_a_minute=50_000.0, burndown=5.0),
        input_tokens=constant(8_000.0),
        cached_share=0.5,
        output_tokens=constant(1_000.0),
        max_tokens=32_000,
        retries=0,
    )
    # The second comes after the first has ended: 41,000 of 50,000 are left then, and refilled.
    times = np.array([1.0, 2.0, 12.5])
    arrivals = Arrivals(horizon=20.0, trace=times)
    result = simulate(calling(arrivals, constant(10.0), model), ROOMY, keep=True)
    assert result.samples is not None
    assert result.samples.outcome.tolist() == [0, 1, 0]
    quota = quota_of(result)
    assert quota.reserved_tokens == 2 * 36_000
    assert result.seconds["model_tokens"].sum() == 2 * 9_000
    assert result.seconds["model_reserved"].max() == 36_000
    assert (quota.input_tokens, quota.output_tokens) == (16_000, 2_000)


@pytest.mark.parametrize(("bound", "refused"), [(250, 0.76), (None, 0.99)])
@pytest.mark.parametrize(
    "platform",
    [
        Lambda(account_limit=20_000, start_rate=math.inf, start_burst=math.inf),
        Lambda(provisioned=6_000, account_limit=20_000),
        Eks(pods=10, concurrency=1_000, queue=1_000),
        Managed(minimum=120, maximum=130),
        Lambda(functions=6, account_limit=40_000, start_rate=math.inf, start_burst=math.inf),
    ],
    ids=["lambda", "provisioned", "eks", "managed", "functions"],
)
def test_the_crowd_of_the_article(platform: Platform, bound: int | None, refused: float) -> None:
    """5,000 at once beside 1.2 M a day are refused 76 % with a bound of 250 and 99 % without one.

    At 2 M tokens a minute; 1,500 in, 250 out; a turn fails at a 429, its client retries three times
    with full jitter from 0.5 s.
    """
    flags = from_flags(daily="1200000", spikes=["5000@60s"], duration="4s..7s", horizon="90s")
    model = structs.replace(limited(tokens_a_minute=2e6), max_tokens=bound)
    result = simulate(structs.replace(flags, model=model), platform, keep=True)
    assert result.samples is not None
    crowd = result.samples.outcome[result.samples.arrival == 60.0]
    assert len(crowd) == 5_000
    assert (crowd == 1).mean() == pytest.approx(refused, abs=0.012)


@given(
    quota=st.floats(1e4, 1e6),
    bound=st.integers(1, 5_000),
    burst=st.sampled_from([1.0, 10.0, 60.0]),
    rate=st.floats(0.1, 40.0),
    crowd=st.integers(0, 300),
    queue=st.booleans(),
)
@examples(20, 1_000)
def test_a_bucket_admits_no_more_than_it_had_and_got(
    *, quota: float, bound: int, burst: float, rate: float, crowd: int, queue: bool
) -> None:
    """N(t) <= burst + rate * t, where nothing is returned."""
    model = ModelUse(
        limits=ModelLimits(tokens_a_minute=quota, counting="estimate", burst_seconds=burst),
        max_tokens=bound,
        on_refusal="queue" if queue else "retry",
        wait_seconds=20.0,
    )
    arrivals = Arrivals(horizon=120.0, rate=rate, spikes=(Spike(crowd, 30.0),))
    result = simulate(calling(arrivals, constant(2.0), model), ROOMY)
    taken = np.cumsum(result.seconds["model_begun"]) * (1_500.0 + bound)
    ends = np.arange(1, len(taken) + 1) * result.bin_seconds
    permitted = quota / 60.0 * (burst + ends)
    assert (taken[:-1] <= permitted[:-1] + 1.0).all()


@pytest.mark.parametrize("platform", [unlimited(), ROOMY], ids=["environments", "pods"])
def test_calls_in_progress_are_an_erlang_loss_system(platform: Platform) -> None:
    model = limited(concurrent=20)
    horizon = float(number_of_examples(10_000, 20_000))
    workload = calling(Arrivals(horizon=horizon, rate=8.0), exponential(2.0), model)
    found = measured(workload, platform, lambda r: 1.0 - r.served / r.requests)
    agrees(found, erlang_b(20, 16.0))


@pytest.mark.parametrize("platform", [unlimited(), ROOMY], ids=["environments", "pods"])
def test_a_queue_for_one_request_at_a_time_is_that_of_m_d_1(platform: Platform) -> None:
    """Admitted at most once in 0.1 s, in order of arrival: the wait is r / (2 m (1 - r))."""
    model = ModelUse(
        limits=ModelLimits(requests_a_minute=600.0, request_burst_seconds=0.1),
        on_refusal="queue",
        wait_seconds=1e6,
        queued=100_000,
    )
    workload = calling(Arrivals(horizon=5_000.0, rate=8.0), constant(1.0), model)
    found = measured(workload, platform, lambda r: quota_of(r).wait.mean)
    agrees(found, 0.8 / (2.0 * 10.0 * 0.2))


def by_hand(workload: Workload, seed: int) -> dict[str, float]:
    """An independent simulation: one event list, a bucket of tokens, full jitter. No platform."""
    draw = random.Random(seed)
    model, clients = workload.model, workload.clients
    limits = model.limits
    assert limits is not None
    quota = limits.tokens_a_minute
    assert quota is not None
    bucket, at = quota, 0.0
    call = workload.service.stages[0].seconds
    counts = {"served": 0, "refused": 0, "refusals": 0, "requests": 0, "busy": 0.0}
    serial = 0
    events: list[tuple[float, int, str, tuple[int, int, float]]] = []

    def schedule(time: float, kind: str, what: tuple[int, int, float]) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(events, (time, serial, kind, what))

    time = 0.0
    while time < workload.arrivals.horizon:
        schedule(time, "try", (0, 0, time))
        counts["requests"] += 1
        time += draw.expovariate(workload.arrivals.rate)
    for spike in workload.arrivals.spikes:
        for _ in range(spike.size):
            schedule(spike.at, "try", (0, 0, spike.at))
            counts["requests"] += 1
    reserve = 1_500.0 + float(model.max_tokens or 0)
    while events:
        now, _, kind, (attempt, tried, begun) = heapq.heappop(events)
        bucket = min(quota, bucket + (now - at) * quota / 60.0)
        at = now
        if kind == "end":
            bucket = min(quota, bucket + reserve - 1_500.0 - limits.burndown * 250.0)
            counts["served"] += 1
            counts["busy"] += now - begun
        elif bucket >= reserve:
            bucket -= reserve
            schedule(now + draw.uniform(call.a, call.b), "end", (attempt, tried, begun))
        else:
            counts["refusals"] += 1
            delay = min(model.backoff_cap, model.backoff * 2.0**tried) * draw.random()
            if tried < model.retries:
                schedule(now + delay, "try", (attempt, tried + 1, begun))
                continue
            counts["busy"] += now - begun
            if attempt < clients.retries:
                delay = min(clients.backoff_cap, clients.backoff * 2.0**attempt) * draw.random()
                schedule(now + delay, "try", (attempt + 1, 0, now + delay))
            else:
                counts["refused"] += 1
    return counts


@pytest.mark.parametrize("burndown", [1.0, 5.0])
def test_an_independent_simulation(burndown: float) -> None:
    model = ModelUse(
        limits=ModelLimits(tokens_a_minute=4e5, burndown=burndown), max_tokens=2_000, retries=3
    )
    arrivals = Arrivals(horizon=900.0, rate=2.0, spikes=(Spike(400, 100.0), Spike(300, 500.0)))
    clients = Clients(retries=2, backoff=1.0, patience=math.inf)
    workload = calling(arrivals, uniform(2.0, 6.0), model, clients=clients)
    seeds = range(1, 13)
    theirs = [by_hand(workload, seed) for seed in seeds]
    for platform in (unlimited(), ROOMY):
        ours = [simulate(workload, platform, seed=seed) for seed in seeds]
        for name, of in {
            "requests": lambda r: r.requests,
            "served": lambda r: r.served,
            "refusals": lambda r: quota_of(r).refusals,
            "busy": lambda r: r.mean_busy * 900.0,
        }.items():
            expected = fmean(each[name] for each in theirs)
            assert fmean(map(of, ours)) == pytest.approx(expected, rel=0.02), (platform, name)


ENDLESS = ModelLimits(
    tokens_a_minute=1e15,
    input_tokens_a_minute=1e15,
    output_tokens_a_minute=1e15,
    requests_a_minute=1e15,
    concurrent=1_000_000,
)


@given(
    workload=workloads,
    platform=st.one_of(lambdas, clusters, managed),
    counting=st.sampled_from(["reserve", "estimate", "produced"]),
    queue=st.booleans(),
)
@examples(25, 1_000)
def test_a_quota_that_suffices_changes_nothing(
    workload: Workload, platform: Platform, counting: str, queue: bool
) -> None:
    limits = structs.replace(ENDLESS, counting=counting)
    model = ModelUse(limits=limits, on_refusal="queue" if queue else "retry")
    without = simulate(workload, platform, seed=7, keep=True)
    result = simulate(structs.replace(workload, model=model), platform, seed=7, keep=True)
    for name in ("requests", "attempts", "served", "refused", "timed_out", "failed", "throttled"):
        assert getattr(result, name) == getattr(without, name), name
    assert (result.latency.counts == without.latency.counts).all()
    assert result.samples is not None
    assert without.samples is not None
    assert np.allclose(result.samples.latency, without.samples.latency)
    assert np.allclose(result.samples.first_token, without.samples.first_token)
    assert quota_of(result).refusals == quota_of(result).failed == 0
    assert result.mean_busy == pytest.approx(without.mean_busy)


limits = st.builds(
    ModelLimits,
    tokens_a_minute=st.sampled_from([None, 5e4, 5e5]),
    input_tokens_a_minute=st.sampled_from([None, 3e5]),
    output_tokens_a_minute=st.sampled_from([None, 2e5]),
    requests_a_minute=st.sampled_from([60.0, 600.0]),
    concurrent=st.sampled_from([None, 30]),
    counting=st.sampled_from(["reserve", "estimate", "produced"]),
    greater=st.booleans(),
    burndown=st.sampled_from([1.0, 5.0]),
    refusals_count=st.booleans(),
    refill=st.sampled_from(["continuous", "window"]),
    burst_seconds=st.sampled_from([5.0, 60.0]),
    request_burst_seconds=st.sampled_from([0.1, 1.0, 60.0]),
)
uses = st.builds(
    ModelUse,
    limits=limits,
    provisioned=st.one_of(st.none(), limits),
    fallbacks=st.lists(
        st.builds(Endpoint, limits=limits, slower=st.sampled_from([0.5, 2.0])), max_size=2
    ).map(tuple),
    output_tokens=st.sampled_from([constant(250.0), uniform(0.0, 2_000.0)]),
    max_tokens=st.sampled_from([None, 300, 4_000]),
    on_refusal=st.sampled_from(["retry", "queue"]),
    retries=st.integers(0, 5),
    backoff=st.sampled_from([0.0, 0.5, 5.0]),
    retry_after=st.booleans(),
    wait_seconds=st.sampled_from([0.0, 3.0, 60.0]),
    refuse_early=st.booleans(),
    queued=st.sampled_from([0, 5, 10_000]),
)


@given(workload=workloads, platform=st.one_of(lambdas, clusters, managed), model=uses)
@examples(40, 1_000)
def test_every_call_ends_once(workload: Workload, platform: Platform, model: ModelUse) -> None:
    result = simulate(structs.replace(workload, model=model), platform, seed=7, keep=True)
    ended = result.served + result.refused + result.timed_out + result.failed
    assert ended == result.requests
    assert result.samples is not None
    counts = np.bincount(result.samples.outcome, minlength=4)
    assert counts.tolist() == [result.served, result.refused, result.timed_out, result.failed]
    for name in ("in_service", "queued", "model_calls", "model_waiting", "model_reserved"):
        assert result.seconds[name].min() >= -1e-3, name
        assert result.seconds[name][-1] == pytest.approx(0.0, abs=1e-3), name
    quota = quota_of(result)
    assert result.served <= quota.admitted
    assert quota.on_fallback + quota.on_provisioned <= quota.admitted
    assert quota.wait.count == quota.admitted
    if model.max_tokens is not None:
        assert quota.output_tokens <= model.max_tokens * quota.admitted + 1e-6


def test_calls_beyond_the_quota_go_to_a_fallback_that_is_slower() -> None:
    model = ModelUse(
        limits=ModelLimits(requests_a_minute=100.0),
        fallbacks=(
            Endpoint(name="small", limits=ModelLimits(requests_a_minute=50.0), slower=2.0),
            Endpoint(name="any", slower=3.0),
        ),
        retries=0,
    )
    result = simulate(calling(once(200), constant(4.0), model), ROOMY, keep=True)
    assert result.samples is not None
    seconds, counts = np.unique(result.samples.latency.round(6), return_counts=True)
    assert seconds.tolist() == [4.0, 8.0, 12.0]
    assert counts.tolist() == [100, 50, 50]
    assert quota_of(result).on_fallback == 100
    assert quota_of(result).refusals == 0
    assert result.seconds["model_short_of_requests"].sum() == 100


def test_provisioned_throughput_comes_first_and_has_units() -> None:
    model = ModelUse(
        limits=ModelLimits(requests_a_minute=30.0),
        provisioned=ModelLimits(output_tokens_a_minute=5_000.0, factor=2.0),
        max_tokens=1_000,
        retries=0,
    )
    result = simulate(calling(once(100), constant(4.0), model), ROOMY)
    assert quota_of(result).on_provisioned == 10
    assert result.served == 40


def test_the_bound_does_not_matter_where_output_counts_as_it_is_produced() -> None:
    """Anthropic, 2026-08: the output is counted as it is produced."""
    base = limited(output_tokens_a_minute=60_000.0, counting="produced")
    base = structs.replace(base, output_tokens=constant(600.0))
    arrivals = Arrivals(horizon=600.0, rate=4.0)
    few, many = (
        simulate(calling(arrivals, constant(3.0), structs.replace(base, max_tokens=bound)), ROOMY)
        for bound in (1_000, None)
    )
    assert few.as_dict() == many.as_dict()
    # 40 tokens a second are asked for each second of 100 permitted: 100 calls a minute.
    admitted = few.seconds["model_begun"][300:600].sum() / 5.0
    assert admitted == pytest.approx(100.0, rel=0.05)


def test_a_window_is_full_again_at_each_minute() -> None:
    model = limited(requests_a_minute=120.0, refill="window")
    result = simulate(calling(Arrivals(horizon=600.0, rate=10.0), constant(1.0), model), ROOMY)
    begun = np.flatnonzero(result.seconds["model_begun"])
    starts = begun[np.diff(begun, prepend=-60) > 20]
    assert set(np.diff(starts[1:])) == {60}
    # The first and the last window are cut.
    assert 9 * 120 <= quota_of(result).admitted <= 11 * 120


@pytest.mark.parametrize("platform", [unlimited(), ROOMY], ids=["environments", "pods"])
def test_a_turn_that_waits_for_the_quota_is_in_service(platform: Platform) -> None:
    model = ModelUse(
        limits=ModelLimits(requests_a_minute=60.0, request_burst_seconds=1.0),
        on_refusal="queue",
        wait_seconds=25.5,
        refuse_early=False,
    )
    result = simulate(calling(once(100), constant(1.0), model), platform, keep=True)
    # One begins each second; the others wait for 25 s, and fail.
    assert result.served == 26
    assert result.seconds["in_service"][2] == pytest.approx(99, abs=1)
    assert result.seconds["in_service"][29] == 0
    assert quota_of(result).wait.quantile(1.0) == pytest.approx(25.0, rel=0.02)


def test_a_client_that_leaves_takes_its_waiting_call_along() -> None:
    model = ModelUse(
        limits=ModelLimits(requests_a_minute=60.0, request_burst_seconds=1.0),
        on_refusal="queue",
        wait_seconds=60.0,
        refuse_early=False,
    )
    clients = Clients(retries=0, patience=10.25)
    workload = calling(once(100), constant(1.0), model, clients=clients)
    for platform in (unlimited(), ROOMY):
        result = simulate(workload, platform)
        assert (result.served, result.timed_out) == (10, 90)
        assert quota_of(result).admitted == 11  # one began too late for its client
        assert result.seconds["in_service"][13] == 0


@pytest.mark.parametrize("counting", ["reserve", "estimate"])
def test_a_queue_refuses_at_once_what_it_cannot_admit_in_time(counting: str) -> None:
    """As many are served as if all waited; the others hear it at once."""
    model = ModelUse(
        limits=ModelLimits(tokens_a_minute=6e5, counting=counting),  # type: ignore[arg-type]
        max_tokens=4_000,
        on_refusal="queue",
        wait_seconds=30.0,
    )
    workload = calling(once(1_000), uniform(3.0, 6.0), model)
    early, late = (
        simulate(structs.replace(workload, model=structs.replace(model, refuse_early=each)), ROOMY)
        for each in (True, False)
    )
    assert early.served == pytest.approx(late.served, rel=0.05)
    assert early.seconds["model_failures"][:3].sum() > 0.8 * early.refused
    assert late.seconds["model_failures"][:30].sum() == 0
    assert early.seconds["in_service"].sum() < late.seconds["in_service"].sum()


def test_retry_after_is_heeded() -> None:
    model = ModelUse(
        limits=ModelLimits(requests_a_minute=60.0, request_burst_seconds=1.0),
        retries=1,
        backoff=0.0,
    )
    served = [
        simulate(
            calling(once(2), constant(0.1), structs.replace(model, retry_after=heeded)), ROOMY
        ).served
        for heeded in (False, True)
    ]
    assert served == [1, 2]


def test_refused_requests_count_where_they_do() -> None:
    """OpenAI: unsuccessful requests count against the limit of a minute."""
    arrivals = Arrivals(horizon=600.0, rate=2.0)
    base = limited(requests_a_minute=60.0, request_burst_seconds=1.0)
    served = [
        simulate(
            calling(arrivals, constant(0.1), limited(base, refusals_count=count)), ROOMY
        ).served
        for count in (False, True)
    ]
    assert served[1] < 0.7 * served[0]
