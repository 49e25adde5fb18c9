"""Prometheus metrics, one observation a turn; summed over the workers of a server.

Where PROMETHEUS_MULTIPROC_DIR is set before this module is imported, every process writes its
values to files there and any of them can answer for all
(https://prometheus.github.io/client_python/multiprocess/).
"""

import asyncio
import functools
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

from msgspec import Struct, field
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from seawall.telemetry.metric_files import use_metric_files
from seawall.turn import TurnReport

__all__ = ["Metrics"]

# Milliseconds for the stages in the process, seconds for the model: 1, 2, 5 steps over both.
_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
)  # fmt: skip
# Metrics by the names that they had up to version 0.1, and are exported under for one release.
_OLD_NAMES = {
    "seawall_turns_refused": "seawall_refused",
    "seawall_turns_in_flight": "seawall_in_flight",
    "seawall_turns_in_flight_limit": "seawall_in_flight_limit",
    "seawall_turns_queued": "seawall_queued",
    "seawall_upstream_requests_in_flight": "seawall_upstream_streams",
    "seawall_event_loop_tasks": "seawall_tasks",
    "seawall_event_loop_lag_seconds": "seawall_loop_lag_seconds",
    "seawall_model_breaker_open": "seawall_model_open",
    "seawall_model_concurrency_limit": "seawall_model_limit",
}


class AdmissionState(Protocol):
    """What is sampled of admission control."""

    @property
    def in_flight(self) -> int:
        """Turns that have a slot."""
        ...

    @property
    def limit(self) -> int:
        """Turns that may have a slot."""
        ...

    @property
    def lag(self) -> float:
        """Event loop lag, in seconds."""
        ...

    @property
    def queued_by_priority(self) -> Mapping[str, int]:
        """Turns that wait for a slot."""
        ...

    @property
    def refused(self) -> Mapping[Any, int]:
        """Turns refused so far, by reason."""
        ...


class UpstreamState(Protocol):
    """What is sampled of a model endpoint, or of a source of tools."""

    @property
    def attempts(self) -> Mapping[str, int]:
        """Calls so far, by outcome."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        ...

    @property
    def limit(self) -> int:
        """Calls that may be in flight."""
        ...

    def state(self) -> str:
        """State of the circuit breaker."""
        ...


class QuotaState(Protocol):
    """What is sampled of a quota."""

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        ...

    @property
    def refused(self) -> int:
        """Calls so far that were not made."""
        ...

    @property
    def throttled(self) -> int:
        """Calls so far that the provider refused."""
        ...


class Metrics:
    """The metrics of one process."""

    def __init__(self, worker: int | None = None) -> None:
        """Begin to count.

        Args:
            worker: Index among several workers; a worker that replaces another continues its
                counts. None for a process by itself.
        """
        if worker is not None and _shared():
            use_metric_files(worker)
        self._registry = CollectorRegistry()
        self._turns = self._counter(
            "seawall_turns",
            "Turns ended, by how: completed, paused, person, replayed, cancelled, or the problem's "
            "code.",
            "outcome",
            "agent",
        )
        self._cached = self._counter(
            "seawall_cached_turns", "Completed turns whose answer was produced for another turn."
        )
        self._stages = _StageHistogram(
            "seawall_stage_seconds",
            "Time spent by completed turns in each stage.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._stage_times: dict[str, _StageTimes] = {}
        self._intents = self._counter(
            "seawall_intents",
            "Intents detected, by the step of the cascade that detected them.",
            "intent",
            "by",
        )
        self._tokens = self._counter("seawall_tokens", "Tokens reported by models.", "kind")
        self._tools = self._counter("seawall_tool_calls", "Tool calls.", "outcome")
        self._effects = self._counter(
            "seawall_effects",
            "Calls of tools that change something, ended, by how: done, failed, rejected, unknown; "
            "and by the decision about them: none, approve, edit, reject, expire.",
            "tool",
            "status",
            "decision",
        )
        self._refused = self._counter(
            "seawall_turns_refused",
            "Turns refused by admission control: queue full, deadline too near (late), waited in "
            "vain (waited), displaced by another turn.",
            "reason",
        )
        self._in_flight = self._gauge("seawall_turns_in_flight", "Turns that have a slot.")
        self._in_flight_limit = self._gauge(
            "seawall_turns_in_flight_limit", "Turns that may have a slot at the same time."
        )
        self._queued = self._gauge(
            "seawall_turns_queued", "Turns that wait for a slot.", "priority"
        )
        self._upstream = self._gauge(
            "seawall_upstream_requests_in_flight", "Open requests to upstreams."
        )
        self._tasks = self._gauge("seawall_event_loop_tasks", "Tasks of the event loops.")
        self._lag = self._gauge(
            "seawall_event_loop_lag_seconds",
            "Lag of the event loop, in the process where it is greatest.",
            mode="livemax",
        )
        self._models = _UpstreamMetrics(
            self._counter(
                "seawall_model_calls",
                "Calls to model endpoints ended, by how: answered, refused, throttled, failed, "
                "timed out (late), abandoned by the caller or as the loser of a hedge (left).",
                "model",
                "outcome",
            ),
            self._gauge(
                "seawall_model_concurrency_limit",
                "Calls to a model endpoint that may be in flight.",
                "model",
            ),
            self._gauge("seawall_model_in_flight", "Calls to a model endpoint in flight.", "model"),
            self._gauge(
                "seawall_model_breaker_open",
                "Processes whose circuit breaker for a model endpoint is open.",
                "model",
            ),
        )
        self._sources: _UpstreamMetrics | None = None  # only where tools live elsewhere
        self._quotas: _QuotaMetrics | None = None  # only where there are quotas
        # Only where calls are metered.
        self._model_tokens: Counter | None = None
        self._model_cost: Counter | None = None
        self._compactions: Counter | None = None  # only where sessions are summarised
        self._memory_reads: Counter | None = None  # only where agents have a memory
        self._last_refused: dict[Any, int] = {}
        # Of every turn: `labels` takes a lock and makes texts of its arguments each time, and `inc`
        # checks whether there are labels.
        self._turns_of = functools.cache(self._turns.adder)
        self._intents_of = functools.cache(self._intents.adder)
        self._tokens_of = functools.cache(self._tokens.adder)
        self._tools_of = functools.cache(self._tools.labels)

    def _counter(self, name: str, text: str, *labels: str) -> "_Counter":
        return _Counter(name, text, labels, registry=self._registry)

    def _gauge(
        self, name: str, text: str, *labels: str, mode: Literal["livesum", "livemax"] = "livesum"
    ) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)

    def observe(self, report: TurnReport) -> None:
        """Count a finished turn."""
        self._turns_of(report.outcome, report.agent)(1)
        if report.spent:  # also by turns that failed
            self._observe_spending(report)
        if report.compaction:
            self._observe_compaction(report.compaction)
        if report.memory:
            self._observe_memory(report.memory)
        for effect in report.effects:
            self._effects.labels(*effect).inc()
        if report.outcome != "completed":
            return
        if report.cached:
            self._cached.inc()
        for stage, milliseconds in report.timings.items():
            times = self._stage_times.get(stage)
            if times is None:
                times = self._stage_times[stage] = _StageTimes()
            seconds = milliseconds / 1e3
            times.counts[bisect_left(_BUCKETS, seconds)] += 1
            times.seconds += seconds
        self._intents_of(report.intent or "none", report.intent_by)(1)
        self._tokens_of("prompt")(report.usage.prompt_tokens)
        self._tokens_of("completion")(report.usage.completion_tokens)
        if report.tool_calls:
            self._tools_of("failed").inc(report.failed_tool_calls)
            self._tools_of("answered").inc(report.tool_calls - report.failed_tool_calls)

    def _observe_compaction(self, outcome: str) -> None:
        if self._compactions is None:
            self._compactions = self._counter(
                "seawall_compactions",
                "Summaries of what leaves the windows of sessions, by how they ended: summarised, "
                "failed, or refused by the tenant's budget.",
                "outcome",
            )
        self._compactions.labels(outcome).inc()

    def _observe_memory(self, outcome: str) -> None:
        if self._memory_reads is None:
            self._memory_reads = self._counter(
                "seawall_memory_reads",
                "Turns of agents with a memory, by whether what is remembered was read or failed "
                "to be, so that they went on without.",
                "outcome",
            )
        self._memory_reads.labels(outcome).inc()

    def _observe_spending(self, report: TurnReport) -> None:
        if self._model_tokens is None or self._model_cost is None:
            self._model_tokens = self._counter(
                "seawall_model_tokens",
                "Tokens by model, estimates included, also of turns that failed.",
                "model",
                "kind",
            )
            self._model_cost = self._counter(
                "seawall_model_cost", "What models cost.", "model", "currency"
            )
        for model, spent in report.spent.items():
            used = spent.usage
            self._model_tokens.labels(model, "prompt").inc(used.prompt_tokens)
            self._model_tokens.labels(model, "cached_prompt").inc(used.cached_prompt_tokens)
            self._model_tokens.labels(model, "completion").inc(used.completion_tokens)
            if report.currency:
                self._model_cost.labels(model, report.currency).inc(spent.cost / 1e9)

    def sample(self, admission: AdmissionState, upstream_requests: int) -> None:
        """Record the present state, and the times of stages since the last call.

        Called every second and before each scrape.

        Args:
            admission: The admission gate.
            upstream_requests: Open requests to upstreams.
        """
        self._in_flight.set(admission.in_flight)
        self._in_flight_limit.set(admission.limit)
        self._lag.set(admission.lag)
        for priority, queued in admission.queued_by_priority.items():
            self._queued.labels(priority).set(queued)
        self._upstream.set(upstream_requests)
        self._tasks.set(len(asyncio.all_tasks()))
        for reason, refused in admission.refused.items():
            self._refused.labels(reason).inc(refused - self._last_refused.get(reason, 0))
        self._last_refused = dict(admission.refused)
        for stage, times in self._stage_times.items():
            self._stages.labels(stage).add(times)
        self._stage_times = {}

    def sample_upstreams(self, upstreams: Mapping[str, UpstreamState]) -> None:
        """Record the state of the model endpoints, by name; called with `sample`."""
        self._models.sample(upstreams)

    def sample_sources(self, upstreams: Mapping[str, UpstreamState]) -> None:
        """Record the state of the sources of tools, by name; called with `sample`."""
        if self._sources is None:
            self._sources = _UpstreamMetrics(
                self._counter(
                    "seawall_tool_source_calls",
                    "Attempts at calls to sources of tools ended, by how: answered, unreachable, "
                    "throttled, failed, timed out (late), broken off, refused, abandoned by the "
                    "caller (left).",
                    "source",
                    "outcome",
                ),
                self._gauge(
                    "seawall_tool_source_concurrency_limit",
                    "Calls to a source of tools that may be in flight.",
                    "source",
                ),
                self._gauge(
                    "seawall_tool_source_in_flight",
                    "Calls to a source of tools in flight.",
                    "source",
                ),
                self._gauge(
                    "seawall_tool_source_breaker_open",
                    "Processes whose circuit breaker for a source of tools is open.",
                    "source",
                ),
            )
        self._sources.sample(upstreams)

    def sample_quotas(self, quotas: Mapping[str, QuotaState]) -> None:
        """Record the state of the quotas, by name; called with `sample`."""
        if self._quotas is None:
            self._quotas = _QuotaMetrics(
                self._gauge("seawall_quota_waiting", "Calls that wait for a quota.", "quota"),
                self._counter(
                    "seawall_quota_refused",
                    "Calls that were not made, as a quota had no room before their deadline.",
                    "quota",
                ),
                self._counter(
                    "seawall_quota_throttled",
                    "Calls that the provider refused although the quota had room.",
                    "quota",
                ),
            )
        self._quotas.sample(quotas)

    def scrape(self) -> tuple[bytes, bytes]:
        """Return the content type and the text of all processes' metrics."""
        registry = self._registry
        if _shared():
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return CONTENT_TYPE_LATEST.encode(), generate_latest(_WithOldNames(registry))


class _Counter(Counter):
    """A counter that can be added to without the checks of `inc`."""

    def adder(self, *labels: str) -> Callable[[float], None]:
        """What adds a number that is not negative under these labels."""
        add: Callable[[float], None] = self.labels(*labels)._value.inc  # noqa: SLF001 - of its class
        return add


class _StageTimes(Struct):
    """Times of one stage since the last sample: their number by bucket, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    seconds: float = 0.0


class _StageHistogram(Histogram):
    """A histogram that takes many times at once.

    A turn has eight, and each would cost two locks and, with several workers, two writes to a file.
    """

    def add(self, times: _StageTimes) -> None:
        """Add times; those of a bucket are above the bound before it, up to its own."""
        self._sum.inc(times.seconds)
        for bucket, count in zip(self._buckets, times.counts, strict=True):
            if count:
                bucket.inc(count)


class _QuotaMetrics:
    """Waiting, refused and throttled calls by quota."""

    def __init__(self, waiting: Gauge, refused: Counter, throttled: Counter) -> None:
        self._waiting = waiting
        self._counters = (refused, throttled)
        self._last: dict[str, tuple[int, int]] = {}

    def sample(self, quotas: Mapping[str, QuotaState]) -> None:
        """Record the present state."""
        for name, quota in quotas.items():
            self._waiting.labels(name).set(quota.waiting)
            now = quota.refused, quota.throttled
            before = self._last.get(name, (0, 0))
            for counter, value, last in zip(self._counters, now, before, strict=True):
                counter.labels(name).inc(value - last)
            self._last[name] = now


class _UpstreamMetrics:
    """Calls, limit, calls in flight and breaker of the upstreams of one kind."""

    def __init__(self, calls: Counter, limit: Gauge, in_flight: Gauge, breaker: Gauge) -> None:
        self._calls = calls
        self._limit = limit
        self._in_flight = in_flight
        self._breaker = breaker
        self._last_calls: dict[tuple[str, str], int] = {}

    def sample(self, upstreams: Mapping[str, UpstreamState]) -> None:
        """Record the present state."""
        for name, upstream in upstreams.items():
            for outcome, calls in upstream.attempts.items():
                before = self._last_calls.get((name, outcome), 0)
                self._calls.labels(name, outcome).inc(calls - before)
                self._last_calls[name, outcome] = calls
            self._limit.labels(name).set(upstream.limit)
            self._in_flight.labels(name).set(upstream.in_flight)
            self._breaker.labels(name).set(upstream.state() == "open")


def _shared() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class _WithOldNames(Collector):
    """Metrics of a registry; those that were renamed under their old names as well."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        for metric in self._registry.collect():
            if metric.name in _OLD_NAMES.values():  # in files that version 0.1 left behind
                continue
            yield metric
            old = _OLD_NAMES.get(metric.name)
            if old is not None:
                new = f"{metric.name}_total" if metric.type == "counter" else metric.name
                copy = Metric(old, f"Deprecated: renamed to {new}.", metric.type)
                copy.samples = [
                    each._replace(name=old + each.name.removeprefix(metric.name))
                    for each in metric.samples
                ]
                yield copy
