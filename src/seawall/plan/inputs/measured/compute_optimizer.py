"""Exports of AWS Compute Optimizer, as CSV.

https://docs.aws.amazon.com/compute-optimizer/latest/ug/exported-files.html: a resource in each row.
Of functions: `utilizationMetrics_durationAverage` in ms, `utilizationMetrics_memoryMaximum` in MB.
Of services on ECS: memory of the task in MB, and the share of it that is used, in per cent.
"""

from collections.abc import Iterable, Mapping

from seawall.errors import ConfigError
from seawall.plan.inputs.measured.findings import Findings

__all__ = ["is_compute_optimizer", "read_compute_optimizer"]

_HIGHEST = 1e12
_MEMORY = "utilizationmetricsmemorymaximum"
_DURATION = "utilizationmetricsdurationaverage"
_CONFIGURED = "currentserviceconfigurationmemory"


def is_compute_optimizer(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is such an export."""
    there = set(columns)
    return "recommendationscount" in there or bool(
        {"functionarn", "servicearn"} & there and _MEMORY in there
    )


def read_compute_optimizer(
    rows: Iterable[tuple[int, Mapping[str, str]]], name: str, source: str
) -> Findings:
    """Read the one function, or service, of an export.

    Args:
        rows: Numbers of lines, and cells by column.
        name: Of the file, for errors.
        source: What it is called.

    Raises:
        ConfigError: It has none or several, or a value is missing.
    """
    found: dict[str, tuple[int, Mapping[str, str]]] = {}
    for line, cells in rows:
        resource = cells.get("functionarn") or cells.get("servicearn") or ""
        if not resource:
            raise ConfigError(
                f"{name}:{line}: neither functionArn nor serviceArn: of machines and volumes "
                "nothing is said of a request"
            )
        found[resource] = (line, cells)
    if len(found) != 1:
        names = ", ".join(sorted(each.rsplit(":", 1)[-1] for each in found)[:8]) or "none"
        raise ConfigError(f"{name}: {len(found)} resources ({names}); keep the row of the one")
    ((line, cells),) = found.values()
    where = f"{name}:{line}"
    if cells.get("functionarn"):
        seconds = _value(cells, _DURATION, where) / 1e3
        return Findings(source=source, seconds=seconds, memory_mb=_value(cells, _MEMORY, where))
    share = _value(cells, _MEMORY, where) / 100.0
    return Findings(source=source, memory_mb=_value(cells, _CONFIGURED, where) * share)


def _value(cells: Mapping[str, str], column: str, where: str) -> float:
    try:
        value = float(cells[column])
    except KeyError:
        raise ConfigError(f"{where}: {column}: missing; export this column") from None
    except ValueError:
        raise ConfigError(f"{where}: {column}: {cells[column][:40]!r} is not a number") from None
    if not 0 < value < _HIGHEST:
        raise ConfigError(f"{where}: {column}: {value:g} is not a positive number")
    return value
