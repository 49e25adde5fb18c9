"""Sizing: a plan as values of the Helm chart and as parameters of a function's template."""

import math
from typing import Any

from seawall.plan.decision.answer import (
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    PlatformName,
)
from seawall.ship.plan_file import PlannedPlatform, PlannedService
from seawall.ship.schedule import CROWD_UNUSED, CrowdTime, capacity_schedule

__all__ = ["eks_values", "lambda_parameters", "template_of"]

_ARCHITECTURES = {"arm64": "arm64", "x86_64": "amd64"}
_SHORTEST_TURN = 30
_TURN_STEP = 10
_HEADROOM = 1.25  # nodes over those that the pods need: for nodes that are drained and replaced
_GIB_PER_VCPU = (2, 4, 8)  # that a managed instance's environment may have
_DEFAULT_CONCURRENCY = 1_000  # of an account
_URL_SECONDS = 900


def eks_values(
    plan: PlannedService,
    *,
    crowd: CrowdTime | None = None,
    cluster: str = "",
    node_role: str = "",
    secrets: tuple[str, ...] = (),
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Size the chart.

    Args:
        plan: Has pods.
        crowd: When an announced crowd arrives.
        cluster: Name of the cluster, for Karpenter's nodes; empty for none.
        node_role: IAM role of the nodes, for the same.
        secrets: Secrets of the namespace whose keys become variables.

    Returns:
        The values, and notes for the user.

    Raises:
        ConfigError: The plan has no pods.
    """
    platform = plan.eks()
    found = platform.configuration
    assert isinstance(found, EksConfiguration)  # noqa: S101 - checked by `eks`
    workers = max(1, math.floor(found.cores))
    turn = _turn_seconds(found, platform.latency.p99_9.value)
    notes: list[str] = []
    if not platform.met:
        notes.append("The objective is not met on EKS: this is the nearest configuration.")
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
        # Limits of one process; those of the plan are of a pod.
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
    """Twice what 999 of 1,000 turns take, in tens of seconds: longer turns are cut off."""
    seconds = max(_SHORTEST_TURN, found.grace_seconds, 2 * (longest or 0.0))
    return math.ceil(seconds / _TURN_STEP) * _TURN_STEP


def _autoscaling(
    found: EksConfiguration, crowd: CrowdTime | None, notes: list[str]
) -> dict[str, Any]:
    scaler = found.autoscaler
    schedule = capacity_schedule(crowd, found.schedule, found.pods) if crowd is not None else None
    if found.schedule and crowd is None:
        most = max(moment.count for moment in found.schedule)
        notes.append(f"The plan schedules {most} pods for its crowd: give its time with --crowd.")
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
            notes.append("--cluster and --node-role create no NodePool: Fargate has no nodes.")
        return {"enabled": False}
    if not (cluster and role):
        notes.append(
            f"The plan has {nodes.count} x {nodes.instance} nodes; with --cluster and "
            "--node-role the chart creates a Karpenter NodePool for them."
        )
        if cluster or role:
            notes.append("--cluster or --node-role alone creates no NodePool.")
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


def template_of(name: PlatformName) -> str:
    """Name the template for this kind of function: a file in deploy/lambda."""
    return "managed.yaml" if name == "lambda-managed" else "template.yaml"


def lambda_parameters(
    platform: PlannedPlatform, *, crowd: CrowdTime | None = None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Size a function: its parameters by name, and notes for the user."""
    notes: list[str] = []
    if not platform.met:
        notes.append(
            f"The objective is not met on {platform.name}: this is the nearest configuration."
        )
    found = platform.configuration
    if isinstance(found, ManagedConfiguration):
        return _managed(found, crowd, notes), tuple(notes)
    assert isinstance(found, LambdaConfiguration)  # noqa: S101 - there is no other kind of function
    return _classic(found, crowd, notes), tuple(notes)


def _classic(
    found: LambdaConfiguration, crowd: CrowdTime | None, notes: list[str]
) -> dict[str, str]:
    most = max((moment.count for moment in found.schedule), default=0)
    provisioned = bool(found.provisioned or most)
    start = "provisioned" if provisioned else "snapstart" if found.snapstart else "on-demand"
    parameters = {
        "Start": start,
        "MemoryMb": str(found.memory_mb),
        "Architecture": found.architecture,
        "TimeoutSeconds": str(min(_URL_SECONDS, found.timeout_seconds)),
        "ReservedConcurrency": str(found.reserved_concurrency or 0),
    }
    if provisioned:
        parameters["Provisioned"] = str(max(1, found.provisioned))
    if crowd is not None:
        times = capacity_schedule(crowd, found.schedule, found.provisioned)
        if times is not None:
            parameters |= {
                "CrowdProvisioned": str(times.count),
                "CrowdBegins": times.begins.aws_cron(),
                "CrowdEnds": times.ends.aws_cron(),
                "CrowdTimezone": times.begins.timezone,
            }
        else:
            notes.append(CROWD_UNUSED)
    elif most:
        notes.append(
            f"The plan schedules {most} provisioned environments for its crowd: give its time with "
            "--crowd."
        )
    if found.account_concurrency > _DEFAULT_CONCURRENCY:
        notes.append(
            f"The account's concurrency must be {found.account_concurrency:,}; the default is "
            f"{_DEFAULT_CONCURRENCY:,}. Request it: Service Quotas, Lambda, Concurrent executions."
        )
    if found.functions > 1:
        notes.append(
            f"The plan has {found.functions} identical functions ({found.router}): deploy this "
            "stack as often, each with its own name, and put the router in front of them."
        )
    if found.entry != "function-url":
        notes.append(f"The plan assumes {found.entry}; the template creates a function URL.")
    return parameters


def _managed(
    found: ManagedConfiguration, crowd: CrowdTime | None, notes: list[str]
) -> dict[str, str]:
    wanted = found.memory_gb / found.vcpus
    ratio = min(_GIB_PER_VCPU, key=lambda each: (abs(each - wanted), each))
    if found.runtime != "async":
        notes.append(
            "The plan assumes a process for each request; Seawall's runtime serves all requests of "
            "an environment in one process, which needs less."
        )
    times = capacity_schedule(crowd, found.schedule, found.minimum) if crowd is not None else None
    if found.schedule and crowd is None:
        most = max(moment.count for moment in found.schedule)
        notes.append(
            f"The plan has at least {most} environments during its crowd: give its time with "
            "--crowd."
        )
    highest = max(found.maximum, *(moment.count for moment in found.schedule), found.minimum)
    parameters = {
        "MemoryMb": str(round(found.memory_gb * 1_024)),
        "MemoryGiBPerVcpu": str(ratio),
        "Architecture": found.architecture,
        "TimeoutSeconds": str(min(_URL_SECONDS, found.timeout_seconds)),
        "InFlight": str(found.in_flight),
        "MinimumEnvironments": str(found.minimum),
        "MaximumEnvironments": str(highest),
        "MaximumVcpus": str(max(2, math.ceil(highest * found.vcpus))),
        "TargetUtilization": str(max(10, min(90, round(found.target * 100)))),
        "Instances": found.instance,
    }
    if times is not None:
        parameters |= {
            "CrowdMinimum": str(times.count),
            "CrowdBegins": times.begins.aws_cron(),
            "CrowdEnds": times.ends.aws_cron(),
            "CrowdTimezone": times.begins.timezone,
        }
    elif crowd is not None:
        notes.append(CROWD_UNUSED)
    return parameters
