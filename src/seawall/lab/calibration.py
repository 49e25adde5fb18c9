"""What was measured on a machine: the file between `seawall lab calibrate` and `seawall plan`.

JSON. The fields that `seawall plan --calibration` reads have its names and units
(`seawall.plan.inputs.calibration`); what only the lab needs, to foretell its own machine, is in `lab`.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from seawall.errors import ConfigError

__all__ = [
    "FORMAT",
    "Burst",
    "Calibration",
    "LabFigures",
    "configuration_of",
    "load_calibration",
    "save_calibration",
]

FORMAT = "seawall.calibration/1"


class Burst(Struct, frozen=True):
    """So many turns at once on a fleet that was measured: what was added to their first text.

    first, middle, last: seconds; the least, the median and the most.
    """

    turns: int
    first: float
    middle: float
    last: float


class LabFigures(Struct, frozen=True, kw_only=True):
    """Of this machine, where driver, model, balancer and fleet share the processors.

    start_parts: of one initialisation, seconds by name. start_cpu_seconds: processor time of one.
    connect_ms: to open a connection to the model. pods: how many there were. pod_bursts,
    cold_bursts: crowds at once on warm pods, and on environments that had to be started.
    cpu_ms_by_crowd: processor time of a turn on pods, by the size of the crowd. around_cpu_ms: of
    the balancer, a turn. cold_cpu_ms: as cpu_ms_by_crowd, where each started its environment.
    others: processors that somebody else used meanwhile, on average; where that is more than a
    little, measure again when the machine is quiet. environment_bytes: of one environment among
    the most that there were at once, its share of what they have in common. store: its kind, and
    configuration: the name of what was served; empty in files of before these were noted.
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
    """See the module and `seawall.plan.inputs.calibration.Measured`, whose fields these are.

    start_seconds: what a start adds to the first text of the turn that caused it. memory_mb: of an
    environment that is alone. memory_kb_in_flight: of each turn more.
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
    """What a configuration is called wherever it is: its folder's name and its own."""
    return "/".join(source.resolve().parts[-2:])


def load_calibration(path: Path) -> Calibration:
    """Read a file of `seawall lab calibrate`.

    Raises:
        ConfigError: it cannot be read, or is of another format.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if found.format != FORMAT:
        raise ConfigError(f"{path}: format: {found.format!r}; this reads {FORMAT!r}")
    return found


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write it, to be read by people as well.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
