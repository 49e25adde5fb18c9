"""Sizes of pods, tasks and instances: requests at once, memory, and their number."""

import math
from collections.abc import Callable

from msgspec import Struct, structs

from seawall.plan.decision.answer import CapacityChange
from seawall.plan.decision.places.port import Candidate, Evaluation, Search
from seawall.plan.decision.sizing import least
from seawall.plan.decision.windows import Month, Window
from seawall.plan.inputs.platforms import Eks
from seawall.plan.inputs.question import Question
from seawall.plan.inputs.service import Service

__all__ = [
    "Sizes",
    "busy_cores",
    "fewest",
    "pod_memory",
    "settled_pods",
    "sizes_of",
    "slots_per_pod",
]

_BUSY_TARGET = 0.5  # of a pod's slots, for its scaler
_BUSY_CORES = 0.6  # of its processors, between spikes
_MOST = 200_000

_MAX_SLOTS = 1_000
_SLACK = 1.25  # of memory, over the known need
_GB_A_CORE = 4.0  # of general-purpose machines


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


def pod_memory(service: Service, slots: int) -> int:
    """Memory of a pod in MB: the need of all slots plus a quarter, rounded up."""
    needed = _SLACK * (service.memory_mb + 2 * slots * service.memory_kb_in_flight / 1_024.0)
    return max(256, math.ceil(needed / 128.0) * 128)


def busy_cores(question: Question, month: Month) -> float:
    """Processors in use between spikes."""
    service = question.workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    return month.busy / max(service.mean_seconds, 1e-9) * cpu


class Sizes(Struct, frozen=True, kw_only=True):
    """Sizes that follow from the number of pods and their processors.

    Attributes:
        slots: Requests in service in one at most.
        memory_mb: Of one.
        resting: Pods between spikes; fewer than in a spike only if spikes are announced.
        target: Requests in flight in each that the scaler aims at.
        maximum: Pods: headroom beyond the spike; ordinary time stays at the target.
        schedule: Around an announced spike.
    """

    slots: int
    memory_mb: int
    resting: int
    target: float
    maximum: int
    schedule: tuple[CapacityChange, ...]


def sizes_of(
    question: Question,
    month: Month,
    *,
    cores: float,
    pods: int,
    most_slots: int = _MAX_SLOTS,
    busy_target: float = _BUSY_TARGET,
) -> Sizes:
    """Sizes of pods.

    Args:
        question: Service and options.
        month: Its windows.
        cores: Of a pod.
        pods: In a spike.
        most_slots: Requests in service in one at most, whatever its size.
        busy_target: Share of the slots that the scaler aims at.
    """
    options, service = question.options, question.workload.service
    slots = min(most_slots, slots_per_pod(service, cores))
    announced = options.announced and month.judged.event
    load = busy_cores(question, month)
    need = math.ceil(max(month.busy / slots / busy_target, load / cores / _BUSY_CORES))
    resting = min(pods, max(options.least_pods, need)) if announced else pods
    target = max(1.0, slots * busy_target)
    lead = options.lead_minutes * 60.0
    return Sizes(
        slots=slots,
        memory_mb=pod_memory(service, slots),
        resting=resting,
        target=target,
        maximum=max(pods + 4, math.ceil(1.5 * pods), math.ceil(month.usual / target)),
        schedule=(CapacityChange(-lead, pods), CapacityChange(lead, resting))
        if resting < pods
        else (),
    )


def fewest(
    search: Search,
    near: Candidate | None,
    of: Callable[[float, int], Candidate],
    *,
    cores: tuple[float, float],
    slots: int,
    least_pods: int,
) -> Evaluation:
    """The fewest pods that meet the objective: small ones if the least number suffices.

    Args:
        search: Evaluates candidates.
        near: The candidate of a similar question.
        of: A candidate of so many processors each, and so many pods.
        cores: Of a small pod and of another.
        slots: Requests at once in one of the larger.
        least_pods: Their number at least.
    """
    month = search.month
    far = near is not None and near.size * month.peak / near.at_once > 2.0 * least_pods
    if not far:
        small = of(cores[0], least_pods)
        if search.excess(small) == 0.0:
            return search.evaluate(small)
    guess = max(least_pods, search.guess(near, month.peak / slots))
    most = min(_MOST, 16 * math.ceil(month.peak / slots) + 16)
    known_good = search.good_enough(near, lambda pods: of(cores[1], pods), guess, most)
    if known_good is not None:
        return known_good
    found = least(
        lambda pods: search.excess(of(cores[1], pods)) == 0.0,
        least_pods, guess, most, search.within,
    )  # fmt: skip
    if found == most:  # nothing helps: only as many as have slots for all
        found = max(least_pods, min(found, guess))
    return search.evaluate(of(cores[1], found))


def settled_pods(candidate: Candidate, window: Window, target: float) -> Eks:
    """The pods in ordinary time: as many as the scaler's target of requests in flight asks for."""
    platform, workload = candidate.rest, window.workload
    assert isinstance(platform, Eks)
    busy = workload.arrivals.rate * workload.service.mean_seconds
    maximum = platform.pods if platform.scaler is None else platform.scaler.maximum
    wanted = max(platform.pods, math.ceil(busy / target))
    return structs.replace(platform, pods=min(maximum, wanted), scaler=None)
