"""Candidates: complete configurations from one size (memory, concurrency, pods)."""

import math

from msgspec import Struct, structs

from seawall.plan.decision.answer import (
    Autoscaler,
    CapacityChange,
    Configuration,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    PlatformName,
)
from seawall.plan.decision.lambda_sizes import (
    environment_of,
    instance_of,
    limit_of,
    reserved_of,
    slots_per_environment,
)
from seawall.plan.decision.machines import node_group
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.distributions import Distribution, constant, mean_of, uniform
from seawall.plan.inputs.platforms import Eks, HpaSettings, Lambda, Managed, Nodes, Platform
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.service import Service
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.pods import slots_of

__all__ = [
    "Candidate",
    "eks",
    "function",
    "managed",
    "memories",
    "ordinary_platform",
    "scaled_times",
    "slots_per_pod",
    "stretched",
]

_FULL_MB = 1_769
_BUSY_TARGET = 0.5  # of a pod's slots, for its autoscaler
_MAX_SLOTS = 1_000
_SLACK = 1.25  # of memory, over the known need
_GB_A_CORE = 4.0  # of general-purpose machines


class Candidate(Struct, frozen=True, kw_only=True):
    """A configuration, and the platforms by which it is simulated.

    Attributes:
        name: Of the platform.
        size: Varied by the search: provisioned environments, instances or pods; else memory_mb.
        peak: In a spike.
        rest: Between spikes; differs from `peak` where spikes are announced.
        configuration: For the answer.
        at_once: Requests in service at once that it was sized for.
        start_factor: By which initialisation takes longer than given.
    """

    name: PlatformName
    size: int
    peak: Platform
    rest: Platform
    configuration: Configuration
    at_once: float
    start_factor: float = 1.0


def scaled_times(distribution: Distribution, factor: float) -> Distribution:
    """A distribution with all values multiplied by a factor."""
    if distribution.kind == "lognormal":
        return structs.replace(
            distribution, a=distribution.a + math.log(factor), cap=distribution.cap * factor
        )
    return structs.replace(
        distribution,
        a=distribution.a * factor,
        b=distribution.b * factor,
        values=tuple(value * factor for value in distribution.values),
        cap=distribution.cap * factor,
    )


def stretched(workload: Workload, factor: float) -> Workload:
    """A workload with a longer initialisation; restoring a snapshot takes as long as before."""
    if factor == 1.0:
        return workload
    service: Service = workload.service
    restore = service.restore or constant(mean_of(service.start) / 5.0)
    changed = structs.replace(service, start=scaled_times(service.start, factor), restore=restore)
    return structs.replace(workload, service=changed)


def memories(service: Service) -> list[int]:
    """Memory sizes of a function to try, rising, from 1.5 times the need of the process.

    Beyond 1,769 MB there is a second processor, which one process does not use.
    """
    least = 1.5 * service.memory_mb + service.memory_kb_in_flight / 1_024.0 + 64.0
    sizes = [size for size in (256, 512, 1_024, _FULL_MB) if size >= least]
    return sizes or [min(10_240, math.ceil(least / 64.0) * 64)]


def function(
    question: Question, month: Month, name: PlatformName, *, memory_mb: int, provisioned: int = 0
) -> Candidate:
    """A function: classic, with SnapStart or with provisioned concurrency.

    Initialisation is processor time (assumed; measured on one processor): below 1,769 MB it takes
    longer in proportion.
    """
    options, limit = question.options, limit_of(question, month)
    timeout = min(900.0, max(60.0, question.workload.clients.patience))
    announced = options.announced and provisioned > 0 and month.judged.event
    peak = Lambda(
        memory_mb=memory_mb,
        snapstart=name == "lambda-snapstart",
        provisioned=provisioned,
        account_limit=limit,
        timeout=timeout,
    )
    lead = options.lead_minutes * 60.0
    configuration = LambdaConfiguration(
        memory_mb=memory_mb,
        architecture=options.architecture,
        timeout_seconds=math.ceil(timeout),
        provisioned=0 if announced else provisioned,
        schedule=(CapacityChange(-lead, provisioned), CapacityChange(lead, 0)) if announced else (),
        snapstart=peak.snapstart,
        reserved_concurrency=reserved_of(limit, month.peak, provisioned),
        account_concurrency=limit,
        entry=options.entry,
        streams=options.entry in ("function-url", "rest-api"),
    )
    rest = structs.replace(peak, provisioned=0) if announced else peak
    factor = _FULL_MB / memory_mb if memory_mb < _FULL_MB else 1.0
    return Candidate(
        name=name,
        size=provisioned or memory_mb,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
        start_factor=factor,
    )


def managed(question: Question, month: Month, minimum: int) -> Candidate:
    """Managed instances with at least `minimum` environments."""
    options = question.options
    base = structs.replace(environment_of(question), minimum=3, maximum=3)
    room = slots_per_environment(question)
    announced = options.announced and month.judged.event
    resting = max(3, math.ceil(month.busy / room / base.target)) if announced else minimum
    resting = min(resting, minimum)
    # The minimum suffices for the spike; beyond it there is headroom.
    maximum = max(minimum + 6, math.ceil(1.25 * minimum))
    peak = structs.replace(base, minimum=minimum, maximum=maximum)
    lead = options.lead_minutes * 60.0
    configuration = ManagedConfiguration(
        vcpus=base.vcpus,
        memory_gb=base.vcpus * base.memory_gb_each,
        in_flight=room,
        runtime=base.runtime,
        minimum=resting,
        maximum=maximum,
        target=base.target,
        schedule=(CapacityChange(-lead, minimum), CapacityChange(lead, resting))
        if resting < minimum
        else (),
        instance=instance_of(question, base),
        architecture=options.architecture,
        entry=options.entry,
    )
    rest = structs.replace(peak, minimum=resting)
    return Candidate(
        name="lambda-managed",
        size=minimum,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
    )


def slots_per_pod(service: Service, cores: float) -> int:
    """Requests in service in one pod at most: by four fifths of its processor, and by memory.

    Memory is limited to four gigabytes a core, or as much as the process itself needs.
    """
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    by_cpu = 0.8 * cores * service.mean_seconds / cpu if cpu else _MAX_SLOTS
    own = _SLACK * service.memory_mb
    memory = max(_GB_A_CORE * 1_024.0 * cores - own, own)
    each = _SLACK * 2 * service.memory_kb_in_flight / 1_024.0  # half of them wait
    by_memory = memory / each if each else _MAX_SLOTS
    return int(min(_MAX_SLOTS, max(8, min(by_cpu, by_memory))))


def _pod_memory(service: Service, slots: int) -> int:
    """Memory of a pod in MB: the need of all slots plus a quarter, rounded up."""
    needed = _SLACK * (service.memory_mb + 2 * slots * service.memory_kb_in_flight / 1_024.0)
    return max(256, math.ceil(needed / 128.0) * 128)


def eks(question: Question, month: Month, *, cores: float, pods: int) -> Candidate:
    """Pods on EKS; slots, memory, nodes and autoscaler follow from their number and size."""
    options, service = question.options, question.workload.service
    slots = slots_per_pod(service, cores)
    memory = _pod_memory(service, slots)
    announced = options.announced and month.judged.event
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    load = month.busy / max(service.mean_seconds, 1e-9) * cpu  # cores in use between spikes
    need = max(month.busy / slots / _BUSY_TARGET, load / cores / 0.6)
    resting = min(pods, max(options.least_pods, math.ceil(need))) if announced else pods
    group = node_group(
        question.prices, options.architecture, cores=cores, memory_mb=memory, pods=resting,
        zones=options.zones, spot=options.spot, busy=load,
    )  # fmt: skip
    fargate = group.instance == "fargate"
    nodes = Nodes(
        pods_each=group.pods_each,
        spare=0 if fargate else max(0, group.count - math.ceil(resting / group.pods_each)),
        launch=uniform(30.0, 60.0) if fargate else Nodes().launch,
        spot_interruptions=0.02 if group.spot else 0.0,
    )
    target = max(1.0, slots * _BUSY_TARGET)
    # Headroom beyond the spike; ordinary time stays at the target.
    maximum = max(pods + 4, math.ceil(1.5 * pods), math.ceil(month.usual / target))
    scaler = HpaSettings(minimum=pods, maximum=maximum, metric="in-flight", target=target)
    peak = Eks(
        pods=pods,
        scaler=scaler,
        cores=cores,
        memory_mb=float(memory),
        concurrency=slots,
        queue=slots,
        nodes=nodes,
    )
    rest = structs.replace(peak, pods=resting, scaler=structs.replace(scaler, minimum=resting))
    lead = options.lead_minutes * 60.0
    configuration = EksConfiguration(
        pods=resting,
        cores=cores,
        memory_mb=memory,
        in_flight=slots,
        queue=peak.queue,
        queue_seconds=peak.queue_seconds,
        balance=peak.balance,
        autoscaler=Autoscaler(metric="in-flight", target=target, minimum=resting, maximum=maximum),
        nodes=group,
        schedule=(CapacityChange(-lead, pods), CapacityChange(lead, resting))
        if resting < pods
        else (),
        architecture="x86_64" if fargate else options.architecture,
        prestop_seconds=peak.prestop,
        grace_seconds=max(30.0, math.ceil(2.0 * service.mean_seconds)),
        startup_seconds=mean_of(service.start) + mean_of(peak.warm_up),
    )
    return Candidate(
        name="eks",
        size=pods,
        peak=peak,
        rest=rest,
        configuration=configuration,
        at_once=month.peak,
    )


def ordinary_platform(candidate: Candidate, window: Window) -> Platform:
    """The platform in a window of ordinary time, after its autoscaler has settled.

    Traffic changes slowly between spikes: functions have scaled as needed, and the number of pods
    is that of the autoscaler's target. In a recorded trace traffic changes: nothing is adjusted.
    """
    platform = candidate.rest
    if window.recorded:
        return platform
    workload = window.workload
    busy = workload.arrivals.rate * workload.service.mean_seconds
    match platform:
        case Lambda():
            return structs.replace(platform, start_rate=math.inf, start_burst=math.inf)
        case Eks(scaler=HpaSettings() as scaler):
            pods = min(scaler.maximum, max(platform.pods, math.ceil(busy / scaler.target)))
            return structs.replace(platform, pods=pods, scaler=None)
        case Managed():
            room = slots_of(platform, workload)
            least = max(platform.minimum, math.ceil(busy / room / platform.target))
            # One evaluation in the whole window: nothing changes.
            return structs.replace(
                platform,
                minimum=min(least, platform.maximum),
                check_seconds=10.0 * workload.arrivals.horizon,
            )
        case _:
            return platform
