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
from seawall.plan.decision.windows import Window
from seawall.plan.inputs.platforms import Eks, Lambda, Managed, Nodes, Platform, ServiceTracking
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.pods import slots_of
from seawall.plan.simulator.result import Histogram, Result, Usage
from seawall.plan.simulator.simulate import simulate

__all__ = [
    "SHARES",
    "KeyFigures",
    "Outcome",
    "Progress",
    "Report",
    "SimulationRunner",
    "TimePercentiles",
]

T = TypeVar("T")
U = TypeVar("U")

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
_KEPT = 250_000.0  # requests at most for exact percentiles; for more, those of the histograms
_POINTS = 100


class TimePercentiles(Struct, frozen=True):
    """Percentiles in seconds by the names of SHARES, and points of the distribution. NaN: none."""

    at: dict[str, float]
    points: tuple[tuple[float, float], ...] = ()


class KeyFigures(Struct, frozen=True):
    """The figures that an objective is about; NaN: no request was served."""

    first_token_p99: float
    latency_p99: float
    error_share: float


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
        result: Of the whole window, if it is watched.
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
    result: Result | None

    @property
    def error_share(self) -> float:
        """The share of requests that were not served."""
        return 1.0 - self.served / self.requests if self.requests else 0.0

    @property
    def figures(self) -> KeyFigures:
        """The figures that an objective is about."""
        return KeyFigures(self.first_token.at["p99"], self.latency.at["p99"], self.error_share)


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
        if window.event:
            platform = candidate.peak
        elif window.recorded:
            platform = candidate.rest
        else:
            platform = candidate.place.settled(candidate, window)
        outcome = self._run(window, platform, seed)
        if not (isinstance(platform, Eks) and _is_fixed(platform)):
            return outcome
        nodes = math.ceil(platform.pods / platform.nodes.pods_each) + platform.nodes.spare
        usage = structs.replace(outcome.usage, node_seconds=nodes * outcome.horizon)
        return structs.replace(outcome, usage=usage)

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
        made = structs.replace(workload, service=service)
        # The workload is kept so that its id stays unique.
        self._simplified_workloads[id(workload), functions] = (workload, made)
        return made, platform

    def _run(self, window: Window, platform: Platform, seed: int) -> Outcome:
        workload, platform = self._simplified(window.workload, platform)
        watched = id(window) in self._watched and seed == 1
        rest = (*_key(workload), window.at, window.until, platform, seed, watched)
        key = (workload.clients, *rest)
        # If no request is refused or times out, retries do not matter.
        undisturbed = (workload.clients.patience, *rest)
        known = self._outcomes.get(key) or self._undisturbed.get(undisturbed)
        if known is not None:
            return known
        expected = workload.expected_requests
        width = 1.0 if window.event else max(1.0, window.horizon / 600.0)
        keep = expected <= _KEPT
        result = simulate(workload, platform, seed=seed, bin_seconds=width, keep=keep)
        outcome = _outcome_of(result, window, whole=watched)
        with self._lock:
            self.simulations += 1
            self.requests += result.requests
            self._workloads.append(workload)  # keeps the id of its trace unique
            self._outcomes[key] = outcome
            if result.requests == result.served and not result.throttled:
                self._undisturbed[undisturbed] = outcome
            progress = Progress(self.simulations, self._done, self.total)
        if self._progress is not None:
            self._progress(progress)
        return outcome


def _is_fixed(platform: Eks) -> bool:
    """Whether no pod or node starts: nodes do not influence the simulation then."""
    return (
        platform.scaler is None and not platform.nodes.spot_interruptions and not platform.deploys
    )


def _key(workload: Workload) -> tuple[object, ...]:
    """The identity of a workload without its clients; a trace by its id."""
    arrivals = workload.arrivals
    if arrivals.trace is None:
        return arrivals, 0, workload.service
    return structs.replace(arrivals, trace=None), id(arrivals.trace), workload.service


def _settled(result: Result, window: Window) -> Usage:
    """The usage as if the window had not begun without environments: it represents settled hours.

    Environments that start while requests count are those that start all the time. The usage of a
    request does not depend on its time of arrival.
    """
    usage, started = result.usage, result.seconds["cold_starts"]
    first = math.ceil(window.at / result.bin_seconds)
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


def _outcome_of(result: Result, window: Window, *, whole: bool) -> Outcome:
    samples = result.samples
    rest: dict[str, Any] = {
        "usage": result.usage if window.event or window.recorded else _settled(result, window),
        "attempts": result.attempts,
        "throttled": result.throttled,
        "mean_capacity": result.mean_capacity,
        "horizon": result.horizon,
        "result": structs.replace(result, samples=None) if whole else None,
    }
    if samples is None:
        return Outcome(
            requests=result.requests,
            served=result.served,
            refused=result.refused,
            timed_out=result.timed_out,
            failed=result.failed,
            cold_starts=result.cold_starts + result.usage.pod_starts,
            first_token=_from_histogram(result.first_token),
            latency=_from_histogram(result.latency),
            **rest,
        )
    inside = (samples.arrival >= window.at) & (samples.arrival <= window.until)
    outcome = samples.outcome[inside]
    served = inside & (samples.outcome == 0)
    counts = np.bincount(outcome, minlength=4)
    return Outcome(
        requests=int(inside.sum()),
        served=int(counts[0]),
        refused=int(counts[1]),
        timed_out=int(counts[2]),
        failed=int(counts[3]),
        cold_starts=int(samples.cold[inside].sum()) + result.usage.pod_starts,
        first_token=_times(samples.first_token[served], drawn=whole),
        latency=_times(samples.latency[served], drawn=whole),
        **rest,
    )


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
