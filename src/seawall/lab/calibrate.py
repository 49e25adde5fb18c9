"""Calibration: measures what a turn, an environment and a start cost on this machine.

Each figure is the median of several runs.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from msgspec import Struct, structs

from seawall.errors import SeawallError
from seawall.lab.calibration import FORMAT, Burst, Calibration, LabFigures, configuration_of
from seawall.lab.fleet.lifecycle import Fleet, run_fleet
from seawall.lab.fleet.spec import FleetSpec
from seawall.lab.fleet.watch import NOTABLE_OTHER_LOAD, FleetWatch, watch_fleet
from seawall.lab.machine import this_machine
from seawall.lab.sim_model.reply import SimTimes
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.process import drive_in_subprocess
from seawall.lab.surge.scenario import Closed, Crowd, Instant, Open, Scenario, Simulated
from seawall.transport.http_client import Endpoint

__all__ = ["calibrate", "crowd_scenario"]


class _Sizes(Struct, frozen=True, kw_only=True):
    """How much is measured: repeats of a single start, sizes of cold and warm crowds."""

    repeats: int
    cold: tuple[int, ...]
    cold_repeats: int
    warm: tuple[int, int, int]


_FULL = _Sizes(repeats=5, cold=(4, 12, 40), cold_repeats=3, warm=(20, 60, 180))
_QUICK = _Sizes(repeats=2, cold=(3, 6), cold_repeats=1, warm=(10, 20, 40))
_IDLE_SECONDS = 0.5
_START_SECONDS = 3.0  # of a single start, usually
_TRIES = 3
_IMPORTS = "import seawall.hosts.aws_lambda.__main__"


def crowd_scenario(fleet: Fleet, load: Open, *, patience: float = 120.0, seed: int = 0) -> Scenario:
    """A scenario that sends a crowd to a fleet, with the fleet's tokens."""
    crowds = [structs.replace(each, tokens=fleet.tokens) for each in load.crowds]
    return Scenario(
        url=fleet.url,
        load=Open(crowds),
        simulated=Simulated(times=fleet.spec.times),
        patience=patience,
        seed=seed,
    )


async def calibrate(
    source: Path,
    *,
    pods: int,
    store: str,
    times: SimTimes,
    report: Callable[[str], None],
    quick: bool = False,
) -> Calibration:
    """Measure this machine; takes about three minutes.

    Args:
        source: The configuration to serve.
        pods: Number of pods.
        store: "sqlite", or the URL of a DynamoDB.
        times: Service times of the simulated model.
        report: Called with lines about progress.
        quick: Measure fewer and smaller crowds.

    Raises:
        ConfigError: There is no balancer.
        SeawallError: Something did not start, or did not answer correctly.
    """
    machine = this_machine()
    report(f"machine: {machine.name}")
    sizes = _QUICK if quick else _FULL
    parts = await _start_parts(sizes.repeats, report)
    spec = FleetSpec(kind="pods", pods=pods, store=store, times=times)
    warm: dict[int, tuple[SurgeResult, FleetWatch]] = {}
    async with run_fleet(spec, source, name="calibrate-pods", report=report) as fleet:
        connect_ms = await _connect_ms(fleet.model)
        await _drive(fleet, 20)
        for turns in sizes.warm:
            warm[turns] = await _drive(fleet, turns)
            report(f"{turns} turns at once on {pods} pods: {_summary(warm[turns][0])}")
    spec = structs.replace(spec, kind="lambda", idle=_IDLE_SECONDS)
    cold: dict[int, list[tuple[SurgeResult, FleetWatch]]] = {}
    async with run_fleet(spec, source, name="calibrate-lambda", report=report) as fleet:
        warm_seconds = await _warm_seconds(fleet)
        for turns in (*[1] * sizes.repeats, *sizes.cold * sizes.cold_repeats):
            await asyncio.sleep(4 * _IDLE_SECONDS)  # until the previous ones are reclaimed
            found = await _drive(fleet, turns)
            cold.setdefault(turns, []).append(found)
            report(f"{turns} turns at once, each with its start: {_summary(found[0])}")
    alone = [added for result, _ in cold[1] for added in _added(result)]
    starts = [max(0.0, each - warm_seconds) for each in alone]
    parts["configuration, opening, first turn"] = max(0.0, median(starts) - sum(parts.values()))
    lone = cold[1][-1][1]
    runs = [*warm.values(), *(each for found in cold.values() for each in found)]
    others = median(watch.other_processors for _, watch in runs)
    largest, seen = warm[sizes.warm[-1]]
    if others > NOTABLE_OTHER_LOAD:
        report(
            f"note: {others:.1f} processors were used by other processes: repeat on an idle machine"
        )
    return Calibration(
        format=FORMAT,
        machine=machine.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        start_seconds=[round(each, 4) for each in starts],
        cpu_ms=_cpu_ms(warm[sizes.warm[1]]),
        memory_mb=round(median(_each_bytes(watch) for _, watch in cold[1]) / 2**20, 1),
        memory_kb_in_flight=round(
            _bytes_in_flight(warm[sizes.warm[-2]], warm[sizes.warm[-1]]) / 1_024, 1
        ),
        connections=lone.model_opened + lone.store_opened,
        lab=LabFigures(
            processors=machine.processors,
            pods=pods,
            start_parts={name: round(seconds, 4) for name, seconds in parts.items()},
            start_cpu_seconds=round(median(each.cpu_seconds for _, each in cold[1]), 4),
            connect_ms=round(connect_ms, 3),
            warm_seconds=round(warm_seconds, 4),
            pod_bursts=[_burst(turns, [warm[turns][0]]) for turns in sizes.warm],
            cold_bursts=[
                Burst(1, *(round(each, 4) for each in (min(alone), median(alone), max(alone)))),
                *(_burst(turns, [result for result, _ in cold[turns]]) for turns in sizes.cold),
            ],
            cpu_ms_by_crowd={turns: _cpu_ms(found) for turns, found in warm.items()},
            around_cpu_ms=round(seen.infrastructure_cpu_seconds / largest.turns * 1e3, 3),
            environment_bytes=int(_each_bytes(cold[sizes.cold[-1]][-1][1])),
            cold_cpu_ms={
                turns: round(median(_cpu_ms(each) for each in found), 1)
                for turns, found in cold.items()
            },
            others=round(others, 2),
            store=spec.store_kind,
            configuration=configuration_of(source),
        ),
    )


async def _drive(fleet: Fleet, turns: int) -> tuple[SurgeResult, FleetWatch]:
    """Send a number of turns at once.

    Raises:
        SeawallError: Not all were completed.
    """
    scenario = crowd_scenario(fleet, Open([Crowd(shapes=[Instant(turns)])]))
    async with watch_fleet(fleet) as watch:
        result = await drive_in_subprocess(scenario)
    if result.completed < turns:
        raise SeawallError(f"only {result.completed} of {turns} turns: {result.errors}")
    return result, watch


async def _warm_seconds(fleet: Fleet) -> float:
    """Seconds that a warm environment adds: one virtual user sends turn after turn.

    For longer on a machine so busy that it had one turn only, which had the start.
    """
    seconds = _START_SECONDS + 3 * fleet.spec.times.duration[1]
    for _ in range(_TRIES):
        load = Closed(users=1, seconds=seconds, ramp_up=0.0, tokens=fleet.tokens)
        scenario = structs.replace(crowd_scenario(fleet, Open([])), load=load)
        result = await drive_in_subprocess(scenario)
        if added := _added(result)[1:]:
            return median(added)
        seconds *= 2
    raise SeawallError(f"no turn on a warm environment: {result.errors}")


async def _start_parts(repeats: int, report: Callable[[str], None]) -> dict[str, float]:
    """Seconds of an interpreter without work, and of the imports beyond that."""
    bare = [await _seconds("pass") for _ in range(repeats)]
    whole = [await _seconds(_IMPORTS) for _ in range(repeats)]
    parts = {"interpreter": median(bare), "imports": max(0.0, median(whole) - median(bare))}
    report(", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in parts.items()))
    return parts


async def _seconds(code: str) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    if await process.wait():
        raise SeawallError(f"python -c {code!r} failed")
    return time.perf_counter() - began


async def _connect_ms(url: str) -> float:
    """Milliseconds to open a connection, the median of many."""
    origin = Endpoint.parse(url).origin
    found = []
    for _ in range(50):
        began = time.perf_counter()
        _, writer = await asyncio.open_connection(origin.host, origin.port)
        found.append(time.perf_counter() - began)
        writer.close()
    return median(found) * 1e3


def _added(result: SurgeResult) -> list[float]:
    return [each.added for each in result.outcomes if each.added is not None]


def _burst(turns: int, results: Sequence[SurgeResult]) -> Burst:
    """The medians of several crowds of the same size."""
    found = [sorted(_added(each)) for each in results]
    first, middle, last = (median(at(added) for added in found) for at in (min, median, max))
    return Burst(turns, *(round(each, 4) for each in (first, middle, last)))


def _cpu_ms(found: tuple[SurgeResult, FleetWatch]) -> float:
    result, watch = found
    return round(watch.cpu_seconds / result.turns * 1e3, 3)


def _each_bytes(watch: FleetWatch) -> float:
    """Proportional memory of one environment at the peak."""
    fullest = max(watch.samples, key=lambda sample: sample.memory_bytes)
    return fullest.memory_bytes / max(1, fullest.processes)


def _bytes_in_flight(
    smaller: tuple[SurgeResult, FleetWatch], larger: tuple[SurgeResult, FleetWatch]
) -> float:
    """Memory of each further turn in flight, from two crowds, since a heap does not shrink."""
    (few, before), (many, after) = smaller, larger
    more = max(1, many.peak_in_flight - few.peak_in_flight)
    return max(0, after.peak_bytes - before.peak_bytes) / more


def _summary(result: SurgeResult) -> str:
    middle, most = (
        each or 0.0 for each in (result.added_first_text.p50, result.added_first_text.max)
    )
    return f"first text {middle:.0f} ms after the model's, at most {most:.0f} ms"
