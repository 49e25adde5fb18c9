"""Which machines carry pods most cheaply, and how many pods fit on one."""

import math

from seawall.plan.answer import NodeGroup
from seawall.plan.prices import Price, Prices

__all__ = ["fargate_hourly", "fits", "group_hourly", "node_group"]

# Processor that a node's own pods take (network plug-in, proxy, log shipper: assumed), and memory
# that kubelet and they keep.
_OWN_CORES = 0.15
_OWN_GB = 1.0


def _allocatable(vcpus: float) -> float:
    """Cores for pods: 6 % of the first, 1 % of the second, 0.5 % of the next two, 0.25 % of others.

    Source: https://github.com/awslabs/amazon-eks-ami, kube-reserved of the node's bootstrap.
    """
    kept = 0.0
    for core in range(math.ceil(vcpus)):
        kept += 0.06 if core == 0 else 0.01 if core == 1 else 0.005 if core < 4 else 0.0025
    return vcpus - kept


def fits(machine: Price, cores: float, memory_mb: float) -> int:
    """Pods of this size on one machine."""
    by_cores = (_allocatable(machine.vcpus) - _OWN_CORES) / cores
    by_memory = (machine.memory_gb - _OWN_GB) * 1_024.0 / memory_mb
    return int(min(by_cores, by_memory) + 1e-9)


def _fargate_size(cores: float, memory_mb: float) -> tuple[float, float]:
    """Of a pod, the vCPU and GB that are billed: sizes of Fargate, with 256 MB for Kubernetes' own.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/fargate-pod-configuration.html
    """
    vcpus = next((size for size in (0.25, 0.5, 1.0, 2.0, 4.0) if size >= cores), 4.0)
    least = {0.25: 0.5, 0.5: 1.0, 1.0: 2.0, 2.0: 4.0, 4.0: 8.0}[vcpus]
    wanted = (memory_mb + 256.0) / 1_024.0
    return vcpus, max(least, math.ceil(wanted * 2.0) / 2.0)


def fargate_hourly(prices: Prices, architecture: str, cores: float, memory_mb: float) -> float:
    """Of one pod."""
    vcpus, gb = _fargate_size(cores, memory_mb)
    by_core = prices.of(f"fargate.vcpu_hours.{architecture}").price
    return vcpus * by_core + gb * prices.of(f"fargate.gb_hours.{architecture}").price


def group_hourly(prices: Prices, group: NodeGroup) -> float:
    """Of one machine of the group."""
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
) -> NodeGroup:
    """The cheapest machines for so many pods, one a zone at least; or Fargate, if it costs less."""
    best: NodeGroup | None = None
    lowest = math.inf
    for name in prices.machines(architecture):
        machine = prices.of(f"ec2.{name}", spot=spot)
        each = fits(machine, cores, memory_mb)
        if each < 1:
            continue
        count = max(zones, math.ceil(pods / each))
        if count * machine.price < lowest - 1e-12:
            lowest = count * machine.price
            best = NodeGroup(
                instance=name, count=count, pods_each=each, vcpus=machine.vcpus,
                memory_gb=machine.memory_gb, zones=zones, spot=spot,
            )  # fmt: skip
    fargate = pods * fargate_hourly(prices, architecture, cores, memory_mb)
    if best is None or fargate < lowest:
        vcpus, gb = _fargate_size(cores, memory_mb)
        return NodeGroup(
            instance="fargate", count=pods, pods_each=1, vcpus=vcpus, memory_gb=gb, zones=zones
        )
    return best
