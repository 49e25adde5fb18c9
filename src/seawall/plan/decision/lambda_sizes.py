"""Sizes of Lambda: concurrency of the account, and environments of managed instances."""

import math
from statistics import NormalDist

from seawall.plan.decision.windows import Month
from seawall.plan.inputs.platforms import Managed
from seawall.plan.inputs.prices import Price
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.pods import slots_of

__all__ = [
    "environment_of",
    "instance_of",
    "least_environments",
    "limit_of",
    "most_provisioned",
    "reserved_of",
    "share_of",
    "slots_per_environment",
    "worth_provisioning",
]

_UNRESERVED = 100


def limit_of(question: Question, month: Month) -> int:
    """Concurrency of the account: as given, or rounded up to thousands above the peak."""
    if question.options.account_limit is not None:
        return question.options.account_limit
    return max(1_000, math.ceil(1.1 * month.peak / 1_000.0) * 1_000)


def most_provisioned(limit: int) -> int:
    """The part of an account's concurrency that can be reserved or provisioned: all but 100.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
    """
    return max(1, limit - _UNRESERVED)


def worth_provisioning(question: Question, month: Month) -> int:
    """The number of environments that cost less provisioned than on demand, as they are often busy.

    An environment pays if the share of time in which so many are busy exceeds the price of standing
    by divided by what a busy second saves: 0.6 at AWS's prices. In each window of ordinary time the
    number of busy ones is Poisson, as in a service without queueing (M/G/∞); here, normal.
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


def reserved_of(limit: int, peak: float, provisioned: int) -> int | None:
    """The concurrency to reserve for a spike; 100 must remain for other functions. None: none.

    It is at least `provisioned`: AWS refuses less.
    """
    wanted = max(math.ceil(1.1 * peak), provisioned)
    return wanted if 100 < wanted <= most_provisioned(limit) else None


_SLACK = 1.25  # of memory, over the known need


def environment_of(question: Question) -> Managed:
    """The environment of managed instances with the cheapest slots, with room for eight at least.

    Beyond 8 GB a vCPU it has more vCPUs.
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

    def price_per_slot(environment: Managed) -> float:
        hourly = _hourly(question, environment, instance_of(question, environment))
        return hourly / slots_of(environment, question.workload)

    return min(fitting, key=price_per_slot)


def slots_per_environment(question: Question) -> int:
    """Requests in service in one environment of managed instances at most."""
    return slots_of(environment_of(question), question.workload)


def least_environments(question: Question, month: Month) -> int:
    """Environments needed at the peak, by slots and by processor time."""
    service = question.workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    cores = month.peak / max(service.mean_seconds, 1e-9) * cpu
    platform = environment_of(question)
    each = platform.vcpus if platform.runtime == "processes" else 1.0
    return max(1, math.ceil(month.peak / slots_per_environment(question)), math.ceil(cores / each))


def share_of(machine: Price, vcpus: float, memory_gb: float) -> float:
    """The share of a machine that an environment takes: of processors or memory, the greater."""
    return max(vcpus / machine.vcpus, memory_gb / machine.memory_gb)


def _hourly(question: Question, environment: Managed, instance: str) -> float:
    """Hourly price of an environment on machines of this type."""
    machine = question.prices.of(f"ec2.{instance}")
    memory_gb = environment.vcpus * environment.memory_gb_each
    return machine.price * share_of(machine, environment.vcpus, memory_gb)


def instance_of(question: Question, environment: Managed) -> str:
    """The type of machine, not burstable, on which an environment is cheapest.

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
