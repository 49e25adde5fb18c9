"""A plan for pods as values of the Helm chart."""

import math
from typing import Any

from seawall.plan.decision.answer import EksConfiguration
from seawall.ship.plan_file import PlannedService
from seawall.ship.schedule import CROWD_UNUSED, CrowdTime, capacity_schedule

__all__ = ["eks_values"]

_ARCHITECTURES = {"arm64": "arm64", "x86_64": "amd64"}
_SHORTEST_TURN = 30
_TURN_STEP = 10
_HEADROOM = 1.25  # nodes beside the pods at most: those that are drained and replaced


def eks_values(
    plan: PlannedService,
    *,
    crowd: CrowdTime | None = None,
    cluster: str = "",
    node_role: str = "",
    secrets: tuple[str, ...] = (),
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values, and what to know besides. cluster, node_role: for Karpenter's nodes, or empty.

    secrets: those of the namespace whose keys become variables.

    Raises:
        ConfigError: the plan has no pods.
    """
    platform = plan.eks()
    found = platform.configuration
    assert isinstance(found, EksConfiguration)  # noqa: S101 - `eks` has looked
    workers = max(1, math.floor(found.cores))
    turn = _turn_seconds(found, platform.latency.p99_9.value)
    notes: list[str] = []
    if not platform.met:
        notes.append("The objective does not hold on EKS: this is the nearest that was found.")
    values: dict[str, Any] = {
        "replicas": found.pods,
        "architecture": _ARCHITECTURES.get(found.architecture, ""),
        "workers": workers,
        "resources": {
            "cpu": f"{found.cores:g}",
            "memory": f"{found.memory_mb}Mi",
            "cpuLimit": f"{found.cores:g}",
        },
        "turnSeconds": turn,
        "stop": {"preStopSeconds": max(1, math.ceil(found.prestop_seconds))},
        "startup": {"seconds": max(60, math.ceil(found.startup_seconds * 10))},
        # Bounds of one process; the plan's are of a pod.
        "admission": {
            "inFlight": math.ceil(found.in_flight / workers),
            "queued": math.ceil(found.queue / workers),
            "waitSeconds": found.queue_seconds,
        },
        "sessions": {"store": "dynamodb", "region": plan.region},
        "autoscaling": _autoscaling(found, crowd, notes),
        "metrics": {"serviceMonitor": True, "rules": True, "dashboard": True},
        "disruption": {"maxUnavailable": max(1, found.pods // 10)},
    }
    if secrets:
        values["secrets"] = {"existing": list(secrets)}
    values["karpenter"] = _nodes(found, cluster, node_role, notes)
    return values, tuple(notes)


def _turn_seconds(found: EksConfiguration, longest: float | None) -> int:
    """Twice what 999 of 1,000 take, in tens of seconds: who takes longer is ended."""
    seconds = max(_SHORTEST_TURN, found.grace_seconds, 2 * (longest or 0.0))
    return math.ceil(seconds / _TURN_STEP) * _TURN_STEP


def _autoscaling(
    found: EksConfiguration, crowd: CrowdTime | None, notes: list[str]
) -> dict[str, Any]:
    scaler = found.autoscaler
    schedule = capacity_schedule(crowd, found.schedule, found.pods) if crowd is not None else None
    if found.schedule and crowd is None:
        most = max(moment.count for moment in found.schedule)
        notes.append(f"The plan schedules {most} pods for its crowd: say when with --crowd.")
    if crowd is not None and schedule is None:
        notes.append(CROWD_UNUSED)
    if scaler is None and schedule is None:
        return {"mode": "none", "minimum": found.pods, "maximum": found.pods}
    values: dict[str, Any] = {"mode": "keda"}
    if scaler is None:
        values |= {"metric": "none", "minimum": found.pods, "maximum": found.pods}
    else:
        values |= {
            "metric": scaler.metric,
            "minimum": scaler.minimum,
            "maximum": scaler.maximum,
            "upWindowSeconds": math.ceil(scaler.up_window_seconds),
            "downWindowSeconds": math.ceil(scaler.down_window_seconds),
        }
        if scaler.metric == "cpu":
            values["cpuTarget"] = max(1, min(100, round(scaler.target)))
            if schedule is None:
                values["mode"] = "hpa"
        else:
            values["inFlightTarget"] = scaler.target
    if schedule is not None:
        values["maximum"] = max(values["maximum"], schedule.count)
        values["schedule"] = [
            {
                "start": schedule.begins.cron(),
                "end": schedule.ends.cron(),
                "timezone": schedule.begins.timezone,
                "replicas": schedule.count,
            }
        ]
    return values


def _nodes(found: EksConfiguration, cluster: str, role: str, notes: list[str]) -> dict[str, Any]:
    nodes = found.nodes
    if nodes.instance == "fargate":
        notes.append("The plan runs the pods on Fargate: their namespace needs a Fargate profile.")
        if cluster or role:
            notes.append("--cluster and --node-role make no NodePool: Fargate has no nodes.")
        return {"enabled": False}
    if not (cluster and role):
        notes.append(
            f"The plan has {nodes.count} x {nodes.instance} under the pods; with --cluster and "
            "--node-role the chart makes a Karpenter NodePool of them."
        )
        if cluster or role:
            notes.append("One of --cluster and --node-role alone makes no NodePool.")
        return {"enabled": False}
    most = max(
        found.autoscaler.maximum if found.autoscaler is not None else found.pods,
        *(moment.count for moment in found.schedule),
        found.pods,
    )
    machines = math.ceil(math.ceil(most / max(1, nodes.pods_each)) * _HEADROOM)
    return {
        "enabled": True,
        "clusterName": cluster,
        "role": role,
        "instances": [nodes.instance],
        "capacity": ["spot", "on-demand"] if nodes.spot else ["on-demand"],
        "cpuLimit": f"{math.ceil(machines * nodes.vcpus)}",
    }
