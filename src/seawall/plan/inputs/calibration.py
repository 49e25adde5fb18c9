"""Calibration: measurements in place of defaults, from the file of `seawall lab calibrate`.

JSON with `format` (`seawall.calibration/1`), `machine`, `date`, and any of the other fields of
`Measured`.
"""

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import Distribution, check_amounts, constant, empirical
from seawall.plan.inputs.service import Stage
from seawall.plan.inputs.workload import Workload

__all__ = [
    "FORMAT",
    "Measured",
    "calibrated",
    "read_calibration",
    "read_calibration_as",
    "with_cpu",
]

T = TypeVar("T")

FORMAT = "seawall.calibration/1"


class Measured(Struct, frozen=True, kw_only=True):
    """A calibration file. None: not measured.

    Attributes:
        format: `seawall.calibration/1`.
        machine: Where it was measured.
        date: When it was measured.
        start_seconds: Initialisations, from the start of the process until it serves.
        cold_request_seconds: Whole requests that started their environment, with the same model.
        restore_seconds: Restoring snapshots.
        first_token_seconds: Of the model.
        cpu_ms: Processor time of a whole request.
        init_vcpus: vCPUs of an initialisation on demand on Lambda, at a memory below 1,769 MB.
        memory_mb: Of a process at rest.
        memory_kb_in_flight: Of each request.
        connections: Opened by a process when it starts.
        forecast_error: By which share forecasts of times were off what the lab then measured, such
            as 0.08.
    """

    format: str
    machine: str
    date: str
    start_seconds: tuple[float, ...] | float | None = None
    cold_request_seconds: tuple[float, ...] | float | None = None
    restore_seconds: tuple[float, ...] | float | None = None
    first_token_seconds: tuple[float, ...] | float | None = None
    cpu_ms: float | None = None
    init_vcpus: float | None = None
    memory_mb: float | None = None
    memory_kb_in_flight: float | None = None
    connections: int | None = None
    forecast_error: float | None = None


def read_calibration(path: Path) -> Measured:
    """Read a calibration file. Raises ConfigError, naming file and field."""
    return read_calibration_as(path, Measured)


def read_calibration_as(path: Path, kind: type[T]) -> T:
    """Read a calibration file as another struct, which has `format`. Raises ConfigError."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if (name := getattr(found, "format", "")) != FORMAT:
        raise ConfigError(f"{path}: format: {name!r}; this version reads {FORMAT!r}")
    return found


def _times(values: tuple[float, ...] | float, name: str) -> Distribution:
    field = f"calibration.{name}"
    if isinstance(values, float):
        return constant(values, field=field)
    return empirical(values, field=field)


def with_cpu(stages: tuple[Stage, ...], cpu_ms: float) -> tuple[Stage, ...]:
    """The stages with this processor time of a whole request, divided as it was among them."""
    whole = sum(stage.cpu_ms for stage in stages)
    share = cpu_ms / whole if whole else 0.0
    even = 0.0 if whole else cpu_ms / len(stages)
    return tuple(structs.replace(stage, cpu_ms=stage.cpu_ms * share + even) for stage in stages)


def calibrated(workload: Workload, measured: Measured) -> Workload:
    """The workload with measurements in place of its defaults; values that were given stay."""
    service, sources = workload.service, dict(workload.sources)
    source = f"measured by seawall lab calibrate on {measured.machine}, {measured.date}"
    fields: dict[str, object] = {}

    def given(name: str) -> bool:
        return sources.get(f"service.{name}", "").startswith("given")

    for name, values in (
        ("start", measured.start_seconds),
        ("cold_request", measured.cold_request_seconds),
        ("restore", measured.restore_seconds),
        ("first_token", measured.first_token_seconds),
    ):
        # A measured cold request would replace an initialisation that was given.
        if (
            values is not None
            and not given(name)
            and not (name == "cold_request" and given("start"))
        ):
            fields[name] = _times(values, f"{name}_seconds")
    for name in ("init_vcpus", "memory_mb", "memory_kb_in_flight", "connections"):
        value = getattr(measured, name)
        if value is not None and not given(name):
            check_amounts("calibration", **{name: value})
            fields[name] = value
    sources |= {f"service.{name}": source for name in fields}
    if measured.cpu_ms is not None and not given("stages"):
        check_amounts("calibration", cpu_ms=measured.cpu_ms)
        fields["stages"] = with_cpu(service.stages, measured.cpu_ms)
        sources["service.stages.cpu_ms"] = source
    error = workload.forecast_error
    if measured.forecast_error is not None:
        check_amounts("calibration", forecast_error=measured.forecast_error)
        error, sources["forecast_error"] = measured.forecast_error, source
    return structs.replace(
        workload,
        service=structs.replace(service, **fields),
        forecast_error=error,
        sources=sources,
    )
