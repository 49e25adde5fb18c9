"""Simulations of candidates in windows: cached, in parallel, and their outcomes."""

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from seawall.plan.decision.places.port import Candidate
from seawall.plan.decision.windows import Window, longer
from seawall.plan.inputs.distributions import constant
from seawall.plan.inputs.model import ModelUse
from seawall.plan.inputs.platforms import (
    Eks,
    Lambda,
    Managed,
    Nodes,
    Platform,
    ServiceTracking,
)
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.pods import slots_of
from seawall.plan.simulator.result import Histogram, ModelCalls, Result, Usage
from seawall.plan.simulator.simulate import simulate
from seawall.plan.simulator.stability import offered_load
from seawall.plan.simulator.stationarity import Steady, bin_seconds, steady_from
from seawall.plan.simulator.thinning import scaled_usage, thinned, whole

__all__ = [
    "ENDLESS",
    "SHARES",
    "KeyFigures",
    "Outcome",
    "Progress",
    "Report",
    "SimulationRunner",
    "TimePercentiles",
    "platform_in",
]

T = TypeVar("T")
U = TypeVar("U")

# A platform that serves everything at once.
ENDLESS = Lambda(
    account_limit=100_000_000,
    start_rate=math.inf,
    start_burst=math.inf,
    invocations_per_concurrency=math.inf,
    sandbox=constant(0.0),
)

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
_KEPT = 250_000.0  # requests at most for exact percentiles; for more, those of the histograms
_MOST = 40_000.0  # requests of a window; for more, a fraction of the system is simulated
_TRIES = 4  # at a window, which is twice as long each time
_POINTS = 100


class TimePercentiles(Struct, frozen=True):
    """Percentiles in seconds by the names of SHARES, and points of the distribution. NaN: none."""

    at: dict[str, float]
    points: tuple[tuple[float, float], ...] = ()


class KeyFigures(Struct, frozen=True):
    """The figures that an objective is about; NaN: no request was served.

    Attributes:
        first_token_p99: Seconds.
        latency_p99: Seconds.
        error_share: Of requests that were not served.
        load: Offered to processors or slots, as a share of their capacity; see `offered_load`.
        growing: Whether requests in service and queue kept growing, so that no window is long
            enough to show what becomes of them.
    """

    first_token_p99: float
    latency_p99: float
    error_share: float
    load: float = 0.0
    growing: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    """The outcome of the requests that arrived in the time that counts; see `Window`.

    Attributes:
        requests: Their number.
        served: Requests.
        refused: Requests.
        timed_out: Requests.
        failed: Requests.
        cold_starts: Environments or pods.
        first_token: Time to first token.
        latency: Time to the whole answer.
        usage: Of the whole window.
        attempts: Of the whole window.
        throttled: Of the whole window.
        mean_capacity: Of the whole window.
        horizon: Of the whole window, seconds.
        load: See `KeyFigures`.
        growing: See `KeyFigures`.
        result: Of the whole window, if it is watched.
        model: What the model's quota did in the whole window. None: it had none.
    """

    requests: int
    served: int
    refused: int
    timed_out: int
    failed: int
    cold_starts: int
    first_token: TimePercentiles
    latency: TimePercentiles
    usage: Usage
    attempts: int
    throttled: int
    mean_capacity: float
    horizon: float
    load: float
    growing: bool
    result: Result | None
    model: ModelCalls | None = None

    @property
    def error_share(self) -> float:
        """The share of requests that were not served."""
        return 1.0 - self.served / self.requests if self.requests else 0.0

    @property
    def figures(self) -> KeyFigures:
        """The figures that an objective is about."""
        return KeyFigures(
            self.first_token.at["p99"],
            self.latency.at["p99"],
            self.error_share,
            self.load,
            self.growing,
        )


class Progress(Struct, frozen=True):
    """Progress of the computation of an answer.

    Attributes:
        simulations: Simulations so far; how many there will be is not known in advance.
        done: Parts of the answer that are done: platforms, points of the curve, varied inputs.
        total: All parts; 0 if unknown.
    """

    simulations: int
    done: int
    total: int


Report = Callable[[Progress], None]
"""Called after each simulation, from any thread."""


class SimulationRunner:
    """Runs simulations in threads (the compiled loops run without the GIL), each only once.

    Args:
        workers: Threads.
        progress: Called after each simulation.

    Attributes:
        total: Calls that `each` will make in all; for the progress.
    """

    def __init__(self, *, workers: int = 2, progress: Report | None = None) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._progress = progress
        self._outcomes: dict[tuple[object, ...], Outcome] = {}
        self._undisturbed: dict[tuple[object, ...], Outcome] = {}
        self._simplified_workloads: dict[tuple[int, bool], tuple[Workload, Workload]] = {}
        self._windows: list[Window] = []
        self._workloads: list[Workload] = []
        self._watched: set[int] = set()
        self._lock = threading.Lock()
        self._done = 0
        self.total = 0
        self.simulations = 0
        self.requests = 0

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def each(self, do: Callable[[T], U], what: Iterable[T]) -> list[U]:
        """Call `do` for each in parallel; results in order. Not to be called from within `do`."""

        def counted(item: T) -> U:
            result = do(item)
            with self._lock:
                self._done += 1
            return result

        return list(self._pool.map(counted, what))

    def watch(self, window: Window) -> None:
        """Keep whole results of a window, for the series over time."""
        self._windows.append(window)
        self._watched.add(id(window))

    def judged(self, candidate: Candidate, window: Window, *, seed: int = 1) -> Outcome:
        """The outcome of a candidate in a window."""
        platform = platform_in(candidate, window)
        outcome = self._run(window, platform, seed)
        if not (isinstance(platform, Eks) and _is_fixed(platform)):
            return outcome
        nodes = math.ceil(platform.pods / platform.nodes.pods_each) + platform.nodes.spare
        usage = structs.replace(outcome.usage, node_seconds=nodes * outcome.horizon)
        return structs.replace(outcome, usage=usage)

    def without_platform(self, window: Window) -> Outcome:
        """The outcome of a window on a platform without limits: that of the model alone."""
        service = structs.replace(
            window.workload.service, start=constant(0.0), cold_request=None,
            memory_mb=0.0, memory_kb_in_flight=0.0,
        )  # fmt: skip
        return self._simulate(structs.replace(window.workload, service=service), window, ENDLESS, 1)

    def _simplified(self, workload: Workload, platform: Platform) -> tuple[Workload, Platform]:
        """Remove what does not influence the simulation, so that more runs are the same.

        Memory bounds neither a function with one request nor pods, whose memory was made to fit;
        for managed instances it only bounds the requests in one.
        """
        if isinstance(platform, Managed):
            if platform.runtime == "processes":
                return workload, platform
            platform = structs.replace(platform, concurrency=slots_of(platform, workload))
        elif isinstance(platform, Eks):
            platform = structs.replace(platform, memory_mb=1_024.0)
            scaler, horizon = platform.scaler, workload.arrivals.horizon
            if isinstance(scaler, ServiceTracking) and horizon < 60.0 * scaler.out_minutes:
                platform = structs.replace(platform, scaler=None)  # it cannot act before the end
            if _is_fixed(platform):
                platform = structs.replace(platform, nodes=Nodes())
        functions = isinstance(platform, Lambda)
        known = self._simplified_workloads.get((id(workload), functions))
        if known is not None:
            return known[1], platform
        service = structs.replace(workload.service, memory_mb=0.0, memory_kb_in_flight=0.0)
        if not functions:
            service = structs.replace(service, init_vcpus=0.0)
        model = workload.model if workload.model.limited else ModelUse()
        made = structs.replace(workload, service=service, model=model)
        # The workload is kept so that its id stays unique.
        self._simplified_workloads[id(workload), functions] = (workload, made)
        return made, platform

    def _run(self, window: Window, platform: Platform, seed: int) -> Outcome:
        workload, platform = self._simplified(window.workload, platform)
        return self._simulate(workload, window, platform, seed)

    def _simulate(
        self, workload: Workload, window: Window, platform: Platform, seed: int
    ) -> Outcome:
        watched = id(window) in self._watched and seed == 1
        rest = (*_key(workload), window.at, window.until, platform, seed, watched)
        key = (workload.clients, *rest)
        # If no request is refused or times out, retries do not matter.
        undisturbed = (workload.clients.patience, *rest)
        known = self._outcomes.get(key) or self._undisturbed.get(undisturbed)
        if known is not None:
            return known
        outcome, result, runs = _outcome_of(workload, platform, window, seed, watched=watched)
        with self._lock:
            self.simulations += runs
            self.requests += result.requests
            self._workloads.append(workload)  # keeps the id of its trace unique
            self._outcomes[key] = outcome
            refused = result.throttled or (result.model is not None and result.model.failed)
            if result.requests == result.served and not refused:
                self._undisturbed[undisturbed] = outcome
            progress = Progress(self.simulations, self._done, self.total)
        if self._progress is not None:
            self._progress(progress)
        return outcome


def platform_in(candidate: Candidate, window: Window) -> Platform:
    """The platform by which a candidate is simulated in a window."""
    if window.event:
        return candidate.peak
    return candidate.rest if window.recorded else candidate.place.settled(candidate, window)


def _is_fixed(platform: Eks) -> bool:
    """Whether no pod or node starts: nodes do not influence the simulation then."""
    return (
        platform.scaler is None and not platform.nodes.spot_interruptions and not platform.deploys
    )


def _key(workload: Workload) -> tuple[object, ...]:
    """The identity of a workload without its clients; a trace by its id."""
    arrivals = workload.arrivals
    if arrivals.trace is None:
        return arrivals, 0, workload.service, workload.model
    recorded = structs.replace(arrivals, trace=None)
    return recorded, id(arrivals.trace), workload.service, workload.model


def _settled(result: Result, start: float) -> Usage:
    """The usage as if all of the window were like the time from `start` on, when it was stationary.

    Environments that start while requests count are those that start all the time. The usage of a
    request does not depend on its time of arrival.
    """
    usage, started = result.usage, result.seconds["cold_starts"]
    first = math.ceil(start / result.bin_seconds)
    settled = result.horizon - first * result.bin_seconds
    if not started.any() or settled <= 0.0:
        return usage
    share = float(started[first:].sum() / started.sum()) * result.horizon / settled
    served = 1.0
    if result.throttled:
        # Starting environments exceeded the account's limit: later more is served.
        begun = result.seconds["started"]
        served = float(begun[first:].sum() / max(begun.sum(), 1.0)) * result.horizon / settled
    return structs.replace(
        usage,
        invocations=served * usage.invocations,
        billed_seconds=served * usage.billed_seconds,
        provisioned_billed_seconds=served * usage.provisioned_billed_seconds,
        billed_start_seconds=share * usage.billed_start_seconds,
        restores=share * usage.restores,
    )


def _outcome_of(
    workload: Workload, platform: Platform, window: Window, seed: int, *, watched: bool
) -> tuple[Outcome, Result, int]:
    """The outcome in a window, the result and the number of simulations.

    A window that does not become stationary is simulated again, twice as long.
    """
    load = 0.0 if window.recorded else offered_load(workload, platform)
    window = structs.replace(window, workload=workload)
    represented = window.horizon
    if isinstance(platform, Lambda) and not window.recorded:
        platform = structs.replace(platform, warm=_usual_environments(workload, platform))
    for runs in range(1, _TRIES + 1):
        part, fraction, factor = thinned(window.workload, platform, _MOST)
        width = 1.0 if window.event else bin_seconds(window.horizon)
        keep = part.expected_requests <= _KEPT
        result = simulate(part, fraction, seed=seed, bin_seconds=width, keep=keep)
        steady = Steady(0.0, settled=True, growing=False)
        if not window.recorded:
            steady = steady_from(result, window.at if window.event else window.horizon)
        if steady.settled or load >= 1.0 or runs == _TRIES:
            break
        window = longer(window)
    start = window.at if window.event else max(window.at, steady.at)
    counted = _counted(result, start, window.until, factor, drawn=watched)
    usage = result.usage
    if not window.event and not window.recorded:
        usage = _settled(result, start)
    scaled_up = whole(result, factor)
    outcome = Outcome(
        **counted,
        usage=scaled_usage(usage, factor),
        attempts=scaled_up.attempts,
        throttled=scaled_up.throttled,
        mean_capacity=scaled_up.mean_capacity,
        # More time before a spike is more ordinary time, which does not weigh.
        horizon=represented if window.event else result.horizon,
        load=load,
        growing=steady.growing,
        result=structs.replace(scaled_up, samples=None) if watched else None,
        model=scaled_up.model,
    )
    return outcome, result, runs


def _usual_environments(workload: Workload, platform: Lambda) -> int:
    """Environments that are idle or busy in ordinary time: as many as were busy in ten minutes.

    The number of busy ones is Poisson, as in a service without queueing (M/G/oo); the greatest of
    some hundred independent ones is 3.5 standard deviations above the mean, beside those that are
    provisioned.
    """
    busy = workload.arrivals.rate * workload.service.mean_seconds
    spare = 3.5 * math.sqrt(busy * platform.functions)  # each function has some of its own
    return max(0, round(busy + spare) - platform.provisioned)


def _counted(
    result: Result, start: float, until: float, factor: float, *, drawn: bool
) -> dict[str, Any]:
    """The fields of an outcome that are about requests that arrived from `start` to `until`."""
    samples = result.samples
    if samples is None:
        counts = [result.requests, result.served, result.refused, result.timed_out, result.failed]
        cold = result.cold_starts
        first_token = _from_histogram(result.first_token)
        latency = _from_histogram(result.latency)
    else:
        inside = (samples.arrival >= start) & (samples.arrival <= until)
        served = inside & (samples.outcome == 0)
        by_outcome = np.bincount(samples.outcome[inside], minlength=4)
        counts = [int(inside.sum()), *(int(each) for each in by_outcome[:4])]
        cold = int(samples.cold[inside].sum())
        first_token = _times(samples.first_token[served], drawn=drawn)
        latency = _times(samples.latency[served], drawn=drawn)
    names = ("requests", "served", "refused", "timed_out", "failed")
    return {
        **{name: round(each * factor) for name, each in zip(names, counts, strict=True)},
        "cold_starts": round((cold + result.usage.pod_starts) * factor),
        "first_token": first_token,
        "latency": latency,
    }


def _times(values: NDArray[np.float64], *, drawn: bool) -> TimePercentiles:
    if not len(values):
        return TimePercentiles(dict.fromkeys(SHARES, math.nan))
    ordered = np.sort(values)
    last = len(ordered) - 1
    at = {name: _between(ordered, share * last) for name, share in SHARES.items()}
    if not drawn:
        return TimePercentiles(at)
    indices = np.unique(np.linspace(0, last, _POINTS).round().astype(int))
    indices = np.unique(
        np.append(indices, np.round(last * np.array([0.99, 0.995, 0.999])).astype(int))
    )
    points = [(float(ordered[index]), float((index + 1) / (last + 1))) for index in indices]
    return TimePercentiles(at, tuple(points))


def _between(ordered: NDArray[np.float64], rank: float) -> float:
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (rank - low) * (ordered[high] - ordered[low]))


def _from_histogram(histogram: Histogram) -> TimePercentiles:
    at = {name: histogram.quantile(share) for name, share in SHARES.items()}
    if not histogram.count:
        return TimePercentiles(at)
    shares = [*np.linspace(0.005, 0.985, 99), 0.99, 0.995, 0.999, 1.0]
    return TimePercentiles(at, tuple((histogram.quantile(float(s)), float(s)) for s in shares))
