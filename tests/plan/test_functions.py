"""Several identical functions behind a router, and the processor of an initialisation."""

import math
from statistics import NormalDist

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import (
    Answer,
    Arrivals,
    Lambda,
    Objective,
    Options,
    Question,
    Scheduled,
    Service,
    Spike,
    Stage,
    Workload,
    advise,
    constant,
    from_flags,
    simulate,
)
from seawall.plan.decision.answer import LambdaConfiguration
from seawall.plan.decision.bill import Used
from seawall.plan.decision.places.lambda_function import SNAPSTART, function
from seawall.plan.decision.places.port import bill_of
from seawall.plan.decision.places.router import ROUTERS, most_functions
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.calibration import Measured, calibrated
from seawall.plan.inputs.question import MONTH
from tests.plan.models import PATIENT, agrees, measured, unlimited, work

TWO = ("lambda", "lambda-snapstart", "eks")
CROWD = from_flags(spikes=("5000@20s",), duration="4s..7s", start="1s")


def configuration(answer: Answer, name: str) -> LambdaConfiguration:
    found = answer.platforms[name].configuration
    assert isinstance(found, LambdaConfiguration)
    return found


def test_each_function_has_its_own_start_rate() -> None:
    """A random split of 5,000 over five: E[sum max(0, X - 1000)], X binomial, is refused."""
    at_once = Workload(
        arrivals=Arrivals(horizon=60.0, spikes=(Spike(5_000, 1.0),)),
        service=Service(stages=(Stage("work", constant(30.0)),), start=constant(0.0)),
        clients=PATIENT,
    )
    platform = Lambda(account_limit=20_000, functions=5, sandbox=constant(0.0))
    deviation = math.sqrt(5_000 * 0.2 * 0.8)
    expected = 5 * deviation * NormalDist().pdf(0.0)
    agrees(measured(at_once, platform, lambda result: result.refused, runs=96), expected)
    one = simulate(at_once, structs.replace(platform, functions=1))
    assert one.served == 1_000


def test_functions_do_not_share_environments() -> None:
    """Erlang's loss formula for each with its share of the load, not for all together."""
    workload = work(20.0, constant(1.0), 2_000.0)
    platform = unlimited(account_limit=26, functions=2)
    # Each gets 13 and three standard deviations.
    limit = min(26, math.ceil(13 + 3 * math.sqrt(13)))
    load, blocked = 10.0, 1.0
    for servers in range(1, limit + 1):
        blocked = load * blocked / (servers + load * blocked)
    shared, whole = 1.0, 20.0
    for servers in range(1, 27):
        shared = whole * shared / (servers + whole * shared)
    found = measured(workload, platform, lambda result: result.refused / result.requests)
    assert abs(found.mean - blocked) <= max(2.0 * found.half, 5e-4)
    assert not found.low <= shared <= found.high


def test_requests_are_conserved_and_samples_in_order() -> None:
    whole = simulate(CROWD, Lambda(account_limit=10_000, functions=3), keep=True)
    assert whole.requests == 5_000
    assert whole.requests == whole.served + whole.refused + whole.timed_out + whole.failed
    assert whole.samples is not None
    assert (whole.samples.arrival[1:] >= whole.samples.arrival[:-1]).all()
    assert len(whole.samples.arrival) == 5_000
    assert (whole.samples.outcome == 0).sum() == whole.served == whole.latency.count
    assert whole.seconds["arrived"].sum() == 5_000
    again = simulate(CROWD, Lambda(account_limit=10_000, functions=3))
    assert (again.served, again.cold_starts) == (whole.served, whole.cold_starts)


def test_what_several_functions_exclude() -> None:
    with pytest.raises(ConfigError, match=r"lambda\.functions: must be at least 1"):
        Lambda(functions=0)
    with pytest.raises(ConfigError, match=r"lambda\.functions: several not with schedule"):
        Lambda(functions=2, schedule=(Scheduled(0.0, 1),))


@pytest.fixture(scope="module")
def crowd() -> Answer:
    return advise(Question(workload=CROWD, options=Options(platforms=TWO)), vary=False)


def test_the_crowd_alone_is_served_by_five_functions(crowd: Answer) -> None:
    """Issue 20: one function refuses 73 %; five serve all, for a tenth of EKS's price."""
    assert crowd.choice == "lambda"
    for name in ("lambda", "lambda-snapstart"):
        found = crowd.platforms[name]
        assert found.met and (found.error_share.value or 0.0) < 0.001  # noqa: PT018
        assert configuration(crowd, name).functions == 5
        assert configuration(crowd, name).router == "cloudfront"
        assert configuration(crowd, name).account_concurrency >= 5_000
        assert found.monthly_cost < 0.1 * crowd.platforms["eks"].monthly_cost
        assert any(item.name == "cloudfront.requests" for item in found.items)
    assert any("5 deployments" in note for note in crowd.notes)
    assert any("quota of 6,000" in note for note in crowd.notes)


def test_fewer_functions_would_not_do() -> None:
    question = Question(workload=CROWD, options=Options(platforms=TWO, most_functions=1))
    one = advise(question, vary=False)
    assert one.choice == "eks"
    assert 0.7 < (one.platforms["lambda-snapstart"].error_share.value or 0.0) < 0.75
    question = Question(workload=CROWD, options=Options(platforms=TWO, most_functions=4))
    few = advise(question, vary=False)
    assert not few.platforms["lambda-snapstart"].met
    assert few.platforms["lambda-snapstart"].misses


def test_snapshots_are_cached_for_each_function() -> None:
    question = Question(workload=CROWD)
    month = month_of(question)
    bills = [
        {
            item.name: item.monthly
            for item in bill_of(
                question, month,
                function(question, month, SNAPSTART, memory_mb=1_024, functions=count),
                Used(attempts=3e6),
            )
        }
        for count in (1, 5)
    ]  # fmt: skip
    cached = MONTH * 0.0000015046
    assert bills[0]["lambda.snapstart_cache"] == pytest.approx(cached)
    assert bills[1]["lambda.snapstart_cache"] == pytest.approx(5 * cached)
    assert "cloudfront.requests" not in bills[0]
    assert bills[1]["cloudfront.requests"] == pytest.approx(3.0)
    assert bills[1]["cloudfront.functions"] == pytest.approx(0.3)


def test_a_router_limits_the_number_of_functions() -> None:
    alb = Question(workload=CROWD, options=Options(entry="alb"))
    assert most_functions(alb) == ROUTERS["alb"].most == 5
    client = Question(workload=CROWD, options=Options(router="client", most_functions=50))
    assert most_functions(client) == 50
    dear = Question(workload=CROWD)
    items = {name: each for name, each in dear.prices.items.items() if "cloudfront" not in name}
    unpriced = structs.replace(dear, prices=structs.replace(dear.prices, items=items))
    assert most_functions(unpriced) == 1


@pytest.mark.parametrize(
    ("memory_mb", "init_vcpus", "factor"),
    [
        (256, None, 1.0),
        (256, 0.5, 2.0),
        (256, 0.0, 1_769 / 256),
        (1_024, 0.5, 1_769 / 1_024),  # it has more than the least
        (3_008, 0.0, 1.0),  # one process uses one
    ],
)
def test_an_initialisation_on_demand_has_one_processor_at_any_memory(
    memory_mb: int, init_vcpus: float | None, factor: float
) -> None:
    """Unless it is measured otherwise."""
    base = Workload(
        arrivals=Arrivals(horizon=60.0, spikes=(Spike(5, 1.0),)),
        service=Service(stages=(Stage("work", constant(1.0)),), start=constant(1.4)),
        clients=PATIENT,
    )
    measure = Measured(format="", machine="a function", date="2026-11-29", init_vcpus=init_vcpus)
    workload = calibrated(base, measure)
    assert ("a function" in workload.sources["service.init_vcpus"]) == (init_vcpus is not None)
    result = simulate(workload, unlimited(memory_mb=memory_mb))
    assert result.latency.mean == pytest.approx(1.0 + 1.4 * factor)
    assert result.usage.billed_start_seconds == pytest.approx(5 * 1.4 * factor, abs=0.006)
    restored = simulate(workload, unlimited(memory_mb=memory_mb, snapstart=True))
    assert restored.latency.mean == pytest.approx(1.0 + 1.4 / 5)


def test_provisioned_environments_initialise_with_their_own_processor() -> None:
    """A quarter of one: four times as long, before they can be used."""
    workload = work(0.1, constant(1.0), 400.0)
    slow = structs.replace(workload, service=structs.replace(workload.service, start=constant(8.0)))
    platform = unlimited(memory_mb=442, schedule=(Scheduled(100.0, 10),))
    levels = simulate(slow, platform).seconds["provisioned"]
    ready = 100 + 60 + 8 * 1_769 / 442
    assert levels[int(ready) - 1] == 0
    assert levels[int(ready)] == 10


def test_the_processor_of_an_initialisation_is_in_the_sensitivities() -> None:
    workload = from_flags(daily="100", duration="2s", start="2s")
    question = Question(workload=workload, objective=Objective(first_token_p99=5.0))
    answer = advise(question)
    row = next(each for each in answer.sensitivity if each.input == "service.init_vcpus")
    assert row.low.costs["lambda"] > 1.5 * row.high.costs["lambda"]  # more memory is needed
    named = next(each for each in answer.inputs if each.name == "service.init_vcpus")
    assert "DataDog" in named.source
