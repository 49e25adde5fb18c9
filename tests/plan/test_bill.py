"""Bills of a month, against examples of AWS, and windows against whole simulations."""

import pytest
from msgspec import structs

from seawall.errors import ConfigError
from seawall.plan import Arrivals, Campaign, Service, Spike, Stage, Workload, constant, from_flags
from seawall.plan.decision.answer import EksConfiguration, ManagedConfiguration
from seawall.plan.decision.bill import Used, shared_costs, used_in
from seawall.plan.decision.places.eks import eks
from seawall.plan.decision.places.lambda_function import CLASSIC, SNAPSTART, function
from seawall.plan.decision.places.lambda_managed import managed
from seawall.plan.decision.places.lambda_provisioned import PROVISIONED
from seawall.plan.decision.places.machines import fargate_hourly, fits, node_group
from seawall.plan.decision.places.port import bill_of as bill
from seawall.plan.decision.runs import SimulationRunner
from seawall.plan.decision.search import CandidateSearch
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.prices import load_prices
from seawall.plan.inputs.question import MONTH, Options, PerRequest, Question
from seawall.plan.simulator.simulate import simulate

QUIET = Question(workload=from_flags(daily="86400", duration="2s", start="1s"))


def lines(question: Question, used: Used, **fields: object) -> dict[str, float]:
    month = month_of(question)
    candidate = function(question, month, **fields)  # type: ignore[arg-type]
    return {item.title: item.monthly for item in bill(question, month, candidate, used)}


def test_the_example_of_aws_with_three_million_requests() -> None:
    """https://aws.amazon.com/lambda/pricing/, example 1, without the free tier.

    1,536 MB, 3 million requests of 120 ms: 540,000 GB-s, $9.00; requests $0.60.
    """
    question = structs.replace(QUIET, options=Options(architecture="x86_64"))
    used = Used(invocations=3e6, billed_seconds=360_000.0)
    found = lines(question, used, place=CLASSIC, memory_mb=1_536)
    assert found["compute"] == pytest.approx(9.00, abs=0.005)
    assert found["requests"] == pytest.approx(0.60)
    assert "provisioned, standing" not in found


def test_provisioned_concurrency_is_billed_all_month() -> None:
    used = Used(provisioned_seconds=100 * MONTH, provisioned_billed_seconds=1_000.0)
    found = lines(QUIET, used, place=PROVISIONED, memory_mb=1_024, provisioned=100)
    assert found["provisioned, standing"] == pytest.approx(100 * MONTH * 0.0000033334)
    assert found["provisioned, compute"] == pytest.approx(1_000 * 0.0000077778)


def test_snapshots_are_cached_and_restored() -> None:
    found = lines(QUIET, Used(restores=1_000.0), place=SNAPSTART, memory_mb=512)
    assert found["snapshot, cached"] == pytest.approx(0.5 * MONTH * 0.0000015046)
    assert found["snapshot, restored"] == pytest.approx(0.5 * 1_000 * 0.0001397998)


def test_entries_are_billed_by_attempt() -> None:
    for entry, price in (("http-api", 1.0), ("rest-api", 3.5)):
        question = structs.replace(QUIET, options=Options(entry=entry))  # type: ignore[arg-type]
        found = lines(question, Used(attempts=2e6), place=CLASSIC, memory_mb=512)
        assert sum(found.values()) == pytest.approx(2 * price)
    question = structs.replace(QUIET, options=Options(entry="alb"))
    assert lines(question, Used(), place=CLASSIC, memory_mb=512)["load balancer"] == 0.0225 * 730


def test_three_managed_instances_and_fifteen_per_cent() -> None:
    month = month_of(QUIET)
    items = bill(QUIET, month, managed(QUIET, month, 3), Used(pod_seconds=3 * MONTH))
    found = {item.name: item.monthly for item in items}
    instances = 3 * 730 * 0.0725  # three environments would fit on two: three zones want three
    assert found["ec2.c7g.large"] == pytest.approx(instances)
    assert found["lambda.managed_fee"] == pytest.approx(0.15 * instances)
    plan = structs.replace(QUIET.prices, discounts={"ec2": 0.5})
    less = bill(
        structs.replace(QUIET, prices=plan), month, managed(QUIET, month, 3),
        Used(pod_seconds=3 * MONTH),
    )  # fmt: skip
    assert {item.name: item.monthly for item in less}["lambda.managed_fee"] == pytest.approx(
        0.15 * instances  # of the price on demand, whatever is paid
    )


def test_a_cluster_is_billed_while_it_stands_by() -> None:
    month = month_of(QUIET)
    candidate = eks(QUIET, month, cores=0.85, pods=6)
    assert isinstance(candidate.configuration, EksConfiguration)
    nodes = candidate.configuration.nodes
    assert (nodes.count, nodes.pods_each) == (3, 2)
    items = bill(QUIET, month, candidate, Used(node_seconds=3 * MONTH))
    found = {item.title: item.monthly for item in items}
    assert found["control plane"] == pytest.approx(73.0)
    assert found["nodes, t4g.medium"] == pytest.approx(3 * 730 * 0.0336)
    assert found["NAT gateways"] == pytest.approx(2 * 730 * 0.045)
    assert found["load balancer"] == pytest.approx(730 * 0.0225)


def test_pods_fit_by_processor_and_memory() -> None:
    large = load_prices("us-east-1").of("ec2.c7g.large")
    assert [fits(large, cores, 256.0) for cores in (0.4, 0.85, 1.0, 2.0)] == [4, 2, 1, 0]
    assert fits(large, 0.1, 1_024.0) == 3  # one of four gigabytes is the node's own
    group = node_group(
        load_prices("us-east-1"), "arm64", cores=0.4, memory_mb=256.0, pods=2, zones=2, spot=False,
        busy=0.0,
    )  # fmt: skip
    assert group.instance == "fargate"


def test_fargate_is_x86_and_has_sizes() -> None:
    """https://docs.aws.amazon.com/eks/latest/userguide/fargate.html: no Arm under EKS.

    A quarter of a processor has 2 GB at most: a pod of 3 GB, with 256 MB more, needs half a one.
    """
    prices = load_prices("us-east-1")
    assert fargate_hourly(prices, 0.25, 3_072.0) == pytest.approx(0.5 * 0.04048 + 4 * 0.004445)
    assert fargate_hourly(prices, 1.0, 8_192.0) == pytest.approx(2 * 0.04048 + 9 * 0.004445)
    month = month_of(QUIET)
    candidate = eks(QUIET, month, cores=0.4, pods=2).configuration
    assert isinstance(candidate, EksConfiguration)
    assert (candidate.nodes.instance, candidate.architecture) == ("fargate", "x86_64")
    with pytest.raises(ConfigError, match="a pod of 200,000 MB fits on no machine"):
        fargate_hourly(prices, 1.0, 200_000.0)


def test_burstable_machines_are_charged_above_their_baseline() -> None:
    """A t4g.medium may use 0.4 of its two processors; more is 4 cents an hour.

    With 0.85 in use on each of three it is more expensive than listed.
    """
    month = month_of(QUIET)
    candidate = eks(QUIET, month, cores=0.85, pods=6)
    hours = 3 * MONTH
    items = bill(QUIET, month, candidate, Used(node_seconds=hours, cpu_seconds=1.0 * hours))
    found = {item.name: item.monthly for item in items}
    assert found["ec2_surplus.vcpu_hours"] == pytest.approx(3 * 730 * (1.0 - 0.4) * 0.04)
    for busy, instance in ((0.5, "t4g.medium"), (4.5, "c7g.large")):
        group = node_group(
            QUIET.prices, "arm64", cores=0.85, memory_mb=256.0, pods=6, zones=2, spot=False,
            busy=busy,
        )  # fmt: skip
        assert group.instance == instance


def test_addresses_functions_behind_a_balancer_and_long_answers() -> None:
    """Each public IPv4 address is 0.5 cents an hour; an LCU is 0.4 GB an hour for functions."""
    question = structs.replace(QUIET, options=Options(entry="alb"))
    found = lines(question, Used(), place=CLASSIC, memory_mb=512)
    assert found["load balancer, addresses"] == pytest.approx(2 * 730 * 0.005)
    gb_an_hour = 3_600 * 20 / 1_048_576
    assert found["load balancer, capacity units"] == pytest.approx(gb_an_hour / 0.4 * 730 * 0.008)
    month = month_of(QUIET)
    pods = {
        item.title: item.monthly
        for item in bill(QUIET, month, eks(QUIET, month, cores=0.4, pods=2), Used())
    }
    assert pods["load balancer, capacity units"] == pytest.approx(gb_an_hour * 730 * 0.008)
    assert pods["NAT gateways, addresses"] == pytest.approx(2 * 730 * 0.005)
    long = structs.replace(QUIET, each=PerRequest(kb_to_callers=8 * 1_024.0))
    found = lines(long, Used(invocations=1_024.0), place=CLASSIC, memory_mb=512)
    assert found["answers beyond 6 MB"] == pytest.approx(2 * 0.008)


def test_autoscalers_have_room_for_the_busiest_hour() -> None:
    """6,400 at once all the time: pods at their target of half their slots, not full."""
    question = Question(workload=from_flags(daily="100000000", duration="4s..7s", start="1s"))
    month = month_of(question)
    found = eks(question, month, cores=0.85, pods=2).configuration
    assert isinstance(found, EksConfiguration)
    assert found.autoscaler is not None
    assert found.autoscaler.maximum * found.autoscaler.target >= month.busy


def test_shared_costs_are_separate() -> None:
    month = month_of(QUIET)
    shared = shared_costs(QUIET, month)
    requests = 86_400 * MONTH / 86_400
    assert month.requests == pytest.approx(requests)
    found = {item.name: item.monthly for item in shared.items}
    assert found["model.input_tokens"] == pytest.approx(requests * 1_500 / 1e6)
    assert shared.monthly == pytest.approx(sum(found.values()))


def test_windows_represent_a_month() -> None:
    """Against a simulation of a whole day: two levels of rate, one spike."""
    shape = (1.0,) * 12 + (3.0,) * 12
    service = Service(stages=(Stage("work", constant(2.0)),), start=constant(1.0))
    arrivals = Arrivals(
        horizon=86_400.0, rate=2.0, daily_shape=shape, spikes=(Spike(500, 40_000.0),)
    )
    workload = Workload(arrivals=arrivals, service=service)
    question = Question(workload=workload, options=Options(spikes_a_month=MONTH / 86_400))
    month = month_of(question)
    assert month.requests == pytest.approx(workload.expected_requests * MONTH / 86_400, rel=0.01)
    runs = SimulationRunner()
    candidate = function(question, month, CLASSIC, memory_mb=1_769)
    sized = CandidateSearch(question, month, runs).evaluate(candidate)
    runs.close()
    whole = simulate(workload, candidate.peak)
    exact = used_in([(MONTH / 86_400, whole.usage, whole.attempts)])
    expected = sum(item.monthly for item in bill(question, month, candidate, exact))
    assert sized.cost == pytest.approx(expected, rel=0.02)


def test_campaigns_are_part_of_the_month() -> None:
    plain = Workload(arrivals=Arrivals(rate=1.0))
    busy = Workload(arrivals=Arrivals(rate=1.0, campaigns=(Campaign(3_600.0, 7_200.0, 5.0),)))
    few, more = (month_of(Question(workload=each)).requests for each in (plain, busy))
    assert more - few == pytest.approx(4 * 4 * 7_200)  # four times as much again, four times
    assert month_of(Question(workload=busy)).judged.event


def test_spikes_cannot_fill_more_than_the_month() -> None:
    workload = Workload(arrivals=Arrivals(rate=1.0, spikes=(Spike(10, 20.0),)))
    with pytest.raises(ConfigError, match=r"options\.spikes_a_month: 1e\+06 spikes last longer"):
        month_of(Question(workload=workload, options=Options(spikes_a_month=1e6)))


def test_the_start_of_a_window_is_not_billed() -> None:
    """An even million a day keeps its environments: a month starts few, not some every minute.

    A whole day is simulated beside it; with 256 MB an initialisation takes seven seconds.
    """
    question = Question(workload=from_flags(daily="1000000", duration="2s", start="1s"))
    month = month_of(question)
    runs = SimulationRunner()
    candidate = function(question, month, CLASSIC, memory_mb=256)
    sized = CandidateSearch(question, month, runs).evaluate(candidate)
    runs.close()
    whole = simulate(question.workload, candidate.peak)
    exact = used_in([(MONTH / 86_400, whole.usage, whole.attempts)])
    expected = sum(item.monthly for item in bill(question, month, candidate, exact))
    assert sized.cost == pytest.approx(expected, rel=0.01)
    assert sized.met  # and requests that wait for starts do not count


def test_large_processes_get_enough_memory() -> None:
    """3 GB at rest and 20 MB a request: memory for it, on existing machines."""
    service = Service(memory_mb=3_000.0, memory_kb_in_flight=20_480.0)
    question = structs.replace(QUIET, workload=structs.replace(QUIET.workload, service=service))
    month = month_of(question)
    pods = eks(question, month, cores=0.85, pods=4).configuration
    assert isinstance(pods, EksConfiguration)
    assert 3_000 + pods.in_flight * 20 < pods.memory_mb < 12_000
    assert pods.in_flight >= 8
    environments = managed(question, month, 3).configuration
    assert isinstance(environments, ManagedConfiguration)
    assert environments.memory_gb * 1_024 > 3_000 + environments.in_flight * 20
    assert environments.memory_gb in (4.0, 8.0)
    items = bill(question, month, managed(question, month, 8), Used(pod_seconds=8 * MONTH))
    hours = next(item.quantity for item in items if item.name.startswith("ec2."))
    assert hours == pytest.approx(8 * 730 / 2)  # an m7g.large has two of 4 GB


def test_requests_refused_at_the_start_of_a_window_are_billed() -> None:
    """1,157 a second: their first seconds need more than the account has, all later ones do not."""
    question = Question(workload=from_flags(daily="100000000", duration="4s..7s", start="1s"))
    month = month_of(question)
    runs = SimulationRunner()
    sized = CandidateSearch(question, month, runs).evaluate(
        function(question, month, CLASSIC, memory_mb=256)
    )
    runs.close()
    requests = next(item for item in sized.items if item.name == "lambda.requests")
    assert requests.quantity == pytest.approx(month.requests / 1e6, rel=0.02)


def test_environments_have_the_cheapest_slots() -> None:
    """1.5 GB at rest leaves 27 slots of 20 MB in 2 GB: 4 GB cost 13 % more and have 64."""
    service = Service(memory_mb=1_500.0, memory_kb_in_flight=20_480.0)
    question = structs.replace(QUIET, workload=structs.replace(QUIET.workload, service=service))
    month = month_of(question)
    found = managed(question, month, 3).configuration
    assert isinstance(found, ManagedConfiguration)
    assert (found.memory_gb, found.in_flight, found.instance) == (4.0, 64, "m7g.large")
    small = managed(QUIET, month_of(QUIET), 3).configuration
    assert isinstance(small, ManagedConfiguration)
    assert (small.memory_gb, small.instance) == (2.0, "c7g.large")
