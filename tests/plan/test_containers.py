"""Places with containers or sessions: their bills, scalers and limits."""

import math

import numpy as np
import pytest
from msgspec import structs

from seawall.plan import (
    Arrivals,
    Eks,
    Nodes,
    Options,
    PerRequest,
    Question,
    RequestScaling,
    Service,
    ServiceTracking,
    Spike,
    Stage,
    Workload,
    advise,
    constant,
    from_flags,
    simulate,
)
from seawall.plan.decision.answer import (
    Answer,
    EksConfiguration,
    ServiceConfiguration,
    SessionConfiguration,
)
from seawall.plan.decision.bill import Used
from seawall.plan.decision.places.agentcore import AGENTCORE
from seawall.plan.decision.places.cloud_run import CLOUD_RUN
from seawall.plan.decision.places.container_apps import CONTAINER_APPS
from seawall.plan.decision.places.ecs import ECS_EC2, ECS_FARGATE
from seawall.plan.decision.places.eks import EKS, EKS_AUTO
from seawall.plan.decision.places.machines import fargate_size
from seawall.plan.decision.places.port import Place, bill_of
from seawall.plan.decision.windows import month_of
from seawall.plan.inputs.prices import load_cloud_prices, load_prices
from seawall.plan.inputs.question import HOURS, MONTH
from seawall.plan.inputs.question_file import Deployed
from seawall.plan.simulator.nodes import NodePool
from tests.plan.models import PATIENT

QUIET = Question(workload=from_flags(daily="86400", duration="2s", start="1s"))


def bill(place: Place, used: Used, question: Question = QUIET, **size: float) -> dict[str, float]:
    """Monthly costs by name of the price."""
    month = month_of(question)
    deployed = Deployed(platform=place.name, **size)  # type: ignore[arg-type]
    candidate = place.deployed(question, month, deployed)
    costs: dict[str, float] = {}
    for item in bill_of(question, month, candidate, used):
        costs[item.name] = costs.get(item.name, 0.0) + item.monthly
    return costs


def test_a_task_on_fargate_costs_what_aws_says() -> None:
    """1 vCPU and 2 GB, x86, all month in us-east-1: $36.04 (https://aws.amazon.com/fargate/)."""
    question = structs.replace(QUIET, options=Options(architecture="x86_64"))
    costs = bill(ECS_FARGATE, Used(pod_seconds=MONTH), question, cores=1.0, pods=1)
    compute = costs["fargate.vcpu_hours.x86_64"] + costs["fargate.gb_hours.x86_64"]
    assert compute == pytest.approx(36.04, abs=0.005)
    assert "eks.control_plane" not in costs


def test_sizes_of_tasks_are_those_of_fargate() -> None:
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html."""
    assert fargate_size(0.5, 700.0, 0.0) == (0.5, 1.0)
    assert fargate_size(1.0, 5_000.0, 0.0) == (1.0, 5.0)
    assert fargate_size(1.0, 9_000.0, 0.0) == (2.0, 9.0)


def test_machines_of_ecs_are_paid_for_even_without_tasks() -> None:
    candidate = ECS_EC2.deployed(
        QUIET, month_of(QUIET), Deployed(platform="ecs-ec2", pods=4, cores=0.4)
    )
    configuration = candidate.configuration
    assert isinstance(configuration, ServiceConfiguration)
    assert configuration.nodes is not None
    few = bill(ECS_EC2, Used(pod_seconds=MONTH), cores=0.4, pods=4)
    price = QUIET.prices.of(f"ec2.{configuration.nodes.instance}").price
    assert few[f"ec2.{configuration.nodes.instance}"] == pytest.approx(
        configuration.nodes.count * HOURS * price
    )
    many = bill(ECS_EC2, Used(pod_seconds=400 * MONTH), cores=0.4, pods=4)
    assert many[f"ec2.{configuration.nodes.instance}"] == pytest.approx(
        400 / configuration.nodes.pods_each * HOURS * price
    )


def test_auto_mode_adds_its_fee_to_the_listed_price() -> None:
    discounted = structs.replace(
        QUIET, prices=structs.replace(QUIET.prices, discounts={"ec2": 0.5})
    )
    used = Used(node_seconds=3 * MONTH)
    for question, share in ((QUIET, 1.0), (discounted, 0.5)):
        candidate = EKS_AUTO.deployed(question, month_of(question), Deployed(platform="eks-auto"))
        configuration = candidate.configuration
        assert isinstance(configuration, EksConfiguration)
        assert configuration.auto_mode
        name = f"ec2.{configuration.nodes.instance}"
        listed = 3 * HOURS * QUIET.prices.items[name].price
        costs = bill(EKS_AUTO, used, question)
        assert costs[name] == pytest.approx(share * listed)
        assert costs["eks.auto_fee"] == pytest.approx(0.12 * listed)
        assert not QUIET.prices.items[name].baseline  # no burstable machines
    assert "eks.auto_fee" not in bill(EKS, used)


def test_extended_support_is_half_a_dollar_an_hour() -> None:
    extended = structs.replace(QUIET, options=Options(extended_support=True))
    assert bill(EKS, Used(), extended)["eks.extended_support"] == pytest.approx(365.0)
    assert "eks.extended_support" not in bill(EKS, Used())
    assert "eks.extended_support" not in bill(ECS_EC2, Used(), extended)


def test_a_session_is_billed_for_processor_time_and_memory() -> None:
    """Waiting for the model costs memory only; a session is idle for a minute before it ends."""
    service = QUIET.workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    used = Used(invocations=1_000.0, billed_seconds=2_000.0, billed_start_seconds=1_000.0)
    costs = bill(AGENTCORE, used)
    assert costs["agentcore.vcpu_hours"] == pytest.approx((1_000 * cpu + 1_000.0) / 3_600 * 0.0895)
    gb = max(128.0, 1.25 * (service.memory_mb + service.memory_kb_in_flight / 1_024)) / 1_024
    alive = 2_000.0 + 1_000.0 + 1_000 * 60.0
    assert costs["agentcore.gb_hours"] == pytest.approx(gb * alive / 3_600 * 0.00945)


def test_cloud_run_is_billed_the_cheaper_way() -> None:
    prices = load_cloud_prices("gcp", "us-east-1")
    assert prices is not None
    used = Used(pod_seconds=2 * MONTH, invocations=1e6)
    often = Question(workload=from_flags(daily="864000", duration="2s", start="1s"))
    busy = bill(CLOUD_RUN, used, often, cores=1.0, pods=2)
    assert busy["run.vcpu_seconds"] == pytest.approx(2 * MONTH * 0.000018)
    assert "run.requests" not in busy
    rare = Question(workload=from_flags(daily="100", duration="2s", start="1s"))
    idle = bill(
        CLOUD_RUN, Used(pod_seconds=2 * MONTH, invocations=3_000.0), rare, cores=1.0, pods=2
    )
    active = 1.0 - math.exp(-100 * 2.0 / 86_400 / 2)
    assert idle["run.active_vcpu_seconds"] == pytest.approx(2 * MONTH * active * 0.000024)
    assert idle["run.idle_vcpu_seconds"] == pytest.approx(2 * MONTH * (1 - active) * 0.0000025)
    assert "run.vcpu_seconds" not in idle


def test_replicas_of_container_apps_are_idle_without_requests() -> None:
    rare = Question(workload=from_flags(daily="100", duration="2s", start="1s"))
    used = Used(pod_seconds=2 * MONTH, invocations=3_000.0)
    costs = bill(CONTAINER_APPS, used, rare, cores=0.5, pods=2)
    active = 1.0 - math.exp(-100 * 2.0 / 86_400 / 2)
    assert costs["apps.active_vcpu_seconds"] == pytest.approx(MONTH * active * 0.000024)
    assert costs["apps.idle_vcpu_seconds"] == pytest.approx(MONTH * (1 - active) * 0.000003)
    assert costs["apps.gib_seconds"] == pytest.approx(2 * MONTH * 0.000003)
    assert "egress.gb" not in costs  # it costs less than AWS's, which is in the shared costs


@pytest.fixture(scope="module")
def everywhere() -> Answer:
    return advise(
        Question(
            workload=from_flags(daily="20000", spikes=("500@20s",), duration="2s..4s", start="1s"),
            options=Options(platforms=("all",)),
        ),
        vary=False,
    )


def test_every_place_has_a_configuration(everywhere: Answer) -> None:
    excluded = {each.name: each.reasons for each in everywhere.excluded}
    assert set(excluded) == {"lambda-web"}
    assert "not applicable" in excluded["lambda-web"][0]
    assert len(everywhere.platforms) == 11
    for name in ("ecs-fargate", "ecs-ec2", "cloud-run", "container-apps"):
        found = everywhere.platforms[name]
        assert found.met and found.words and found.family == "containers"  # noqa: PT018
        assert isinstance(found.configuration, ServiceConfiguration)
        assert found.configuration.instances >= 2
    costs = {name: each.monthly_cost for name, each in everywhere.platforms.items()}
    assert costs["ecs-ec2"] < costs["eks"] < costs["eks-auto"]  # control plane, and its fee


def test_agentcore_starts_25_sessions_a_second(everywhere: Answer) -> None:
    found = everywhere.platforms["agentcore"]
    assert not found.met
    assert (found.error_share.value or 0.0) > 0.5
    assert isinstance(found.configuration, SessionConfiguration)
    assert (found.configuration.new_sessions, found.configuration.active_sessions) == (25.0, 5_000)


def test_places_share_a_simulation_where_they_are_the_same() -> None:
    """ECS and EKS with the same pods in ordinary time."""
    options = Options(platforms=("ecs-ec2", "eks", "eks-auto"))
    question = Question(workload=from_flags(daily="1000", duration="2s"), options=options)
    alone = advise(structs.replace(question, options=Options(platforms=("eks",))))
    together = advise(question)
    assert together.work.simulations < 1.5 * alone.work.simulations


@pytest.mark.parametrize(
    ("place", "memory_mb", "words"),
    [
        ("agentcore", 7_000.0, "8,192 MB at most"),
        ("container-apps", 8_000.0, "8,192 MB at most"),
        ("cloud-run", 30_000.0, "32,768 MB at most"),
        ("ecs-ec2", 30_000.0, "fit on no machine"),
        ("eks-auto", 30_000.0, "fit on no machine"),
    ],
)
def test_processes_that_are_too_large(place: str, memory_mb: float, words: str) -> None:
    workload = QUIET.workload
    service = structs.replace(workload.service, memory_mb=memory_mb)
    answer = advise(
        Question(
            workload=structs.replace(workload, service=service),
            options=Options(platforms=(place, "ecs-fargate")),
        ),
        vary=False,
    )
    assert [each.name for each in answer.excluded] == [place]
    assert words in answer.excluded[0].reasons[0]


def test_other_limits_of_other_places() -> None:
    long = Question(
        workload=from_flags(daily="100", duration="5min"),
        options=Options(platforms=("container-apps", "cloud-run")),
    )
    answer = advise(long, vary=False)
    assert "cuts them off after 240 s" in answer.excluded[0].reasons[0]
    assert list(answer.platforms) == ["cloud-run"]
    large = structs.replace(
        QUIET,
        each=PerRequest(kb_to_callers=101 * 1_024.0),
        options=Options(platforms=("agentcore", "eks")),
    )
    assert "answers have 101 MB" in advise(large, vary=False).excluded[0].reasons[0]
    europe = structs.replace(
        QUIET, prices=load_prices("eu-central-1"), options=Options(platforms=("all",))
    )
    reasons = {each.name: each.reasons for each in advise(europe, vary=False).excluded}
    assert reasons["container-apps"] == ("no prices of azure near eu-central-1",)
    assert "cloud-run" not in reasons


def steady(rate: float, seconds: float, horizon: float) -> Workload:
    return Workload(
        arrivals=Arrivals(horizon=horizon, rate=rate),
        service=Service(stages=(Stage("work", constant(seconds)),), start=constant(0.0)),
        clients=PATIENT,
    )


def test_target_tracking_of_a_service() -> None:
    """Three minutes above, then a cool-down of five; back after a quarter of an hour below."""
    nodes = Nodes(pods_each=1, launch=constant(30.0), pull=constant(0.0))
    scaler = ServiceTracking(minimum=2, maximum=20, target=60.0)
    platform = Eks(pods=2, scaler=scaler, nodes=nodes, warm_up=constant(0.0), endpoint_lag=0.0)
    rising = simulate(steady(8.0, 0.5, 1_800.0), platform).seconds["ready"]
    assert rising[:205].max() == 2
    assert rising[225] == pytest.approx(8, abs=1)  # 480 a minute, 60 each
    assert rising[-200:].max() <= 10
    short = Workload(
        arrivals=Arrivals(horizon=2_400.0, rate=0.5, spikes=(Spike(3_000, 0.0, 300.0),)),
        service=steady(1.0, 0.5, 1.0).service,
        clients=PATIENT,
    )
    falling = simulate(short, platform).seconds["ready"]
    highest = int(falling[:400].max())
    assert highest > 4
    until = 300.0 + 15 * 60
    assert falling[int(until) - 60] == highest
    assert falling[int(until) + 400] == 2


def test_cloud_run_scales_at_once_and_back_after_a_quarter_of_an_hour() -> None:
    nodes = Nodes(pods_each=1, launch=constant(2.0), pull=constant(0.0))
    platform = Eks(
        pods=1,
        scaler=RequestScaling(minimum=1, maximum=50, target=6.0),
        concurrency=10,
        queue=1_000,
        queue_seconds=60.0,
        warm_up=constant(0.0),
        endpoint_lag=0.0,
        nodes=nodes,
    )
    crowd = Workload(
        arrivals=Arrivals(horizon=1_500.0, spikes=(Spike(100, 62.0),)),
        service=steady(1.0, 30.0, 1.0).service,
        clients=PATIENT,
    )
    ready = simulate(crowd, platform).seconds["ready"]
    assert ready[65] == 1
    assert ready[68] == 10  # a hundred by ten
    assert 10 <= ready[600] <= math.ceil(100 / 6)  # those that wait count for a minute
    assert ready[-1] == 1


def test_launches_on_fargate_have_a_rate() -> None:
    """A hundred at once, then twenty a second."""
    pool = NodePool(Nodes(pods_each=1, launch_burst=100.0, launch_rate=20.0), 0)
    ready = np.array([pool.assign(10.0, 30.0, 0.0).ready for _ in range(300)])
    assert (ready[:100] == 40.0).all()
    assert ready[100:] == pytest.approx(40.0 + (np.arange(200) + 1) / 20.0)
    assert pool.assign(1_000.0, 30.0, 0.0).ready == 1_030.0
    free = NodePool(Nodes(pods_each=1), 0)
    assert free.assign(0.0, 30.0, 5.0).has_image == 35.0
