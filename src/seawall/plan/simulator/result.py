"""The result of a simulation, and its schema."""

import math
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["MODEL_SERIES", "SERIES", "Histogram", "ModelCalls", "Result", "Samples", "Usage"]

Floats = NDArray[np.float64]

SERIES = {
    "arrived": "requests that arrived, each once",
    "started": "attempts whose service began",
    "ended": "attempts whose service ended",
    "cold_starts": "environments or pods that began to start",
    "throttled": "attempts that were refused: 429 or 503",
    "refused": "requests that ended refused, after their last attempt",
    "timed_out": "requests whose client timed out on its last attempt",
    "failed": "requests that were cut off: by the function's timeout, or by the end of their pod",
    "in_service": "requests in service, at the end of the second",
    "queued": "requests that wait in a queue, at the end of the second",
    "capacity": "environments (busy or idle) or pods, at the end of the second",
    "ready": "pods that take requests, or all environments, at the end of the second",
    "provisioned": "provisioned environments, at the end of the second",
    "spilled": "requests that found the provisioned environments busy",
    "nodes": "nodes, at the end of the second",
    "new_connections": "connections opened to model, store and others",
    "open_connections": "connections that are open, at the end of the second",
    "model_begun": "model calls that began",
    "model_calls": "model calls in progress, at the end of the second",
    "store_calls": "calls of the session store",
    "first_token_mean": "mean seconds to first token of requests that arrived then; NaN: none",
    "first_token_max": "the longest of them, seconds",
}
MODEL_SERIES = {  # in addition, where the model has a quota
    "model_refusals": "model calls refused by the quota: 429",
    "model_failures": "attempts that ended because of the quota",
    "model_waiting": "model calls that wait for the quota, at the end of the second",
    "model_tokens": "tokens that count in the end, of calls that ended",
    "model_reserved": "tokens reserved by calls in progress, at the end of the second",
    "model_on_fallback": "model calls admitted by a fallback",
    "model_on_provisioned": "model calls admitted by provisioned throughput",
    "model_short_of_tokens": "tries for which the model's quota of tokens did not suffice",
    "model_short_of_requests": "tries for which its quota of requests did not suffice",
    "model_short_of_calls": "tries for which its limit of calls in progress did not suffice",
}


class Histogram(Struct, frozen=True):
    """A histogram of times, in logarithmic buckets at most 1.6 % wide.

    Attributes:
        counts: By bucket, shape (n,).
        edges: Of the buckets in seconds, shape (n + 1,).
        total: Sum of all times, seconds.
    """

    counts: NDArray[np.int64]
    edges: Floats
    total: float

    @property
    def count(self) -> int:
        """The number of times."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """The exact mean in seconds; NaN without times."""
        return self.total / self.count if self.count else math.nan

    def quantile(self, share: float) -> float:
        """The quantile in seconds, interpolated within its bucket; NaN without times.

        Args:
            share: 0.99 for p99.
        """
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
        """The share of times up to `seconds`; NaN without times."""
        if not self.count:
            return math.nan
        at = int(np.searchsorted(self.edges, seconds, side="right")) - 1
        if at >= len(self.counts):
            return 1.0
        low, high = self.edges[at], self.edges[at + 1]
        inside = self.counts[at] * (seconds - low) / (high - low)
        return float((self.counts[:at].sum() + inside) / self.count)


class Usage(Struct, frozen=True, kw_only=True):
    """Billed quantities; those that a platform does not have are 0.

    Attributes:
        invocations: Attempts that ran.
        billed_seconds: Of on-demand environments, each request rounded up to a millisecond.
        billed_start_seconds: Of their initialisation, billed since 2025-08-01 (AWS Compute Blog,
            2025-04).
        provisioned_seconds: Of provisioned environments.
        provisioned_billed_seconds: Of requests in provisioned environments.
        restores: From a snapshot.
        environment_seconds: Of on-demand environments, busy or idle.
        pod_seconds: Of pods, from start to end.
        node_seconds: Of nodes, from start to end.
        cpu_seconds: Used by requests.
        node_starts: After the beginning.
        pod_starts: After the beginning.
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


class ModelCalls(Struct, frozen=True, kw_only=True):
    """What the model's quota did in a run.

    Attributes:
        admitted: Calls.
        refusals: 429s; in a queue, calls that it did not take.
        failed: Attempts that ended because of the quota; their clients may have retried.
        on_fallback: Admitted calls of fallbacks.
        on_provisioned: Admitted calls of provisioned throughput.
        input_tokens: Of ended calls.
        output_tokens: Of ended calls.
        reserved_tokens: That admitted calls took from the quota of input and output together.
        fallback_input_tokens: Of calls of fallbacks.
        fallback_output_tokens: Of calls of fallbacks.
        wait: Time that admitted calls waited for the quota.
    """

    admitted: int
    refusals: int
    failed: int
    on_fallback: int
    on_provisioned: int
    input_tokens: float
    output_tokens: float
    reserved_tokens: float
    fallback_input_tokens: float
    fallback_output_tokens: float
    wait: Histogram


class Samples(Struct, frozen=True):
    """Every request, in order of arrival; arrays of shape (requests,).

    Attributes:
        arrival: Of the first attempt, seconds.
        first_token: Seconds since arrival; -1: never.
        latency: Seconds since arrival.
        outcome: 0 served, 1 refused, 2 timed out, 3 failed.
        cold: Whether the request started an environment.
    """

    arrival: Floats
    first_token: Floats
    latency: Floats
    outcome: NDArray[np.int8]
    cold: NDArray[np.bool_]


class Result(Struct, frozen=True, kw_only=True):
    """One run of a workload on a platform.

    Attributes:
        platform: Its name.
        seed: Of the run.
        horizon: Seconds simulated.
        bin_seconds: Of the arrays in `seconds`.
        requests: Their number: served + refused + timed_out + failed.
        attempts: Including retries.
        served: Requests.
        refused: Requests, after all retries.
        timed_out: Requests whose client timed out.
        failed: Requests that were cut off.
        throttled: Attempts that were refused.
        cold_starts: Environments that started for a request.
        on_provisioned: Attempts in provisioned environments.
        mean_busy: Requests in service, on average until the horizon.
        mean_capacity: Environments or pods, on average until the horizon.
        latency: Of served requests, from arrival, with queueing, starts and retries.
        first_token: Time to first token of served requests, likewise.
        wait: In the queue.
        usage: Billed quantities.
        peak: Greatest values of in_service, capacity, model_calls, open_connections, queued, and
            of in_one_pod: requests in service in one pod.
        seconds: Arrays over time by the names of SERIES and MODEL_SERIES, which describe them.
            Later events than the last bin are in the last bin.
        samples: Every request, if kept.
        model: What the model's quota did. None: it has none.
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
    model: ModelCalls | None = None

    @property
    def cold_share(self) -> float:
        """The share of started attempts that were cold; NaN without any."""
        started = self.attempts - self.throttled
        return self.cold_starts / started if started else math.nan

    @property
    def error_share(self) -> float:
        """The share of requests that were not served; NaN without any."""
        return 1.0 - self.served / self.requests if self.requests else math.nan

    def as_dict(self) -> dict[str, Any]:
        """The figures without the arrays, for JSON."""
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
