"""The calibration file, written by `seawall lab calibrate` and read by `seawall plan`.

JSON. `seawall.plan.inputs.calibration` reads the fields that the planner uses; `lab` has what only
the lab needs, to predict its own machine.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError
from seawall.plan.inputs.calibration import FORMAT, read_calibration_as

__all__ = [
    "FORMAT",
    "Burst",
    "Calibration",
    "LabFigures",
    "configuration_of",
    "load_calibration",
    "save_calibration",
]


class Burst(Struct, frozen=True):
    """Time added to the first text of turns sent at once, in seconds: minimum, median, maximum."""

    turns: int
    first: float
    middle: float
    last: float


class LabFigures(Struct, frozen=True, kw_only=True):
    """Figures of one machine, whose processors driver, model, balancer and fleet share.

    Attributes:
        processors: Of the machine.
        pods: Number of pods.
        start_parts: Parts of one initialisation, in seconds.
        start_cpu_seconds: Processor time of one initialisation.
        connect_ms: To open a connection to the model.
        warm_seconds: Added to the first text by a warm environment.
        pod_bursts: Crowds at once on warm pods.
        cold_bursts: Crowds at once on environments that had to be started.
        cpu_ms_by_crowd: Processor time of a turn on pods, by size of the crowd.
        around_cpu_ms: Processor time of the balancer per turn.
        environment_bytes: Proportional memory of an environment in the largest crowd.
        cold_cpu_ms: Processor time of a turn that started its environment, by size of the crowd.
        others: Processors used by unrelated processes, on average; should be near 0.
        store: Kind of the store; empty in older files.
        configuration: Name of the served configuration; empty in older files.
    """

    processors: int
    pods: int
    start_parts: dict[str, float]
    start_cpu_seconds: float
    connect_ms: float
    warm_seconds: float
    pod_bursts: list[Burst]
    cold_bursts: list[Burst]
    cpu_ms_by_crowd: dict[int, float]
    around_cpu_ms: float
    environment_bytes: int
    cold_cpu_ms: dict[int, float]
    others: float
    store: str = ""
    configuration: str = ""


class Calibration(Struct, frozen=True, kw_only=True):
    """A calibration; the fields are those of `seawall.plan.inputs.calibration.Measured`.

    Attributes:
        format: Of the file.
        machine: That was measured.
        date: Of the measurement.
        start_seconds: Added by a start to the first text of the turn that caused it.
        cpu_ms: Processor time of a turn.
        memory_mb: Of a single environment.
        memory_kb_in_flight: Of each further turn in flight.
        connections: Opened by a start.
        lab: What only the lab needs.
    """

    format: str
    machine: str
    date: str
    start_seconds: list[float]
    cpu_ms: float
    memory_mb: float
    memory_kb_in_flight: float
    connections: int
    lab: LabFigures


def configuration_of(source: Path) -> str:
    """The name of a configuration: its folder's name and its own."""
    return "/".join(source.resolve().parts[-2:])


def load_calibration(path: Path) -> Calibration:
    """Read a file of `seawall lab calibrate`.

    Raises:
        ConfigError: It cannot be read, or has another format.
    """
    return read_calibration_as(path, Calibration)


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as indented JSON.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
