"""Predicts a fleet of the lab under a crowd with the planner, from a calibration alone.

Driver, model, balancer and fleet share the processors of the lab's machine. Two figures of the
calibration account for that. The time that each further turn of a crowd adds to the first text is
taken as the processor time of a turn before its first text, on pods of one processor each.
Environments that start at once share the processors evenly: the start time follows a straight line
through the calibrated bursts. The simulated model's times for the questions are known in advance.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from seawall.lab.calibration import Calibration
from seawall.lab.fleet.spec import FleetSpec
from seawall.lab.sim_model.reply import ReplyPlan, SimTimes
from seawall.lab.statistics import Percentiles
from seawall.lab.surge.outcome import SurgeResult
from seawall.lab.surge.scenario import Open, Scenario, Simulated, arrivals
from seawall.plan import (
    Arrivals,
    Clients,
    Distribution,
    Eks,
    Lambda,
    Platform,
    Service,
    Stage,
    Workload,
    constant,
    empirical,
    simulate,
)

__all__ = [
    "Prediction",
    "fit_line",
    "predict",
    "relative_errors",
    "stretches",
    "unpredicted_options",
]

_PATIENCE = 600.0
_TURNS = 2_000  # simulated at least, in several runs where a crowd is smaller
_MOST_RUNS = 25


class Prediction(Struct, frozen=True, kw_only=True):
    """The planner's prediction; first_text and total in milliseconds."""

    first_text: Percentiles
    total: Percentiles
    cold_starts: float
    served: float


def unpredicted_options(spec: FleetSpec) -> list[str]:
    """The options of a fleet that `predict` does not model."""
    there = {
        "cpu": spec.cpu > 0,
        "in-flight": spec.in_flight > 1,
        "snapstart": spec.snapstart,
        "model": bool(spec.model),
    }
    return [name for name, given in there.items() if given]


def predict(calibration: Calibration, spec: FleetSpec, load: Open, seed: int = 0) -> Prediction:
    """Simulate a crowd on a fleet; the mean of several runs.

    Args:
        calibration: Of this machine.
        spec: The fleet; its `unpredicted_options` are ignored.
        load: The crowd.
        seed: Of the arrivals.
    """
    due = np.array([at for at, _ in arrivals(load.crowds, seed)])
    workload = Workload(
        arrivals=Arrivals(trace=due, rate=0.0, horizon=float(due[-1]) + 60.0),
        service=_service(calibration, spec, due, _plans(load, len(due), spec.times)),
        clients=Clients(retries=0, patience=_PATIENCE),
    )
    platform = _platform(spec)
    count = min(_MOST_RUNS, max(3, _TURNS // len(due)))
    runs = [simulate(workload, platform, seed=each) for each in range(1, count + 1)]
    return Prediction(
        first_text=_mean([_of(run.first_token) for run in runs]),
        total=_mean([_of(run.latency) for run in runs]),
        cold_starts=float(np.mean([run.cold_starts for run in runs])),
        served=float(np.mean([run.served for run in runs])),
    )


def relative_errors(prediction: Prediction, result: SurgeResult, cold: int) -> dict[str, float]:
    """Predicted over measured, less one; without figures that were measured as 0."""
    pairs = {
        "first text p50": (prediction.first_text.p50, result.first_text.p50),
        "first text p95": (prediction.first_text.p95, result.first_text.p95),
        "first text p99": (prediction.first_text.p99, result.first_text.p99),
        "cold starts": (prediction.cold_starts, float(cold)),
    }
    return {
        name: round(predicted / measured - 1.0, 3)
        for name, (predicted, measured) in pairs.items()
        if predicted is not None and measured
    }


def _plans(load: Open, turns: int, times: SimTimes) -> list[ReplyPlan]:
    """The simulated model's replies to the questions of a crowd."""
    model = Simulated(times=times)
    asked = Scenario(url="", load=load)
    return [model.plan(asked.question(number)) for number in range(turns)]


def _service(
    calibration: Calibration, spec: FleetSpec, due: np.ndarray, plans: Sequence[ReplyPlan]
) -> Service:
    lab = calibration.lab
    if spec.kind == "pods":
        base, slope = fit_line([(each.turns, each.middle) for each in lab.pod_bursts])
        # In the simulation each pod has a processor of its own: scale the time of a turn.
        before = slope * 1e3 * spec.pods
        whole = max(before, calibration.cpu_ms)
        return _stages(plans, max(0.0, base), before, whole - before, constant(0.0))
    return _stages(plans, lab.warm_seconds, 0.0, 0.0, _start(calibration, due))


def _stages(
    plans: Sequence[ReplyPlan],
    base: float,
    before_ms: float,
    after_ms: float,
    start: Distribution,
) -> Service:
    """Two stages: everything before the model call, and the model call with its stream."""
    whole = [each.duration + after_ms / 1e3 for each in plans]
    stages = (
        Stage("opening", constant(base + before_ms / 1e3), cpu_ms=before_ms),
        Stage("model", empirical(whole), cpu_ms=after_ms, model=True),
    )
    first = empirical([each.first_token for each in plans])
    return Service(stages=stages, first_token=first, start=start)


def _platform(spec: FleetSpec) -> Platform:
    if spec.kind == "pods":
        return Eks(
            pods=spec.pods,
            cores=1.0,
            memory_mb=1e6,
            concurrency=spec.slots,
            balance="least" if spec.balance == "least" else "round-robin",
        )
    return Lambda(
        memory_mb=1_769,  # a whole processor: times are measured, not scaled by memory
        provisioned=spec.provisioned,
        account_limit=max(spec.concurrency, spec.provisioned),
        sandbox=constant(0.0),
        idle_seconds=spec.idle,
        start_limit=spec.init,
        timeout=min(900.0, spec.timeout),
    )


def _start(calibration: Calibration, due: np.ndarray) -> Distribution:
    """Start times of a crowd, as if each turn caused a start.

    Straight lines through the first, median and last of the calibrated bursts, over the factor by
    which each start is stretched; the three are equally likely.
    """
    lab = calibration.lab
    shares = [max(1.0, each.turns / lab.processors) for each in lab.cold_bursts]
    lines = [
        fit_line(
            [
                (share, getattr(each, name))
                for share, each in zip(shares, lab.cold_bursts, strict=True)
            ]
        )
        for name in ("first", "middle", "last")
    ]
    stretched = stretches(due, max(1e-3, lines[1][1]), lab.processors)
    found = [
        max(0.0, base + slope * stretch - lab.warm_seconds)
        for stretch in stretched
        for base, slope in lines
    ]
    return empirical(sorted(found))


def stretches(due: np.ndarray, seconds: float, processors: int) -> list[float]:
    """Stretch factors of equal jobs under egalitarian processor sharing.

    Equal jobs finish in order of arrival, so one virtual clock serves all: it advances at the rate
    at which each present job is served. Source: Kleinrock, Queueing Systems, volume 2, section 4.4.

    Args:
        due: Arrival times in seconds, ascending.
        seconds: Work of each job; a job uses at most one processor.
        processors: Number of processors.
    """
    found: list[float] = []
    present: deque[tuple[float, float]] = deque()  # arrival, and completion on the virtual clock
    clock = now = 0.0

    def until(moment: float) -> None:
        nonlocal clock, now
        while present:
            pace = min(1.0, processors / len(present))
            done = now + (present[0][1] - clock) / pace
            if done > moment:
                clock += (moment - now) * pace
                break
            arrived, clock = present.popleft()
            now = done
            found.append((done - arrived) / seconds)
        now = moment

    for moment in due:
        until(float(moment))
        present.append((float(moment), clock + seconds))
    until(float("inf"))
    return found


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope (at least 0) by least squares of relative errors.

    Weighted by 1/value, so that a small crowd counts as much as a large one.
    """
    xs, ys = np.array(points, dtype=float).T
    growth, base = np.polyfit(xs, ys, 1, w=1.0 / np.maximum(ys, 1e-6))
    return float(base), float(max(0.0, growth))


def _of(histogram: object) -> Percentiles:
    def at(share: float) -> float:
        return float(histogram.quantile(share)) * 1e3  # type: ignore[attr-defined]

    return Percentiles(at(0.5), at(0.95), at(0.99), at(1.0))


def _mean(found: Sequence[Percentiles]) -> Percentiles:
    names = ("p50", "p95", "p99", "max")
    return Percentiles(
        *(round(float(np.mean([getattr(each, name) for each in found])), 1) for name in names)
    )
