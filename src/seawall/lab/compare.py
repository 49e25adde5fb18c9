"""The same crowd at pods and at Lambda's environments: measured, and beside it the planner's."""

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
    """How large a crowd the machine holds if each needs an environment, and what limits it."""

    turns: int
    why: str
    by_memory: int
    by_processor: int
    by_files: int


class FleetResult(Struct, frozen=True, kw_only=True):
    """One fleet under one crowd.

    cold_starts: environments that a turn had to wait for; initialisations: of environments or
    pods, ever. *_opened, *_peak: connections. *cpu_seconds: of the fleet, of balancer or local
    Lambda, and of the store where it is a process here. others: processors that somebody else
    used, on average. slower: see `cpu_time_ratio`.
    errors: predicted over measured, less one.
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
    around_cpu_seconds: float
    store_cpu_seconds: float
    memory_before: int
    memory_peak: int
    others: float
    slower: float | None
    looks: list[FleetSample]
    notes: list[str]


class Run(Struct, frozen=True, kw_only=True):
    """One crowd at every fleet."""

    title: str
    fleets: list[FleetResult]


class Comparison(Struct, frozen=True, kw_only=True):
    """Everything that was measured. bound: where the crowd was to be as large as possible."""

    machine: str
    date: str
    store: str
    calibration: Calibration
    runs: list[Run]
    bound: Bound | None = None


def largest_crowd(
    calibration: Calibration, machine: Machine, *, files: int, most: int = 1_000
) -> Bound:
    """The largest crowd at once that the machine holds as one environment each.

    By memory: three fifths of what is to be had. By processor: all are started within a quarter of
    a minute; of many more each gets so little that turns fail which have seconds for a call.
    By files: what one process may have open, with its pipes and sockets to each environment.
    `most`: concurrency of an account.
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
    memory = f"{machine.memory_bytes / 2**30:.1f} GB to be had"
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
    """Every crowd at every fleet, one after the other, each on a fleet that has just been started.

    Raises:
        ConfigError, SeawallError: a fleet did not start.
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
        if spec.kind == "pods":  # a pod is warm when it takes turns in earnest
            warm = await drive_in_subprocess(
                crowd_scenario(fleet, Open([Crowd(shapes=[Instant(_WARM)])]))
            )
            if warm.completed < _WARM:
                raise SeawallError(f"the pods do not answer rightly: {warm.errors}")
        scenario = crowd_scenario(fleet, crowd, patience=300.0)
        async with watch_fleet(fleet) as watch:
            result = await drive_in_subprocess(scenario, progress)
        # Not watched: on Lambda, reading starts environments as well.
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
        notes.append(f"{spec.title}: {unknown[0]} is not foretold")
    else:
        prediction = await asyncio.to_thread(predict, calibration, spec, crowd)
        notes += _mismatches(calibration, spec, source)
    slower = cpu_time_ratio(calibration, spec, crowd, watch.cpu_seconds / result.turns * 1e3)
    return _measured(spec, result, watch, prediction, notes=notes, slower=slower)


def _mismatches(calibration: Calibration, spec: FleetSpec, source: Path) -> list[str]:
    """Where something else was calibrated than is measured now; not of files that do not say."""
    lab = calibration.lab
    pairs = [
        ("store", lab.store, spec.store_kind),
        ("configuration", lab.configuration, configuration_of(source)),
    ]
    return [
        f"{spec.title}: foretold from a calibration with another {what}: {then}, here {now}"
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
    slower: float | None,
) -> FleetResult:
    others = watch.others
    if others > NOTABLE_OTHER_LOAD:
        notes = [*notes, f"{spec.title}: {others:.1f} processors were used by others meanwhile"]
    if spec.kind == "pods":
        cold = 0
    elif spec.idle > result.seconds:
        cold = watch.added
    else:  # some were reclaimed meanwhile: only initialisations tell how many there were
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
        around_cpu_seconds=round(watch.around_cpu_seconds, 2),
        store_cpu_seconds=round(watch.store_cpu_seconds, 2),
        memory_before=watch.looks[0].memory_bytes,
        memory_peak=watch.peak_bytes,
        others=round(others, 2),
        slower=slower,
        looks=watch.looks,
        notes=notes,
    )


def cpu_time_ratio(
    calibration: Calibration, spec: FleetSpec, crowd: Open, cpu_ms: float
) -> float | None:
    """By what factor a turn took more processor time than when it was calibrated.

    cpu_ms: of a turn, in this crowd. The work is the same, so that it tells how quick a shared
    machine was this time. None of crowds that are not all at once: those are not calibrated.
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
    """A crowd in a few words."""
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
