"""Runs of pieces on platforms: each once, several at a time, and what became of the crowd."""

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from seawall.plan.decision.candidates import Candidate, ordinary_platform, stretched
from seawall.plan.decision.windows import Window
from seawall.plan.inputs.platforms import Eks, Managed, Platform
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.pod_state import slots_of
from seawall.plan.simulator.result import Histogram, Result, Usage
from seawall.plan.simulator.simulate import simulate

__all__ = ["SHARES", "Outcome", "SimulationRunner", "TimePercentiles"]

T = TypeVar("T")
U = TypeVar("U")

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
_KEPT = 250_000.0  # requests of which each is looked at; of more the piece's histograms
_POINTS = 100


class TimePercentiles(Struct, frozen=True):
    """Percentiles by name of SHARES, seconds, NaN of nobody; and points of the distribution."""

    at: dict[str, float]
    points: tuple[tuple[float, float], ...] = ()


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of those who came while it counts; see `Window`.

    usage, attempts, horizon: of the whole piece. result: of it too, of pieces that are watched.
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
        """Of the requests, those that were not served."""
        return 1.0 - self.served / self.requests if self.requests else 0.0


class SimulationRunner:
    """Simulations, in threads: the compiled loops do not hold the interpreter's lock.

    What was run once is not run again. progress: is told after each run how many there were.
    """

    def __init__(self, *, workers: int = 2, progress: Callable[[int], None] | None = None) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._progress = progress
        self._known: dict[tuple[object, ...], Outcome] = {}
        self._calm: dict[tuple[object, ...], Outcome] = {}
        self._plainer: dict[tuple[int, float], tuple[Workload, Workload]] = {}
        self._windows: list[Window] = []
        self._kept: list[Workload] = []
        self._watched: set[int] = set()
        self._lock = threading.Lock()
        self.simulations = 0
        self.requests = 0

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def each(self, do: Callable[[T], U], what: Iterable[T]) -> list[U]:
        """Do it for each, several at a time; in order. Not to be called from within."""
        return list(self._pool.map(do, what))

    def watch(self, window: Window) -> None:
        """Keep the whole results of this piece: what happens in it second by second."""
        self._windows.append(window)
        self._watched.add(id(window))

    def judged(self, candidate: Candidate, window: Window, *, seed: int = 1) -> Outcome:
        """A candidate in a spike, or in the ordinary time that it is judged by."""
        platform = candidate.peak if window.event else ordinary_platform(candidate, window)
        return self._run(candidate, window, platform, seed)

    def _plain(
        self, workload: Workload, start_factor: float, platform: Platform
    ) -> tuple[Workload, Platform]:
        """Without what the simulation of this platform does not look at: more runs are the same.

        Memory bounds neither a function of one request nor pods, whose memory was made to fit; of
        managed instances it bounds the requests in one, which is all that it does.
        """
        if isinstance(platform, Managed):
            if platform.runtime == "processes":
                return stretched(workload, start_factor), platform
            platform = structs.replace(platform, concurrency=slots_of(platform, workload))
        elif isinstance(platform, Eks):
            platform = structs.replace(platform, memory_mb=1_024.0)
        known = self._plainer.get((id(workload), start_factor))
        if known is not None:
            return known[1], platform
        made = stretched(workload, start_factor)
        service = structs.replace(made.service, memory_mb=0.0, memory_kb_in_flight=0.0)
        made = structs.replace(made, service=service)
        self._plainer[id(workload), start_factor] = (workload, made)  # so that its id stays its own
        return made, platform

    def _run(self, candidate: Candidate, window: Window, platform: Platform, seed: int) -> Outcome:
        workload, platform = self._plain(window.workload, candidate.start_factor, platform)
        watched = id(window) in self._watched and seed == 1
        rest = (*_key(workload), window.at, window.until, platform, seed, watched)
        key = (workload.clients, *rest)
        # Where nobody is turned away or leaves, it does not matter who would come again.
        calm = (workload.clients.patience, *rest)
        known = self._known.get(key) or self._calm.get(calm)
        if known is not None:
            return known
        expected = workload.expected_requests
        width = 1.0 if window.event else max(1.0, window.horizon / 600.0)
        keep = expected <= _KEPT
        result = simulate(workload, platform, seed=seed, bin_seconds=width, keep=keep)
        outcome = _looked_at(result, window, whole=watched)
        with self._lock:
            self.simulations += 1
            self.requests += result.requests
            self._kept.append(workload)  # so that the id of its trace stays its own
            self._known[key] = outcome
            if result.requests == result.served and not result.throttled:
                self._calm[calm] = outcome
            done = self.simulations
        if self._progress is not None:
            self._progress(done)
        return outcome


def _key(workload: Workload) -> tuple[object, ...]:
    """What tells one workload from another, callers aside; a trace by which one it is."""
    arrivals = workload.arrivals
    if arrivals.trace is None:
        return arrivals, 0, workload.service
    return structs.replace(arrivals, trace=None), id(arrivals.trace), workload.service


def _settled(result: Result, window: Window) -> Usage:
    """As if the piece had not begun with no environments: it stands for hours that did not.

    What starts once requests count, by the second, is what starts all the time. What they take
    does not depend on when they came.
    """
    usage, started = result.usage, result.seconds["cold_starts"]
    first = math.ceil(window.at / result.bin_seconds)
    settled = result.horizon - first * result.bin_seconds
    if not started.any() or settled <= 0.0:
        return usage
    share = float(started[first:].sum() / started.sum()) * result.horizon / settled
    served = 1.0
    if result.throttled:
        # While they started they were too many for the account: later more is served than then.
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


def _looked_at(result: Result, window: Window, *, whole: bool) -> Outcome:
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
    places = np.unique(np.linspace(0, last, _POINTS).round().astype(int))
    places = np.unique(
        np.append(places, np.round(last * np.array([0.99, 0.995, 0.999])).astype(int))
    )
    points = [(float(ordered[place]), float((place + 1) / (last + 1))) for place in places]
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
