"""One run: its workload, arrivals in pieces, and the parts that all platforms share."""

import math
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.plan.inputs.arrivals import Arrivals, rate_profile
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.kernels.arriving import fill_arrivals
from seawall.plan.simulator.kernels.environments.arrays import EnvironmentState, EnvironmentStats
from seawall.plan.simulator.kernels.pods.arrays import PodStats, Requests
from seawall.plan.simulator.kernels.primitives import BUCKETS, HEAP_ROOM, bucket_edges
from seawall.plan.simulator.kernels.randomness import CONSTANT, stream
from seawall.plan.simulator.result import Histogram, Samples

__all__ = [
    "ARRIVING",
    "CHOICES",
    "JITTERS",
    "MODEL_TOKENS",
    "MODEL_WAITS",
    "SERVICES",
    "STARTS",
    "Job",
    "arrivals_in_pieces",
    "bin_width",
    "empty_histogram",
    "fixed_seconds",
    "histogram",
    "level",
    "numbers",
    "samples_of",
    "shared_counts",
    "shared_series",
    "with_retry_room",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
# Tuples of arrays with requests that wait for their next attempt.
Retrying = TypeVar("Retrying", EnvironmentState, Requests)

# Uses of streams of random numbers.
ARRIVING, SERVICES, STARTS, JITTERS, CHOICES, MODEL_TOKENS, MODEL_WAITS = range(7)
_PIECE = 65_536
_EDGES = bucket_edges()
_MOST_BINS = 200_000
_RETRIES = ("retry_times", "ticket", "retry_request", "retry_tries", "retry_first", "free_tickets")


class Job(Struct, frozen=True):
    """The input of a run.

    Attributes:
        workload: That is simulated.
        pieces: Times of arrival.
        seed: Of all random numbers.
        width: Seconds of a bin of the arrays over time.
        bins: Their number.
        samples: A row for each request, shape (requests, 5), or none, shape (0, 5).
    """

    workload: Workload
    pieces: Iterable[NDArray[np.float64]]
    seed: int
    width: float
    bins: int
    samples: NDArray[np.float64]

    @property
    def model_at(self) -> int:
        """Index of the model's stage; without one, the number of stages."""
        stages = self.workload.service.stages
        return next((at for at, stage in enumerate(stages) if stage.model), len(stages))

    @property
    def store_calls(self) -> tuple[int, int]:
        """Calls of the store until the model has answered, and after it."""
        stages, until = self.workload.service.stages, self.model_at + 1
        early = sum(stage.store_calls for stage in stages[:until])
        return early, sum(stage.store_calls for stage in stages[until:])


def numbers(seed: int, use: int) -> np.uint64:
    """The stream of random numbers of a seed for one use."""
    return np.uint64(stream(np.uint64(seed), use))


def arrivals_in_pieces(
    arrivals: Arrivals, seed: int, piece: int = _PIECE
) -> Iterator[NDArray[np.float64]]:
    """Times of arrival in order, at most `piece` at a time; the last piece is shorter, or empty."""
    rates, width = rate_profile(arrivals)
    spikes = sorted((spike.at, spike.size) for spike in arrivals.spikes if not spike.within)
    spike_times = np.array([at for at, _ in spikes], dtype=np.float64)
    spike_sizes = np.array([size for _, size in spikes], dtype=np.int64)
    clock = np.array([0.0, -1.0])
    counts = np.zeros(4, dtype=np.int64)
    state = numbers(seed, ARRIVING)
    recorded = arrivals.trace if arrivals.trace is not None else np.empty(0)
    if not rates.any() and not spikes:
        for start in range(0, len(recorded), piece):
            yield np.ascontiguousarray(recorded[start : start + piece], dtype=np.float64)
        yield np.empty(0)
        return
    taken = 0
    while True:
        times = np.empty(piece)
        written = fill_arrivals(
            state, rates, width, arrivals.horizon, spike_times, spike_sizes, clock, counts, times
        )
        last = written < piece
        until = np.inf if last else times[-1]
        upto = int(np.searchsorted(recorded, until, side="right"))
        if upto > taken:
            yield np.sort(np.concatenate((times[:written], recorded[taken:upto])))
            taken = upto
        else:
            yield times[:written]
        if last:
            return


def fixed_seconds(rows: Floats) -> float:
    """The sum of encoded distributions that are all constant; else -1."""
    if (rows[:, 0] != CONSTANT).any():
        return -1.0
    total = 0.0
    for row in rows:  # in the order of the compiled loop
        total += max(0.0, row[1] + row[4])
    return total


def bin_width(workload: Workload, wanted: float) -> tuple[float, int]:
    """Seconds of a bin, and their number: `wanted`, doubled until there are at most 200,000."""
    width = wanted
    while workload.arrivals.horizon / width > _MOST_BINS:
        width *= 2.0
    return width, math.ceil(workload.arrivals.horizon / width) + _tail(workload, width)


def _tail(workload: Workload, width: float) -> int:
    """Bins after the horizon, in which the last requests end."""
    return math.ceil(min(120.0, max(10.0, 3.0 * workload.service.mean_seconds)) / width)


def empty_histogram() -> Integers:
    """The counts of a histogram, all zero."""
    return np.zeros(BUCKETS, dtype=np.int64)


def histogram(counts: Integers, total: float) -> Histogram:
    """A histogram with its edges. total: sum of its times, seconds."""
    return Histogram(counts, _EDGES, float(total))


def level(change: Integers) -> Floats:
    """The sum of changes at the end of each bin."""
    summed: Floats = np.cumsum(change).astype(np.float64)
    return summed


def shared_series(
    job: Job, stats: EnvironmentStats | PodStats, kernel: ModuleType
) -> dict[str, Floats]:
    """Arrays over time that platforms have in common; see `SERIES`.

    Args:
        job: The run.
        stats: What the compiled loop counted.
        kernel: The module with the indices into `stats`.
    """
    series = stats.series
    arrived, started, ended = (series[at] for at in (kernel.ARRIVED, kernel.STARTED, kernel.ENDED))
    early, late = job.store_calls
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(arrived > 0, stats.first_sum / arrived, np.nan)
    return {
        "arrived": arrived.astype(float),
        "started": started.astype(float),
        "ended": ended.astype(float),
        "throttled": series[kernel.THROTTLED].astype(float),
        "refused": series[kernel.REFUSED].astype(float),
        "timed_out": series[kernel.LEFT].astype(float),
        "failed": series[kernel.FAILED].astype(float),
        "in_service": level(started - ended),
        "model_begun": series[kernel.CALLS_BEGIN].astype(float),
        "model_calls": level(series[kernel.CALLS_BEGIN] - series[kernel.CALLS_END]),
        "store_calls": (early * started + late * ended).astype(float),
        "first_token_mean": mean,
        "first_token_max": stats.slowest,
    }


def shared_counts(counts: Integers, kernel: ModuleType) -> dict[str, Any]:
    """Fields of `Result` that platforms have in common, from the counts of the compiled loop."""
    return {
        "requests": int(counts[kernel.REQUESTS]),
        "attempts": int(counts[kernel.ATTEMPTS]),
        "served": int(counts[kernel.SERVED]),
        "refused": int(counts[kernel.GAVE_UP]),
        "timed_out": int(counts[kernel.TIMED_OUT]),
        "failed": int(counts[kernel.CUT_OFF]),
        "throttled": int(counts[kernel.THROTTLES]),
    }


def with_retry_room(state: Retrying, needed: int, tickets: int) -> Retrying:
    """The same arrays with room for as many requests that retry as there may be.

    Args:
        state: Arrays of a compiled loop.
        needed: Free tickets that are needed.
        tickets: Index of their number in `state.tally`.
    """
    have = len(state.retry_times) - HEAP_ROOM
    if state.tally[tickets] >= needed:
        return state
    size = max(2 * have, have + needed + 1_023)

    def grown(array: NDArray[Any]) -> NDArray[Any]:
        wider = np.empty(size + HEAP_ROOM, array.dtype)
        wider[: len(array)] = array
        return wider

    state = state._replace(**{name: grown(getattr(state, name)) for name in _RETRIES})
    state.retry_times[have:] = np.inf  # a heap; the others are written before they are read
    free = state.tally[tickets]
    state.free_tickets[free : free + size - have] = np.arange(have, size)
    state.tally[tickets] += size - have
    return state


def samples_of(samples: Floats) -> Samples:
    """The samples of a run, from the rows that the compiled loop wrote."""
    return Samples(
        arrival=samples[:, 0],
        first_token=samples[:, 1],
        latency=samples[:, 2],
        outcome=samples[:, 3].astype(np.int8),
        cold=samples[:, 4] > 0,
    )
