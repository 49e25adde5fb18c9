"""What the planner says about a fleet of the lab and its crowd, from a calibration alone.

The lab's machine is not the cloud: driver, model, balancer and fleet share its processors. Two
things of the calibration stand for that. The time that one turn more adds to the first text of a
crowd at once is the processor time of a turn before its first text, on pods of one processor each:
whoever else needed the processors for it is in there. And environments that start at once share the
processors evenly: each takes as much longer as it gets less of them, by a straight line through the
calibrated bursts. What the simulated model takes for the questions of this crowd is known
beforehand, as its times are set.
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
from seawall.plan import Arrivals, Eks, Lambda, Service, Stage, Workload, simulate
from seawall.plan.inputs.distributions import Distribution, constant, empirical
from seawall.plan.inputs.platforms import Platform
from seawall.plan.inputs.workload import Clients

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
    """As the planner has it: first_text and total in milliseconds; cold starts, connections."""

    first_text: Percentiles
    total: Percentiles
    cold_starts: float
    served: float


def unpredicted_options(spec: FleetSpec) -> list[str]:
    """What of a fleet `predict` knows nothing of: it would foretell one without that."""
    there = {
        "cpu": spec.cpu > 0,
        "in-flight": spec.in_flight > 1,
        "snapstart": spec.snapstart,
        "model": bool(spec.model),
    }
    return [name for name, given in there.items() if given]


def predict(calibration: Calibration, spec: FleetSpec, load: Open, seed: int = 0) -> Prediction:
    """Simulate that crowd on that fleet: the mean of several runs.

    Of what `unpredicted_options` tells nothing is taken into account.
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
    """By what share the prediction is off; nothing of what was measured as 0."""
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
    """What the model will take for the questions of a crowd of the lab."""
    model = Simulated(times=times)
    asked = Scenario(url="", load=load)
    return [model.plan(asked.question(number)) for number in range(turns)]


def _service(
    calibration: Calibration, spec: FleetSpec, due: np.ndarray, plans: Sequence[ReplyPlan]
) -> Service:
    lab = calibration.lab
    if spec.kind == "pods":
        base, slope = fit_line([(each.turns, each.middle) for each in lab.pod_bursts])
        # A pod of the fleet has a processor of its own there; so a turn is as much longer.
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
    """Everything until the model is called, and the model's call, in which the text streams on."""
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
            concurrency=spec.places,
            balance="least" if spec.balance == "least" else "round-robin",
        )
    return Lambda(
        memory_mb=1_769,  # what it takes is measured; nothing is to be stretched
        provisioned=spec.provisioned,
        account_limit=max(spec.concurrency, spec.provisioned),
        sandbox=constant(0.0),
        idle_seconds=spec.idle,
        timeout=min(900.0, spec.timeout),
    )


def _start(calibration: Calibration, due: np.ndarray) -> Distribution:
    """Starts of a crowd, as if each turn of it caused one.

    How long one takes by how it is stretched: straight lines through the bursts' first, median and
    last. Between the three of each arrival it is taken as even.
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
    """How many times as long as alone each job takes where all share the processors evenly.

    due: when they come, seconds, growing. Each needs `seconds` of one processor and uses one at
    most. Of equal jobs the first to come is the first to be done, so that one clock serves for
    all: it runs as fast as each of those that are there is served (egalitarian processor sharing,
    Kleinrock, Queueing Systems, volume 2, section 4.4).
    """
    found: list[float] = []
    there: deque[tuple[float, float]] = deque()  # when it came, and when it is done on that clock
    clock = now = 0.0

    def until(moment: float) -> None:
        nonlocal clock, now
        while there:
            pace = min(1.0, processors / len(there))
            done = now + (there[0][1] - clock) / pace
            if done > moment:
                clock += (moment - now) * pace
                break
            came, clock = there.popleft()
            now = done
            found.append((done - came) / seconds)
        now = moment

    for moment in due:
        until(float(moment))
        there.append((float(moment), clock + seconds))
    until(float("inf"))
    return found


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Where it begins, and how it grows: least squares of relative errors.

    Weighed by 1/value, so that a small crowd counts as much as a large one.
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
