"""Times and schedules as text."""

import math

from seawall.plan.decision.answer import CapacityChange
from seawall.plan.decision.numbers import seconds
from seawall.plan.inputs.distributions import Distribution

__all__ = ["scheduled_words", "times"]


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


def scheduled_words(moments: tuple[CapacityChange, ...], what: str) -> list[str]:
    """A schedule of capacity around an announced spike, in words; empty without one."""
    if not moments:
        return []
    return [f"{moments[0].count:,} {what} {-moments[0].at / 60:.0f} min before an announced spike"]
