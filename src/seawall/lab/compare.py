"""The same load on pods and on Lambda environments: measured, beside the planner's prediction."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct, structs

from seawall.errors import SeawallError
from seawall.lab.calibrate import crowd_scenario
from seawall.lab.calibration import Calibration, configuration_of
from seawall.lab.fleet.lifecycle import run_fleet
from seawall.lab.fleet.spec import FleetSpec
from seawall.lab.fleet.watch import NOTABLE_OTHER_LOAD, FleetSample, FleetWatch, watch_fleet
from seawall.lab.machine import Machine
from seawall.lab.predict import Prediction, predict, relative_errors, unpredicted_options
from seawall.lab.surge.outcome import Progress, SurgeResult
from seawall.lab.surge.process import drive_in_subprocess
from seawall.lab.surge.read_back import read_back
from seawall.lab.surge.scenario import Crowd, Instant, Open, Poisson

__all__ = [
    "Bound",
    "Comparison",
    "FleetResult",
    "Run",
    "compare",
    "cpu_time_ratio",
    "largest_crowd",
]

_WARM = 20
_READ_BACK = 1_000
_MEMORY_SHARE = 0.6
_START_BUDGET_SECONDS = 15.0
_FILES_EACH = 8


class Bound(Struct, frozen=True):
    """The largest crowd with an environment for each turn, and what limits it."""

    turns: int
    why: str
    by_memory: int
    by_processor: int
    by_files: int


class FleetResult(Struct, frozen=True, kw_only=True):
    """One fleet under one crowd.

    Attributes:
        title: The fleet in a few words.
        result: Of the surge driver.
        prediction: Of the planner; None if it cannot predict the fleet.
        errors: Predicted over measured, less one, by name of the figure.
        initialisations: Of environments or pods.
        cold_starts: Environments that a turn had to wait for.
        model_opened: Connections to the model opened.
        model_peak: Most of them at once.
        store_opened: Connections to the store opened.
        store_peak: Most of them at once.
        cpu_seconds: Processor time of the fleet.
        infrastructure_cpu_seconds: Of the balancer or the local Lambda.
        store_cpu_seconds: Of the store, if it is a process of this machine.
        memory_before: Of the fleet before the crowd, in bytes.
        memory_peak: At most, in bytes.
        other_processors: Processors used by unrelated processes, on average.
        cpu_time_ratio: See the function of the same name.
        samples: Of the fleet, in order of time.
        notes: Limitations, for the reader.
    """

    title: str
    result: SurgeResult
    prediction: Prediction | None
    errors: dict[str, float]
    initialisations: int
    cold_starts: int
    model_opened: int
    model_peak: int
    store_opened: int
    store_peak: int
    cpu_seconds: float
    infrastructure_cpu_seconds: float
    store_cpu_seconds: float
    memory_before: int
    memory_peak: int
    other_processors: float
    cpu_time_ratio: float | None
    samples: list[FleetSample]
    notes: list[str]


class Run(Struct, frozen=True, kw_only=True):
    """One crowd on every fleet."""

    title: str
    fleets: list[FleetResult]


class Comparison(Struct, frozen=True, kw_only=True):
    """Everything that was measured. bound: of the largest crowd, if that was measured."""

    machine: str
    date: str
    store: str
    calibration: Calibration
    runs: list[Run]
    bound: Bound | None = None


def largest_crowd(
    calibration: Calibration, machine: Machine, *, files: int, most: int = 1_000
) -> Bound:
    """The largest crowd that the machine can serve with an environment for each turn.

    Args:
        calibration: Of this machine.
        machine: This machine; three fifths of the available memory are used. All environments must
            start within 15 s, as with less processor time calls run into their timeouts.
        files: Open files that a process may have.
        most: Concurrency of an account.
    """
    lab = calibration.lab
    limits = {
        "memory": int(_MEMORY_SHARE * machine.memory_bytes / max(1, lab.environment_bytes)),
        "processors": int(
            _START_BUDGET_SECONDS * machine.processors / max(1e-3, lab.start_cpu_seconds)
        ),
        "open files": files // _FILES_EACH,
        "the concurrency of an account": most,
    }
    why = min(limits, key=lambda name: limits[name])
    memory = f"{machine.memory_bytes / 2**30:.1f} GB available"
    return Bound(
        turns=max(1, limits[why]),
        why=(
            f"{limits[why]:,} turns, limited by {why}: {memory}, "
            f"{lab.environment_bytes / 2**20:.0f} MB an environment, "
            f"{lab.start_cpu_seconds:.2f} s of {machine.processors} processors a start"
        ),
        by_memory=limits["memory"],
        by_processor=limits["processors"],
        by_files=limits["open files"],
    )


async def compare(
    calibration: Calibration,
    specs: Sequence[FleetSpec],
    crowds: Sequence[Open],
    source: Path,
    *,
    report: Callable[[str], None],
    progress: Callable[[Progress], None],
) -> list[Run]:
    """Run every crowd on every fleet, each time on a fleet that was just started.

    Args:
        calibration: Of this machine.
        specs: The fleets.
        crowds: The crowds.
        source: The configuration to serve.
        report: Called with lines about progress.
        progress: Called with the progress of each run.

    Raises:
        ConfigError: A fleet cannot be started.
        SeawallError: A fleet did not start.
    """
    runs = []
    for crowd in crowds:
        fleets = []
        for spec in specs:
            report(f"{crowd_title(crowd)}, {spec.title}:")
            fleets.append(
                await _measure(calibration, spec, crowd, source, report=report, progress=progress)
            )
        runs.append(Run(title=crowd_title(crowd), fleets=fleets))
    return runs


async def _measure(
    calibration: Calibration,
    spec: FleetSpec,
    crowd: Open,
    source: Path,
    *,
    report: Callable[[str], None],
    progress: Callable[[Progress], None],
) -> FleetResult:
    async with run_fleet(spec, source, name="compare", report=report) as fleet:
        if spec.kind == "pods":  # production pods are warm
            warm = await drive_in_subprocess(
                crowd_scenario(fleet, Open([Crowd(shapes=[Instant(_WARM)])]))
            )
            if warm.completed < _WARM:
                raise SeawallError(f"the pods do not answer correctly: {warm.errors}")
        scenario = crowd_scenario(fleet, crowd, patience=300.0)
        async with watch_fleet(fleet) as watch:
            result = await drive_in_subprocess(scenario, progress)
        # Not observed: on Lambda, reading starts environments as well.
        reading = structs.replace(scenario, read_back=_READ_BACK)
        durability = await read_back(reading, result.outcomes)
        result = structs.replace(result, durability=durability)
        notes = list(fleet.notes)
    if durability.unread:
        notes.append(
            f"{spec.title}: {durability.unread} turns could not be read back: "
            f"{durability.why_unread[0]}"
        )
    prediction = None
    if unknown := unpredicted_options(spec):
        notes.append(f"{spec.title}: {unknown[0]} is not predicted")
    else:
        prediction = await asyncio.to_thread(predict, calibration, spec, crowd)
        notes += _mismatches(calibration, spec, source)
    ratio = cpu_time_ratio(calibration, spec, crowd, watch.cpu_seconds / result.turns * 1e3)
    return _measured(spec, result, watch, prediction, notes=notes, ratio=ratio)


def _mismatches(calibration: Calibration, spec: FleetSpec, source: Path) -> list[str]:
    """Differences between the calibration and the fleet, in what the calibration records."""
    lab = calibration.lab
    pairs = [
        ("store", lab.store, spec.store_kind),
        ("configuration", lab.configuration, configuration_of(source)),
    ]
    return [
        f"{spec.title}: predicted from a calibration with another {what}: {then}, here {now}"
        for what, then, now in pairs
        if then and then != now
    ]


def _measured(
    spec: FleetSpec,
    result: SurgeResult,
    watch: FleetWatch,
    prediction: Prediction | None,
    *,
    notes: list[str],
    ratio: float | None,
) -> FleetResult:
    others = watch.other_processors
    if others > NOTABLE_OTHER_LOAD:
        notes = [*notes, f"{spec.title}: {others:.1f} processors were used by other processes"]
    if spec.kind == "pods":
        cold = 0
    elif spec.idle > result.seconds:
        cold = watch.added
    else:  # some may have been reclaimed
        cold = watch.initialisations
    return FleetResult(
        title=spec.title,
        result=result,
        prediction=prediction,
        errors=relative_errors(prediction, result, cold) if prediction is not None else {},
        initialisations=watch.initialisations,
        cold_starts=cold,
        model_opened=watch.model_opened,
        model_peak=watch.model_peak,
        store_opened=watch.store_opened,
        store_peak=watch.store_peak,
        cpu_seconds=round(watch.cpu_seconds, 2),
        infrastructure_cpu_seconds=round(watch.infrastructure_cpu_seconds, 2),
        store_cpu_seconds=round(watch.store_cpu_seconds, 2),
        memory_before=watch.samples[0].memory_bytes,
        memory_peak=watch.peak_bytes,
        other_processors=round(others, 2),
        cpu_time_ratio=ratio,
        samples=watch.samples,
        notes=notes,
    )


def cpu_time_ratio(
    calibration: Calibration, spec: FleetSpec, crowd: Open, cpu_ms: float
) -> float | None:
    """Processor time of a turn relative to the calibration; shows how fast a shared machine was.

    Args:
        calibration: Of this machine.
        spec: The fleet.
        crowd: The crowd.
        cpu_ms: Processor time of a turn in this crowd, in milliseconds.

    Returns:
        The ratio; None for crowds that do not arrive at once, which are not calibrated.
    """
    shapes = [shape for each in crowd.crowds for shape in each.shapes]
    if len(shapes) != 1 or not isinstance(shapes[0], Instant):
        return None
    lab = calibration.lab
    known = sorted((lab.cpu_ms_by_crowd if spec.kind == "pods" else lab.cold_cpu_ms).items())
    sizes, costs = zip(*known, strict=True)
    expected = np.exp(np.interp(np.log(shapes[0].turns), np.log(sizes), np.log(costs)))
    return round(cpu_ms / float(expected), 3)


def crowd_title(crowd: Open) -> str:
    """The crowd in a few words."""
    parts = []
    for shape in (each for crowd in crowd.crowds for each in crowd.shapes):
        match shape:
            case Instant():
                parts.append(f"{shape.turns} at once")
            case Poisson():
                parts.append(f"{shape.rate:g} a second for {shape.seconds:g} s")
            case _:
                parts.append(type(shape).__name__.lower())
    return " and ".join(parts)
