"""Rules of pods: autoscaling, nodes, termination; and of managed instances."""

import math

import pytest

from seawall.errors import ConfigError
from seawall.plan import (
    Arrivals,
    Clients,
    Eks,
    HpaSettings,
    KedaSettings,
    Managed,
    Nodes,
    Service,
    Spike,
    Stage,
    Workload,
    constant,
    simulate,
)
from seawall.plan.inputs.platforms import DEFAULT_DOWN, Rules
from tests.plan.models import PATIENT


def wait(
    rate: float,
    seconds: float,
    horizon: float,
    *,
    cpu_ms: float = 0.0,
    crowd: int = 0,
    clients: Clients = PATIENT,
) -> Workload:
    return Workload(
        arrivals=Arrivals(
            horizon=horizon, rate=rate, spikes=(Spike(crowd, 100.0),) if crowd else ()
        ),
        service=Service(
            stages=(Stage("model", constant(seconds), cpu_ms=cpu_ms, model=True),),
            start=constant(3.0),
        ),
        clients=clients,
    )


def nodes(**fields: object) -> Nodes:
    base: dict[str, object] = {"launch": constant(60.0), "pull": constant(10.0)}
    return Nodes(**(base | fields))  # type: ignore[arg-type]


def test_slots_queue_and_shedding() -> None:
    """300 at once at one pod with 100 slots and a queue of 50: 150 refused, 50 wait for 4 s."""
    platform = Eks(pods=1, concurrency=100, queue=50, queue_seconds=10.0)
    result = simulate(wait(0.0, 4.0, 200.0, crowd=300), platform)
    assert (result.served, result.refused) == (150, 150)
    assert result.peak["queued"] == 50
    assert result.latency.quantile(1.0) == pytest.approx(8.0, rel=0.02)
    shed = simulate(
        wait(0.0, 4.0, 200.0, crowd=300), Eks(pods=1, concurrency=100, queue=50, queue_seconds=3.0)
    )
    assert (shed.served, shed.refused) == (100, 200)
    assert shed.seconds["throttled"][103] == 50


def test_memory_bounds_requests_in_service() -> None:
    base = wait(0.0, 4.0, 200.0, crowd=300)
    heavy = Workload(
        arrivals=base.arrivals, clients=PATIENT,
        service=Service(stages=base.service.stages, memory_kb_in_flight=10 * 1024, memory_mb=100),
    )  # fmt: skip
    result = simulate(heavy, Eks(pods=1, concurrency=500, queue=0, memory_mb=600))
    assert result.peak["in_one_pod"] == 50


@pytest.mark.parametrize("balance", ["random", "round-robin", "least"])
def test_balancing(balance: str) -> None:
    platform = Eks(pods=10, balance=balance)  # type: ignore[arg-type]
    result = simulate(wait(0.0, 4.0, 200.0, crowd=1_000), platform)
    most = result.peak["in_one_pod"]
    assert most == 100 if balance != "random" else 105 < most < 150


def test_autoscaling_by_processor_use() -> None:
    """It doubles from 15 s on; pods are ready after node, image and start."""
    platform = Eks(
        pods=2, scaler=HpaSettings(minimum=2, maximum=32), warm_up=constant(2.0),
        nodes=nodes(pods_each=1), concurrency=10_000, memory_mb=10_000,
    )  # fmt: skip
    result = simulate(wait(200.0, 1.0, 1_500.0, cpu_ms=20.0), platform)  # needs 4 cores
    ready, pods = result.seconds["ready"], result.seconds["capacity"]
    assert pods[14] == 2
    assert pods[16] > 2
    assert ready[15 + 60 + 10 + 3 + 2 - 1] == 2
    assert ready[15 + 60 + 10 + 3 + 2 + 1] > 2
    assert ready[1_400] == 6  # 4 cores at 70 %
    assert result.usage.node_starts >= 4
    assert result.latency.quantile(0.999) > 5.0
    assert result.latency.quantile(0.5) < 1.6


def test_autoscaling_by_processor_use_ignores_waiting_requests() -> None:
    """Model calls use no processor: a spike scales by requests in flight only."""
    crowd = wait(0.0, 30.0, 300.0, crowd=400)
    blind = simulate(crowd, Eks(pods=2, scaler=HpaSettings(), nodes=nodes(spare=9)))
    seeing = HpaSettings(metric="in-flight", target=50.0)
    found = simulate(crowd, Eks(pods=2, scaler=seeing, nodes=nodes(spare=9)))
    assert blind.peak["capacity"] == 2
    assert found.peak["capacity"] == 8
    down = found.seconds["ready"]
    assert down[299] == 8  # five minutes of stabilisation are not over


def test_pending_pods_are_unready_for_every_metric() -> None:
    """groupPods of Kubernetes: they do not count as at their target when scaling down."""
    crowd = wait(0.0, 20.0, 300.0, crowd=400)
    scaler = HpaSettings(metric="in-flight", target=50.0, down=Rules(DEFAULT_DOWN.policies))
    slow = Nodes(pods_each=1, launch=constant(150.0), pull=constant(0.0))
    pods = simulate(crowd, Eks(pods=2, scaler=scaler, nodes=slow)).seconds["capacity"]
    assert pods[118] > 2  # from 100 on
    assert pods[140] == 2  # and none of them is ready


def test_keda_scales_from_and_to_zero() -> None:
    clients = Clients(retries=12, backoff=4.0, backoff_cap=10.0, patience=math.inf)
    workload = wait(0.0, 2.0, 900.0, crowd=50, clients=clients)
    platform = Eks(pods=0, scaler=KedaSettings(target=25.0), nodes=nodes(spare=1))
    result = simulate(workload, platform)
    ready = result.seconds["ready"]
    assert ready[:120].max() == 0  # a poll each 30 s sees those that were turned away at 100
    assert ready[126] == 1
    assert result.served == 50
    assert ready[-1] == 0
    ends = int(ready.nonzero()[0][-1])
    assert 300.0 < ends - 120 < 400.0


def test_a_rolling_deployment_with_prestop_loses_no_request() -> None:
    """SIGTERM and the removal of the endpoint race: without preStop requests are refused."""
    workload = wait(200.0, 2.0, 300.0)
    safe = simulate(workload, Eks(pods=4, deploys=(60.0,), nodes=nodes(spare=2)))
    hasty = simulate(workload, Eks(pods=4, deploys=(60.0,), prestop=0.0, nodes=nodes(spare=2)))
    assert (safe.refused, safe.failed) == (0, 0)
    assert safe.usage.pod_starts == 4
    assert safe.seconds["ready"][65:100].min() >= 4
    assert hasty.refused > 100
    slow = wait(200.0, 50.0, 300.0)
    cut = simulate(slow, Eks(pods=4, deploys=(60.0,), nodes=nodes(spare=2), concurrency=5_000))
    assert cut.failed > 1_000  # longer than the grace of 30 s


def test_spot_interruptions_give_two_minutes() -> None:
    platform = Eks(
        pods=8, nodes=nodes(pods_each=2, spot_interruptions=2.0), concurrency=500, queue=0
    )
    result = simulate(wait(100.0, 3.0, 7_200.0), platform)
    assert result.failed == 0  # two minutes are enough for requests of 3 s
    assert result.usage.node_starts > 5
    assert result.seconds["ready"].min() < 8
    assert result.seconds["ready"][-1] >= 5


def test_pods_and_nodes_are_counted_by_the_second() -> None:
    result = simulate(wait(1.0, 1.0, 1_000.0), Eks(pods=5, nodes=nodes(pods_each=2, spare=1)))
    assert result.usage.pod_seconds == 5_000.0
    assert result.usage.node_seconds == 4_000.0


def test_managed_instances_throttle_when_traffic_more_than_doubles() -> None:
    """They scale asynchronously, and no more than double within five minutes."""
    quiet = Managed(minimum=3, launch=constant(30.0))
    result = simulate(wait(20.0, 5.0, 600.0, crowd=0), quiet)  # 100 in flight of 192
    assert result.refused == 0
    crowd = simulate(wait(20.0, 5.0, 600.0, crowd=500), quiet)
    assert crowd.refused > 300
    assert crowd.peak["capacity"] <= 8
    assert crowd.cold_starts == 0


def test_a_process_for_each_request_or_one_for_all() -> None:
    crowd = wait(0.0, 5.0, 200.0, crowd=1_000)
    processes = simulate(crowd, Managed(runtime="processes"))
    together = simulate(crowd, Managed(runtime="async"))
    assert (processes.peak["in_one_pod"], together.peak["in_one_pod"]) == (16, 64)
    big = Service(stages=crowd.service.stages, memory_mb=400.0)  # five of those fit into 2 GB
    few = simulate(
        Workload(arrivals=crowd.arrivals, service=big, clients=PATIENT),
        Managed(runtime="processes"),
    )
    assert few.peak["in_one_pod"] == 5
    with pytest.raises(ConfigError, match=r"managed\.concurrency: must be from 1 to 64"):
        Managed(concurrency=65)


def test_load_on_other_services() -> None:
    """Connections open when more are in flight in a pod than ever; store calls as the stages say.

    A pod keeps its three, and one for each request that was in service at once.
    """
    workload = Workload(
        arrivals=Arrivals(horizon=200.0, spikes=(Spike(100, 50.0), Spike(60, 100.0))),
        clients=PATIENT,
    )
    result = simulate(workload, Eks(pods=2))
    new = result.seconds["new_connections"]
    assert (new[50], new[100]) == (100, 0)
    assert result.seconds["open_connections"][-1] == 2 * 3 + 100
    assert result.seconds["store_calls"].sum() == 2 * 160
    assert result.seconds["model_calls"].max() == 100
    assert result.seconds["model_calls"][-1] == 0
