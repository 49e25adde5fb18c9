"""Configurations to try: from one size (memory, provisioned, pods) to all that is deployed."""

import math
from statistics import NormalDist

from msgspec import Struct, structs

from seawall.plan.answer import (
    Autoscaler,
    Choice,
    Configuration,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    Moment,
)
from seawall.plan.distributions import Distribution, constant, mean_of, uniform
from seawall.plan.hpa import HpaSettings
from seawall.plan.machines import node_group
from seawall.plan.platforms import Eks, Lambda, Managed, Nodes, Platform
from seawall.plan.pod_state import places_of
from seawall.plan.prices import Price
from seawall.plan.question import Question
from seawall.plan.service import Service
from seawall.plan.windows import Month, Window
from seawall.plan.workload import Workload

__all__ = [
    "Candidate",
    "eks",
    "function",
    "limit_of",
    "managed",
    "managed_least",
    "managed_room",
    "memories",
    "most_provisioned",
    "ordinary_platform",
    "places_in_a_pod",
    "scaled_times",
    "share_of",
    "stretched",
    "worth_provisioning",
]

_FULL_MB = 1_769
_BUSY_TARGET = 0.5  # of a pod's places, for its autoscaler
_MOST_PLACES = 1_000
_UNRESERVED = 100
_SLACK = 1.25  # of memory, over what is known to be taken
_GB_A_CORE = 4.0  # as general-purpose machines have it


class Candidate(Struct, frozen=True, kw_only=True):
    """A configuration, and how it is simulated.

    size: what the search varies: provisioned environments, instances or pods; memory_mb of the
    others. peak: in a spike; rest: between spikes; they differ where spikes are announced.
    start_factor: by which initialisation takes longer than was measured. at_once: requests in
    service at once that it was made for.
    """

    name: Choice
    size: int
    peak: Platform
    rest: Platform
    configuration: Configuration
    at_once: float
    start_factor: float = 1.0


def scaled_times(distribution: Distribution, factor: float) -> Distribution:
    """All of its values times a factor."""
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
    """With an initialisation that takes longer; that of a restored snapshot does not."""
    if factor == 1.0:
        return workload
    service: Service = workload.service
    restore = service.restore or constant(mean_of(service.start) / 5.0)
    changed = structs.replace(service, start=scaled_times(service.start, factor), restore=restore)
    return structs.replace(workload, service=changed)


def limit_of(question: Question, month: Month) -> int:
    """Concurrency of the account: as given, or the least thousand that leaves room for the peak."""
    if question.options.account_limit is not None:
        return question.options.account_limit
    return max(1_000, math.ceil(1.1 * month.peak / 1_000.0) * 1_000)


def most_provisioned(limit: int) -> int:
    """Of an account's concurrency, what can be reserved or provisioned: all but 100.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
    """
    return max(1, limit - _UNRESERVED)


def worth_provisioning(question: Question, month: Month) -> int:
    """Environments that cost less provisioned than on demand: they are busy for most of the time.

    One pays where the share of time for which so many are busy is more than the standing price
    through what a second costs less: 0.6 at AWS's prices. Busy are, in each piece of ordinary
    time, a Poisson number, as of a service where nobody waits (M/G/∞), here a normal one.
    """
    if question.options.announced and month.judged.event:
        return 0  # nothing is provisioned between spikes
    prices, arch = question.prices, question.options.architecture
    saved = prices.of(f"lambda.gb_seconds.{arch}").price
    saved -= prices.of(f"lambda.provisioned_duration.{arch}").price
    needed = prices.of(f"lambda.provisioned_gb_seconds.{arch}").price / max(saved, 1e-12)
    pieces = [each for each in (month.judged, *month.ordinary) if not each.event]
    mean, whole = question.workload.service.mean_seconds, sum(each.seconds for each in pieces)
    busy = [
        (each.workload.expected_requests / each.horizon * mean, each.seconds) for each in pieces
    ]

    def share(count: int) -> float:
        return sum(
            seconds * (1.0 - NormalDist(level, math.sqrt(level) or 1e-9).cdf(count - 0.5))
            for level, seconds in busy
        ) / max(whole, 1e-9)

    low, high = 0, math.ceil(month.usual) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if share(middle) >= needed else (low, middle - 1)
    return low


def _reserved(limit: int, peak: float, provisioned: int) -> int | None:
    """What a crowd needs, kept from the account's other functions; they must keep 100.

    Not less than is provisioned of it: that would be refused.
    """
    wanted = max(math.ceil(1.1 * peak), provisioned)
    return wanted if 100 < wanted <= most_provisioned(limit) else None


def memories(service: Service) -> list[int]:
    """Sizes of a function worth trying, rising: half as much again as the process needs, or more.

    Beyond 1,769 MB there is a second processor, which one process does not use.
    """
    least = 1.5 * service.memory_mb + service.memory_kb_in_flight / 1_024.0 + 64.0
    sizes = [size for size in (256, 512, 1_024, _FULL_MB) if size >= least]
    return sizes or [min(10_240, math.ceil(least / 64.0) * 64)]


def function(
    question: Question, month: Month, name: Choice, *, memory_mb: int, provisioned: int = 0
) -> Candidate:
    """A function, classic, with SnapStart or with provisioned concurrency.

    Initialisation is processor's work (assumed; measured with one processor): below 1,769 MB it
    takes longer in proportion.
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
        schedule=(Moment(-lead, provisioned), Moment(lead, 0)) if announced else (),
        snapstart=peak.snapstart,
        reserved_concurrency=_reserved(limit, month.peak, provisioned),
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


def _environment(question: Question) -> Managed:
    """Of managed instances, the one with the cheapest places of those that have room for eight.

    Beyond 8 GB a vCPU there are more vCPUs.
    """
    service, runtime = question.workload.service, question.options.managed_runtime
    needed = _SLACK * service.memory_mb + 8 * service.memory_kb_in_flight / 1_024.0
    sizes = (2.0, 4.0, 8.0)
    fitting = [
        Managed(runtime=runtime, memory_gb_each=size) for size in sizes if size * 1_024.0 >= needed
    ]
    if not fitting:
        vcpus = float(math.ceil(needed / (sizes[-1] * 1_024.0)))
        return Managed(runtime=runtime, vcpus=vcpus, memory_gb_each=sizes[-1])

    def price_of_a_place(environment: Managed) -> float:
        hourly = _hourly(question, environment, _managed_instance(question, environment))
        return hourly / places_of(environment, question.workload)

    return min(fitting, key=price_of_a_place)


def _hourly(question: Question, environment: Managed, instance: str) -> float:
    """Of an environment on such machines."""
    machine = question.prices.of(f"ec2.{instance}")
    memory_gb = environment.vcpus * environment.memory_gb_each
    return machine.price * share_of(machine, environment.vcpus, memory_gb)


def managed_room(question: Question) -> int:
    """Requests at once in one environment of a managed instance."""
    return places_of(_environment(question), question.workload)


def managed_least(question: Question, month: Month) -> int:
    """Environments that the most at once take, by their places and by what they compute."""
    service = question.workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    cores = month.peak / max(service.mean_seconds, 1e-9) * cpu
    platform = _environment(question)
    each = platform.vcpus if platform.runtime == "processes" else 1.0
    return max(1, math.ceil(month.peak / managed_room(question)), math.ceil(cores / each))


def managed(question: Question, month: Month, minimum: int) -> Candidate:
    """Managed instances, as many environments as `minimum` at least."""
    options = question.options
    base = structs.replace(_environment(question), minimum=3, maximum=3)
    room = managed_room(question)
    announced = options.announced and month.judged.event
    resting = max(3, math.ceil(month.busy / room / base.target)) if announced else minimum
    resting = min(resting, minimum)
    # What it has at least holds the crowd; beyond it there is room for what nobody foresaw.
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
        schedule=(Moment(-lead, minimum), Moment(lead, resting)) if resting < minimum else (),
        instance=_managed_instance(question, base),
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


def share_of(machine: Price, vcpus: float, memory_gb: float) -> float:
    """Of a machine, what an environment of this size takes: of processors or memory the more."""
    return max(vcpus / machine.vcpus, memory_gb / machine.memory_gb)


def _managed_instance(question: Question, environment: Managed) -> str:
    """The type on which an environment costs the least, and that is not burstable.

    Managed instances are of current general-purpose, compute and memory families, from `large` on
    (https://docs.aws.amazon.com/lambda/latest/dg/lambda-managed-instances.html).
    """
    prices = question.prices
    types = [
        name for name in prices.machines(question.options.architecture) if not name.startswith("t")
    ]
    return min(
        types or prices.machines(question.options.architecture),
        key=lambda name: _hourly(question, environment, name),
    )


def places_in_a_pod(service: Service, cores: float) -> int:
    """Requests that one pod serves at once: as many as four fifths of its processor carry.

    And no more than memory is worth: four gigabytes a core, or as much as the process itself takes.
    """
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    carried = 0.8 * cores * service.mean_seconds / cpu if cpu else _MOST_PLACES
    own = _SLACK * service.memory_mb
    memory = max(_GB_A_CORE * 1_024.0 * cores - own, own)
    each = _SLACK * 2 * service.memory_kb_in_flight / 1_024.0  # half of them wait
    held = memory / each if each else _MOST_PLACES
    return int(min(_MOST_PLACES, max(8, min(carried, held))))


def _pod_memory(service: Service, places: int) -> int:
    """What all places take, a quarter more, rounded up."""
    needed = _SLACK * (service.memory_mb + 2 * places * service.memory_kb_in_flight / 1_024.0)
    return max(256, math.ceil(needed / 128.0) * 128)


def eks(question: Question, month: Month, *, cores: float, pods: int) -> Candidate:
    """Pods; places, memory, machines and autoscaler follow from their number and size."""
    options, service = question.options, question.workload.service
    places = places_in_a_pod(service, cores)
    memory = _pod_memory(service, places)
    announced = options.announced and month.judged.event
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    load = month.busy / max(service.mean_seconds, 1e-9) * cpu  # cores in use between spikes
    need = max(month.busy / places / _BUSY_TARGET, load / cores / 0.6)
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
    target = max(1.0, places * _BUSY_TARGET)
    # Beyond a crowd there is room for what nobody foresaw; ordinary time stays at the target.
    maximum = max(pods + 4, math.ceil(1.5 * pods), math.ceil(month.usual / target))
    scaler = HpaSettings(minimum=pods, maximum=maximum, metric="in-flight", target=target)
    peak = Eks(
        pods=pods,
        scaler=scaler,
        cores=cores,
        memory_mb=float(memory),
        concurrency=places,
        queue=places,
        nodes=nodes,
    )
    rest = structs.replace(peak, pods=resting, scaler=structs.replace(scaler, minimum=resting))
    lead = options.lead_minutes * 60.0
    configuration = EksConfiguration(
        pods=resting,
        cores=cores,
        memory_mb=memory,
        in_flight=places,
        queue=peak.queue,
        queue_seconds=peak.queue_seconds,
        balance=peak.balance,
        autoscaler=Autoscaler(metric="in-flight", target=target, minimum=resting, maximum=maximum),
        nodes=group,
        schedule=(Moment(-lead, pods), Moment(lead, resting)) if resting < pods else (),
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
    """As it has settled in a piece of ordinary time, where its autoscaler has nothing to do.

    Traffic changes slowly between spikes: functions have grown as they need, and pods are as many
    as the autoscaler's target asks for. A recorded trace does change: there everything is as it is.
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
            room = places_of(platform, workload)
            least = max(platform.minimum, math.ceil(busy / room / platform.target))
            # It looks once in the whole piece: nothing changes.
            return structs.replace(
                platform,
                minimum=min(least, platform.maximum),
                check_seconds=10.0 * workload.arrivals.horizon,
            )
        case _:
            return platform
