"""What a simulation found, with its schema."""

import math
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["SERIES", "Histogram", "Result", "Samples", "Usage"]

Floats = NDArray[np.float64]

SERIES = {
    "arrived": "requests that came, each once",
    "started": "attempts whose service began",
    "ended": "attempts whose service ended",
    "cold_starts": "environments or pods that began to start",
    "throttled": "attempts that were refused: 429 or 503",
    "refused": "requests that ended refused, after their last attempt",
    "timed_out": "requests whose client left for good",
    "failed": "requests that were cut off: by a timeout of the function, or with their pod",
    "in_service": "requests in service, at the end of the second",
    "queued": "requests that wait in a pod or for a place, at the end of the second",
    "capacity": "environments (busy or idle) or pods that are there, at the end of the second",
    "ready": "pods that take requests, at the end of the second; of environments all",
    "provisioned": "provisioned environments, at the end of the second",
    "spilled": "requests that found the provisioned environments busy",
    "nodes": "nodes, at the end of the second",
    "new_connections": "connections opened to model, store and others",
    "open_connections": "connections that are open, at the end of the second",
    "model_calls": "calls of the model that run, at the end of the second",
    "store_calls": "calls of the session store",
    "first_token_mean": "mean time to first token of those that came then, seconds; NaN: nobody",
    "first_token_max": "the longest of them, seconds",
}


class Histogram(Struct, frozen=True):
    """Times in logarithmic buckets, at most 1.6 % wide. counts: by bucket; edges: one more."""

    counts: NDArray[np.int64]
    edges: Floats
    total: float

    @property
    def count(self) -> int:
        """How many times are in it."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Exact, in seconds; NaN of none."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, share: float) -> float:
        """In seconds, within a bucket by a straight line; NaN of none. share: 0.99 for p99."""
        if not self.count:
            return math.nan
        upto = np.cumsum(self.counts)
        rank = share * upto[-1]
        at = int(np.searchsorted(upto, rank, side="left"))
        at = min(max(at, int(np.flatnonzero(self.counts)[0])), len(self.counts) - 1)
        inside = (rank - (upto[at] - self.counts[at])) / max(self.counts[at], 1)
        low, high = self.edges[at], self.edges[at + 1]
        return 0.0 if at == 0 else float(low + min(max(inside, 0.0), 1.0) * (high - low))

    def share_within(self, seconds: float) -> float:
        """The share that took no longer, NaN of none."""
        if not self.count:
            return math.nan
        at = int(np.searchsorted(self.edges, seconds, side="right")) - 1
        if at >= len(self.counts):
            return 1.0
        low, high = self.edges[at], self.edges[at + 1]
        inside = self.counts[at] * (seconds - low) / (high - low)
        return float((self.counts[:at].sum() + inside) / self.count)


class Usage(Struct, frozen=True, kw_only=True):
    """What is paid for, as counts and seconds; what a platform does not have is 0.

    invocations: attempts that ran. billed_seconds: of on-demand environments, each rounded up to
    a millisecond; billed_start_seconds: of their initialisation, billed since 2025-08-01 (AWS
    Compute Blog, 2025-04). provisioned_seconds: environments provisioned, times how long;
    provisioned_billed_seconds: of requests in them. restores: from a snapshot. environment_seconds:
    on-demand environments, busy or idle. pod_seconds, node_seconds: from start to end. cpu_seconds:
    used by requests. node_starts, pod_starts: after the beginning.
    """

    invocations: float = 0.0
    billed_seconds: float = 0.0
    billed_start_seconds: float = 0.0
    provisioned_seconds: float = 0.0
    provisioned_billed_seconds: float = 0.0
    restores: float = 0.0
    environment_seconds: float = 0.0
    pod_seconds: float = 0.0
    node_seconds: float = 0.0
    cpu_seconds: float = 0.0
    node_starts: int = 0
    pod_starts: int = 0


class Samples(Struct, frozen=True):
    """Every request, in order of arrival.

    arrival, first_token, latency: seconds, the latter two since the arrival of its first attempt
    (first_token -1: never). outcome: 0 served, 1 refused, 2 timed out, 3 failed. cold: it started
    an environment.
    """

    arrival: Floats
    first_token: Floats
    latency: Floats
    outcome: NDArray[np.int8]
    cold: NDArray[np.bool_]


class Result(Struct, frozen=True, kw_only=True):
    """One run of a workload on a platform.

    requests = served + refused + timed_out + failed; of them attempts were made. cold_starts:
    environments that started for a request. warm: requests that a provisioned or an idle
    environment took, or a pod. on_provisioned: of them, in provisioned ones. throttled: attempts.
    latency, first_token: of requests served, since they arrived first, with all waiting, starting
    and coming again. wait: in the queue. horizon: seconds simulated; mean_*: over those.
    seconds: arrays by name, one value a bin of `bin_seconds`; SERIES says what they are. What
    comes after the horizon is in the last bin. peak: the greatest of in_service, capacity, and
    of the series model_calls, open_connections, queued; in_one_pod: requests in service in one.
    samples: every request, if they were kept.
    """

    platform: str
    seed: int
    horizon: float
    bin_seconds: float
    requests: int
    attempts: int
    served: int
    refused: int
    timed_out: int
    failed: int
    throttled: int
    cold_starts: int
    on_provisioned: int
    mean_busy: float
    mean_capacity: float
    latency: Histogram
    first_token: Histogram
    wait: Histogram
    usage: Usage
    peak: dict[str, int]
    seconds: dict[str, Floats]
    samples: Samples | None = None

    @property
    def cold_share(self) -> float:
        """The share of started attempts that were cold; NaN of none."""
        started = self.attempts - self.throttled
        return self.cold_starts / started if started else math.nan

    @property
    def error_share(self) -> float:
        """The share of requests that were not served; NaN of none."""
        return 1.0 - self.served / self.requests if self.requests else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Its figures, without arrays, to be printed as JSON."""
        quantiles = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
        figures: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if isinstance(getattr(self, name), int | float | str)
        }
        for name in ("latency", "first_token", "wait"):
            histogram: Histogram = getattr(self, name)
            figures[name] = {"mean": histogram.mean} | {
                key: histogram.quantile(share) for key, share in quantiles.items()
            }
        figures["usage"] = {name: getattr(self.usage, name) for name in Usage.__struct_fields__}
        figures["peak"] = dict(self.peak)
        return figures
