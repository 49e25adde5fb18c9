"""An environment of Lambda Managed Instances: how large, on which machines, for how many."""

import math

from seawall.plan.decision.windows import Month
from seawall.plan.inputs.platforms import Managed
from seawall.plan.inputs.prices import Price
from seawall.plan.inputs.question import Question
from seawall.plan.simulator.pod_state import slots_of

__all__ = [
    "environment_of",
    "instance_of",
    "least_environments",
    "share_of",
    "slots_per_environment",
]

_SLACK = 1.25  # of memory, over what is known to be taken


def environment_of(question: Question) -> Managed:
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

    def price_per_slot(environment: Managed) -> float:
        hourly = _hourly(question, environment, instance_of(question, environment))
        return hourly / slots_of(environment, question.workload)

    return min(fitting, key=price_per_slot)


def slots_per_environment(question: Question) -> int:
    """Requests at once in one environment of a managed instance."""
    return slots_of(environment_of(question), question.workload)


def least_environments(question: Question, month: Month) -> int:
    """Environments that the most at once take, by their places and by what they compute."""
    service = question.workload.service
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    cores = month.peak / max(service.mean_seconds, 1e-9) * cpu
    platform = environment_of(question)
    each = platform.vcpus if platform.runtime == "processes" else 1.0
    return max(1, math.ceil(month.peak / slots_per_environment(question)), math.ceil(cores / each))


def share_of(machine: Price, vcpus: float, memory_gb: float) -> float:
    """Of a machine, what an environment of this size takes: of processors or memory the more."""
    return max(vcpus / machine.vcpus, memory_gb / machine.memory_gb)


def _hourly(question: Question, environment: Managed, instance: str) -> float:
    """Of an environment on such machines."""
    machine = question.prices.of(f"ec2.{instance}")
    memory_gb = environment.vcpus * environment.memory_gb_each
    return machine.price * share_of(machine, environment.vcpus, memory_gb)


def instance_of(question: Question, environment: Managed) -> str:
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
