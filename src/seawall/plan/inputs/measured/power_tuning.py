"""Results of AWS Lambda Power Tuning: duration and price of an invocation by memory.

https://github.com/alexcasalboni/aws-lambda-power-tuning/blob/master/README-EXECUTE.md: the output
of its state machine, with `stats` if it ran with `"includeOutputResults": true`. Durations are in
ms, prices in USD for an invocation; by default the fastest and slowest fifths were left out.
"""

import math
from typing import Any

import numpy as np

from seawall.errors import ConfigError
from seawall.plan.inputs.measured.findings import Findings

__all__ = ["is_power_tuning", "read_power_tuning"]

_PROCESSOR_MB = 1_769  # of a function with one processor, see `platforms.Lambda`
_WORST_FIT = 0.2  # mean deviation of the durations from the rule, as a share of their mean
_GB_SECONDS = {"arm64": 0.0000133334, "x86_64": 0.0000166667}  # as Power Tuning reckons


def is_power_tuning(document: dict[str, Any]) -> bool:
    """Whether a JSON document is such a result."""
    return "stateMachine" in document or ("power" in document and "duration" in document)


def read_power_tuning(document: dict[str, Any], name: str, source: str) -> Findings:
    """Divide the durations into waiting and processor time.

    A function has memory / 1,769 MB of a processor, at most one: a request takes
    wait + processor time * max(1, 1,769 MB / memory). That is fitted by least squares.

    Args:
        document: The output of the state machine.
        name: Of the file, for errors.
        source: What it is called.

    Raises:
        ConfigError: It has too few memory sizes, or the durations do not follow the rule.
    """
    stats = document.get("stats")
    if not isinstance(stats, list) or not stats:
        raise ConfigError(
            f'{name}: stats: missing; run the state machine with "includeOutputResults": true'
        )
    rows = [_row(each, f"{name}: stats.{at}") for at, each in enumerate(stats)]
    memory, durations, prices = (np.array(column) for column in zip(*rows, strict=True))
    stretch = np.maximum(1.0, _PROCESSOR_MB / memory)
    if len(np.unique(stretch)) < 2:
        raise ConfigError(
            f"{name}: stats: one memory size up to {_PROCESSOR_MB:,} MB; at least two are needed "
            "to tell processor time from waiting"
        )
    wait, cpu = _fitted(stretch, durations)
    apart = float(np.abs(wait + cpu * stretch - durations).mean() / durations.mean())
    if apart > _WORST_FIT or cpu <= 0.0:
        raise ConfigError(
            f"{name}: stats: durations do not fall with memory as those of one processor do "
            f"(off by {apart:.0%} on average); give service.stages with their cpu_ms"
        )
    return Findings(
        source=source,
        cpu_ms=cpu,
        seconds=(wait + cpu) / 1e3,
        architecture=_architecture(memory, durations, prices),
    )


def _row(stat: object, where: str) -> tuple[float, float, float]:
    """Memory in MB, duration in ms, and price."""
    if not isinstance(stat, dict):
        raise ConfigError(f"{where}: not an object")
    found = []
    for key in ("value", "averageDuration", "averagePrice"):
        try:
            number = float(stat[key])
        except KeyError:
            raise ConfigError(f"{where}.{key}: missing") from None
        except (TypeError, ValueError):
            raise ConfigError(f"{where}.{key}: {stat[key]!r} is not a number") from None
        if not (math.isfinite(number) and number > 0):
            raise ConfigError(f"{where}.{key}: {number:g} is not a positive number")
        found.append(number)
    return found[0], found[1], found[2]


def _fitted(stretch: np.ndarray, durations: np.ndarray) -> tuple[float, float]:
    """Waiting and processor time, neither negative, by relative least squares."""
    weight = 1.0 / durations
    columns = np.stack([weight, stretch * weight], axis=1)
    (wait, cpu), *_ = np.linalg.lstsq(columns, durations * weight, rcond=None)
    if wait < 0.0:
        return 0.0, float((stretch * weight).sum() / ((stretch * weight) ** 2).sum())
    return float(wait), float(cpu)


def _architecture(memory: np.ndarray, durations: np.ndarray, prices: np.ndarray) -> str:
    """The architecture whose price the prices are. Empty: neither's."""
    each = prices / (np.ceil(durations) / 1e3 * memory / 1_024.0)
    price = float(np.median(each))
    return next(
        (name for name, listed in _GB_SECONDS.items() if abs(price / listed - 1) < 0.03), ""
    )
