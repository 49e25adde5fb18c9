"""OpenCost's answer to /allocation: what pods cost, by processor and memory.

https://opencost.io/docs/integrations/api: `data` is a list of sets of allocations by name, with
`cpuCoreHours`, `cpuCost`, `ramByteHours`, `ramCost` and adjustments after reconciliation with the
cloud's bill.
"""

import math
from collections.abc import Iterator
from typing import Any

from seawall.errors import ConfigError
from seawall.plan.inputs.measured.findings import Findings
from seawall.plan.inputs.prices import Prices

__all__ = ["is_opencost", "read_opencost"]

_GB = 2.0**30


def is_opencost(document: dict[str, Any]) -> bool:
    """Whether a JSON document is such an answer."""
    return any(True for _ in _allocations(document))


def _allocations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    data = document.get("data")
    sets = data.get("sets") if isinstance(data, dict) else data
    for each in sets if isinstance(sets, list) else []:
        inner = each.get("allocations", each) if isinstance(each, dict) else {}
        for name, allocation in inner.items() if isinstance(inner, dict) else []:
            if isinstance(allocation, dict) and "cpuCoreHours" in allocation:
                yield name, allocation


def read_opencost(document: dict[str, Any], name: str, source: str, prices: Prices) -> Findings:
    """Effective prices of machines: those of a core and of a GB of memory, times what they have.

    OpenCost divides the price of a node between both, so that this is exact for nodes of the same
    family, and approximate for others.

    Args:
        document: The answer.
        name: Of the file, for errors.
        source: What it is called.
        prices: Whose machines are priced.

    Raises:
        ConfigError: A value is not a number, or nothing was used.
    """
    totals = dict.fromkeys(("cpuCost", "cpuCoreHours", "ramCost", "ramByteHours"), 0.0)
    for called, allocation in _allocations(document):
        for key in totals:
            totals[key] += _number(allocation, key, f"{name}: {called[:80]}")
        for key in ("cpuCost", "ramCost"):
            adjusted = f"{key}Adjustment"
            totals[key] += _number(allocation, adjusted, f"{name}: {called[:80]}", missing=0.0)
    for key, total in totals.items():
        if not total > 0:
            raise ConfigError(f"{name}: {key}: {total:g} in all; there is no price in it")
    core = totals["cpuCost"] / totals["cpuCoreHours"]
    gb = totals["ramCost"] / (totals["ramByteHours"] / _GB)
    machines = {
        item: price.vcpus * core + price.memory_gb * gb
        for item, price in prices.items.items()
        if item.startswith("ec2.")
    }
    words = f"{source}: {core:.4g} a core-hour, {gb:.4g} a GB-hour"
    return Findings(source=words, prices=machines, approximate=True, currency=prices.currency)


def _number(
    allocation: dict[str, Any], key: str, where: str, missing: float | None = None
) -> float:
    value = allocation.get(key, missing)
    number = float(value) if isinstance(value, int | float) else math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{where}.{key}: {value!r} is not a number")
    return number
