"""Quantities and configurations as text."""

import math

from seawall.plan.decision.answer import (
    CapacityChange,
    Configuration,
    EksConfiguration,
    LambdaConfiguration,
    ManagedConfiguration,
    PlatformName,
)
from seawall.plan.decision.numbers import amount, money, seconds
from seawall.plan.inputs.distributions import Distribution

__all__ = ["TITLES", "amount", "configuration_words", "money", "seconds", "times"]

TITLES: dict[PlatformName, str] = {
    "lambda": "Lambda",
    "lambda-provisioned": "Lambda, provisioned concurrency",
    "lambda-snapstart": "Lambda, SnapStart",
    "lambda-managed": "Lambda Managed Instances",
    "eks": "EKS",
}


def times(distribution: Distribution) -> str:
    """`1 s`, `4 s to 7 s`."""
    match distribution.kind:
        case "constant":
            return seconds(distribution.a)
        case "uniform":
            return f"{seconds(distribution.a)} to {seconds(distribution.b)}"
        case "exponential":
            return f"exponential, mean {seconds(distribution.a + distribution.b)}"
        case "lognormal":
            p99 = math.exp(distribution.a + 2.3263 * distribution.b)
            return f"p50 {seconds(math.exp(distribution.a))}, p99 {seconds(p99)}"
        case _:
            values = distribution.values
            return f"measured, p50 {seconds(values[len(values) // 2])}"


def _schedule(moments: tuple[CapacityChange, ...], what: str) -> list[str]:
    if not moments:
        return []
    return [f"{moments[0].count:,} {what} {-moments[0].at / 60:.0f} min before an announced spike"]


def configuration_words(configuration: Configuration) -> tuple[str, ...]:
    """A configuration in words, a line for each setting."""
    match configuration:
        case LambdaConfiguration():
            return tuple(_function(configuration))
        case ManagedConfiguration():
            size = f"{configuration.vcpus:g} vCPU and {configuration.memory_gb:g} GB"
            how = "one process" if configuration.runtime == "async" else "a process each"
            lines = [
                f"{configuration.minimum:,} to {configuration.maximum:,} environments of {size}",
                f"{configuration.in_flight:,} requests at once in each, {how}",
                f"on {configuration.instance}",
            ]
            return (*lines, *_schedule(configuration.schedule, "environments"))
        case EksConfiguration():
            return tuple(_pods(configuration))


def _function(configuration: LambdaConfiguration) -> list[str]:
    lines = [f"{configuration.memory_mb:,} MB, {configuration.architecture}"]
    if configuration.snapstart:
        lines.append("SnapStart on published versions")
    if configuration.provisioned:
        lines.append(f"{configuration.provisioned:,} provisioned around the clock")
    lines += _schedule(configuration.schedule, "provisioned from")
    if configuration.account_concurrency > 1_000:
        lines.append(f"account quota of {configuration.account_concurrency:,} (1,000 by default)")
    lines.append(f"behind a {configuration.entry}".replace("-", " ").replace(" url", " URL"))
    return lines


def _pods(configuration: EksConfiguration) -> list[str]:
    group, scaler = configuration.nodes, configuration.autoscaler
    size = f"{configuration.cores:g} cores and {configuration.memory_mb:,} MB"
    each = f"{configuration.in_flight:,} requests at once in each"
    lines = [f"{configuration.pods:,} pods of {size}, {each}"]
    if scaler is not None:
        lines.append(
            f"autoscaler from {scaler.minimum:,} to {scaler.maximum:,}, target "
            f"{scaler.target:g} {scaler.metric}"
        )
    if group.instance == "fargate":
        lines.append("on Fargate, x86_64: it has no Arm under EKS")
    else:
        spot = ", spot" if group.spot else ""
        lines.append(f"on {group.count:,} {group.instance}{spot} in {group.zones} zones")
    return lines + _schedule(configuration.schedule, "pods")
