"""Nodes: the cheapest machines for pods, and how many pods fit on one."""

import math

from seawall.errors import ConfigError
from seawall.plan.decision.answer import NodeGroup
from seawall.plan.decision.bill import Bill
from seawall.plan.decision.numbers import amount
from seawall.plan.decision.places.port import Variation
from seawall.plan.inputs.prices import Price, Prices
from seawall.plan.inputs.question import HOURS, Question, with_discount

__all__ = [
    "DISK_GB",
    "FARGATE_BURST",
    "FARGATE_RATE",
    "add_nodes",
    "discount_variation",
    "fargate_hourly",
    "fargate_size",
    "fits",
    "group_hourly",
    "node_group",
    "surplus_hours",
]

# Cores of a node's own pods (network plug-in, proxy, log shipper: assumed), and memory of these and
# kubelet.
_OWN_CORES = 0.15
_OWN_GB = 1.0
DISK_GB = 20.0  # of a node: assumed, the default of EKS images

# vCPUs with their minimum and maximum GB. EKS on Fargate is x86 only.
# Sources: https://docs.aws.amazon.com/eks/latest/userguide/fargate-pod-configuration.html
# https://docs.aws.amazon.com/eks/latest/userguide/fargate.html, its comparison table: Arm, no.
_FARGATE = (
    (0.25, 0.5, 2.0),
    (0.5, 1.0, 4.0),
    (1.0, 2.0, 8.0),
    (2.0, 4.0, 16.0),
    (4.0, 8.0, 30.0),
    (8.0, 16.0, 60.0),
    (16.0, 32.0, 120.0),
)
_FARGATE_OWN_GB = 0.25  # for Kubernetes' own
# Launches of tasks at once, and a second after that, in an account:
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/throttling.html
FARGATE_BURST, FARGATE_RATE = 100.0, 20.0


def _allocatable(vcpus: float) -> float:
    """Cores for pods: all but 6 % of the first, 1 % of the second, 0.5 % of two, 0.25 % of others.

    Source: https://github.com/awslabs/amazon-eks-ami, kube-reserved of the node's bootstrap.
    """
    reserved = 0.0
    for core in range(math.ceil(vcpus)):
        reserved += 0.06 if core == 0 else 0.01 if core == 1 else 0.005 if core < 4 else 0.0025
    return vcpus - reserved


def fits(machine: Price, cores: float, memory_mb: float) -> int:
    """Pods of this size on one machine."""
    by_cores = (_allocatable(machine.vcpus) - _OWN_CORES) / cores
    by_memory = (machine.memory_gb - _OWN_GB) * 1_024.0 / memory_mb
    return int(min(by_cores, by_memory) + 1e-9)


def fargate_size(
    cores: float, memory_mb: float, own_gb: float = _FARGATE_OWN_GB
) -> tuple[float, float]:
    """The smallest size of Fargate, in billed vCPUs and GB. Raises ConfigError.

    own_gb: Memory beside the container's: that of Kubernetes for pods, none for tasks of ECS.
    """
    wanted = memory_mb / 1_024.0 + own_gb
    for vcpus, least, most in _FARGATE:
        step = 4.0 if vcpus == 8.0 else 8.0 if vcpus == 16.0 else 1.0
        gb = least if wanted <= least else math.ceil(wanted / step) * step
        if vcpus >= cores and gb <= most:
            return vcpus, gb
    raise ConfigError(
        f"service.memory_mb: a pod of {memory_mb:,.0f} MB fits on no machine with a price, and not "
        "on Fargate"
    )


def fargate_hourly(prices: Prices, cores: float, memory_mb: float) -> float:
    """Hourly price of a pod on Fargate. Raises ConfigError if it fits on none."""
    vcpus, gb = fargate_size(cores, memory_mb)
    by_core = prices.of("fargate.vcpu_hours.x86_64").price
    return vcpus * by_core + gb * prices.of("fargate.gb_hours.x86_64").price


def surplus_hours(machine: Price, hours: float, busy_hours: float) -> float:
    """vCPU-hours above the baseline of burstable machines, on average, which are charged.

    hours: of machines. busy_hours: of their processors.
    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances-unlimited-mode-concepts.html
    """
    if not machine.baseline:
        return 0.0
    return max(0.0, busy_hours - machine.baseline * machine.vcpus * hours)


def group_hourly(prices: Prices, group: NodeGroup) -> float:
    """Hourly price of one node of the group."""
    return prices.of(f"ec2.{group.instance}", spot=group.spot).price


def node_group(
    prices: Prices,
    architecture: str,
    *,
    cores: float,
    memory_mb: float,
    pods: int,
    zones: int,
    spot: bool,
    busy: float,
    burstable: bool = True,
    fargate: bool = True,
) -> NodeGroup:
    """The cheapest nodes for pods; Fargate of EKS, if it costs less.

    Args:
        prices: Of the region.
        architecture: Of the machines; Fargate is x86 in any case.
        cores: Of a pod.
        memory_mb: Of a pod.
        pods: Their number.
        zones: Availability zones; at least one node in each.
        spot: Whether nodes are spot instances.
        busy: Processors in use, on average.
        burstable: Whether machines may be burstable.
        fargate: Whether it may be Fargate.

    Raises:
        ConfigError: The pod fits on none.
    """
    disk = DISK_GB * prices.of("ebs.gp3_gb_months").price / HOURS
    best: NodeGroup | None = None
    lowest = math.inf
    for name in prices.machines(architecture):
        machine = prices.of(f"ec2.{name}", spot=spot)
        each = fits(machine, cores, memory_mb)
        if each < 1 or (machine.baseline and not burstable):
            continue
        count = max(zones, math.ceil(pods / each))
        hourly = count * (machine.price + disk)
        hourly += surplus_hours(machine, count, busy) * prices.of("ec2_surplus.vcpu_hours").price
        if hourly < lowest - 1e-12:
            lowest = hourly
            best = NodeGroup(
                instance=name, count=count, pods_each=each, vcpus=machine.vcpus,
                memory_gb=machine.memory_gb, zones=zones, spot=spot,
            )  # fmt: skip
    if best is None and not fargate:
        raise ConfigError(f"service.memory_mb: {memory_mb:,.0f} MB fit on no machine with a price")
    if best is None or (fargate and pods * fargate_hourly(prices, cores, memory_mb) < lowest):
        vcpus, gb = fargate_size(cores, memory_mb)
        return NodeGroup(
            instance="fargate", count=pods, pods_each=1, vcpus=vcpus, memory_gb=gb, zones=zones
        )
    return best


def add_nodes(lines: Bill, group: NodeGroup, hours: float, busy_hours: float) -> None:
    """Add machines with their disks to a bill.

    Args:
        lines: The bill.
        group: Of the machines.
        hours: Of all of them, a month.
        busy_hours: Of their processors.
    """
    prices, name = lines.prices, f"ec2.{group.instance}"
    lines.add(
        name, f"nodes, {group.instance}{', spot' if group.spot else ''}", hours,
        price=group_hourly(prices, group),
    )  # fmt: skip
    surplus = surplus_hours(prices.of(name), hours, busy_hours)
    lines.add("ec2_surplus.vcpu_hours", "nodes, above their baseline", surplus)
    lines.add("ebs.gp3_gb_months", "nodes, disks", DISK_GB * hours / HOURS)


def discount_variation(question: Question) -> Variation:
    """A variation of the discount on machines."""
    share = question.prices.discounts.get("ec2", 0.0)
    return Variation(
        input="prices.discounts.ec2",
        title="discount on EC2",
        base=f"{amount(100.0 * share)} %",
        low=("0 %", with_discount(question, "ec2", 0.0)),
        high=("40 %", with_discount(question, "ec2", 0.4)),
    )
