"""Prometheus metrics, one observation a turn; summed over the workers of a server.

Where PROMETHEUS_MULTIPROC_DIR is set before this module is imported, every process writes its
values to files there and any of them can answer for all
(https://prometheus.github.io/client_python/multiprocess/).
"""

import asyncio
import os
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from seawall.admission.gate import AdmissionGate
from seawall.admission.queue import Reason
from seawall.models.upstream import Upstream
from seawall.pipeline.report import TurnReport
from seawall.telemetry.metric_files import use_metric_files

__all__ = ["Metrics"]

# Milliseconds for the stages in the process, seconds for the model: 1, 2, 5 steps over both.
_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
)  # fmt: skip


class Metrics:
    """The metrics of one process."""

    def __init__(self, worker: int | None = None) -> None:
        """Begin to count.

        Args:
            worker: Which of several workers this is; one that is started in its place goes on
                counting where it ended. None for a process by itself.
        """
        if worker is not None and _shared():
            use_metric_files(worker)
        self._registry = CollectorRegistry()
        self._turns = Counter(
            "seawall_turns",
            "Turns ended, by how: completed, replayed, cancelled, or the code of the problem.",
            ["outcome", "agent"],
            registry=self._registry,
        )
        self._cached = Counter(
            "seawall_cached_turns",
            "Completed turns whose answer was produced for another turn.",
            registry=self._registry,
        )
        self._stages = Histogram(
            "seawall_stage_seconds",
            "Time spent by completed turns in each stage.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._intents = Counter(
            "seawall_intents",
            "Intents detected, by the step of the cascade that answered.",
            ["intent", "by"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "seawall_tokens", "Tokens reported by models.", ["kind"], registry=self._registry
        )
        self._spent: _ModelSpending | None = None  # only where calls are metered
        self._tools = Counter(
            "seawall_tool_calls", "Tool calls.", ["outcome"], registry=self._registry
        )
        self._refused = Counter(
            "seawall_turns_refused",
            "Turns refused by admission: full, late, waited (in vain), displaced.",
            ["reason"],
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "seawall_turns_in_flight",
            "Turns that hold a place now.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._queued = Gauge(
            "seawall_turns_queued",
            "Turns that wait for a place now.",
            ["priority"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._upstream = Gauge(
            "seawall_upstream_requests_in_flight",
            "Requests to upstreams that are open now.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._tasks = Gauge(
            "seawall_event_loop_tasks",
            "Tasks of the event loops now.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._in_flight_limit = Gauge(
            "seawall_turns_in_flight_limit",
            "Turns that may hold a place now.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._lag = Gauge(
            "seawall_event_loop_lag_seconds",
            "How late the event loop is, in the process where it is latest.",
            registry=self._registry,
            multiprocess_mode="livemax",
        )
        self._last_refused: dict[Reason, int] = {}
        self._calls = Counter(
            "seawall_model_calls",
            "Calls to model endpoints ended, by how: answered, refused, throttled, failed, late, "
            "left (by the caller, or as the loser of a hedge).",
            ["model", "outcome"],
            registry=self._registry,
        )
        self._limit = Gauge(
            "seawall_model_concurrency_limit",
            "Calls that may be under way to a model endpoint now.",
            ["model"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._model_in_flight = Gauge(
            "seawall_model_in_flight",
            "Calls that are under way to a model endpoint now.",
            ["model"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._breaker = Gauge(
            "seawall_model_breaker_open",
            "Processes whose circuit breaker keeps calls from a model endpoint now.",
            ["model"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._last_calls: dict[tuple[str, str], int] = {}

    def observe(self, report: TurnReport) -> None:
        """Count a finished turn."""
        self._turns.labels(report.outcome, report.agent).inc()
        if report.spent:  # also by turns that failed
            self._spent = self._spent or _ModelSpending(self._registry)
            self._spent.observe(report)
        if report.outcome != "completed":
            return
        if report.cached:
            self._cached.inc()
        for stage, milliseconds in report.timings.items():
            self._stages.labels(stage).observe(milliseconds / 1e3)
        self._intents.labels(report.intent or "none", report.intent_by).inc()
        self._tokens.labels("prompt").inc(report.usage.prompt_tokens)
        self._tokens.labels("completion").inc(report.usage.completion_tokens)
        if report.tool_calls:
            self._tools.labels("failed").inc(report.failed_tool_calls)
            self._tools.labels("answered").inc(report.tool_calls - report.failed_tool_calls)

    def sample(self, gate: AdmissionGate, upstream_streams: int) -> None:
        """Note the present state; called every second and before each scrape."""
        self._in_flight.set(gate.in_flight)
        self._in_flight_limit.set(gate.limit)
        self._lag.set(gate.lag)
        for priority, waiting in gate.queued_by_priority.items():
            self._queued.labels(priority).set(waiting)
        self._upstream.set(upstream_streams)
        self._tasks.set(len(asyncio.all_tasks()))
        for reason, refused in gate.refused.items():
            self._refused.labels(reason).inc(refused - self._last_refused.get(reason, 0))
        self._last_refused = dict(gate.refused)

    def sample_upstreams(self, upstreams: Mapping[str, Upstream]) -> None:
        """Note how the model endpoints are; called with `sample`."""
        for name, upstream in upstreams.items():
            for outcome, calls in upstream.attempts.items():
                before = self._last_calls.get((name, outcome), 0)
                self._calls.labels(name, outcome).inc(calls - before)
                self._last_calls[name, outcome] = calls
            self._limit.labels(name).set(upstream.limit)
            self._model_in_flight.labels(name).set(upstream.in_flight)
            self._breaker.labels(name).set(upstream.state() == "open")

    def scrape(self) -> tuple[bytes, bytes]:
        """Content type and text of all processes' metrics."""
        registry = self._registry
        if _shared():
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return CONTENT_TYPE_LATEST.encode(), generate_latest(registry)


def _shared() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class _ModelSpending:
    """What was spent, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tokens = Counter(
            "seawall_model_tokens",
            "Tokens by model, estimates included, also of turns that failed.",
            ["model", "kind"],
            registry=registry,
        )
        self._cost = Counter(
            "seawall_model_cost", "What models cost.", ["model", "currency"], registry=registry
        )

    def observe(self, report: TurnReport) -> None:
        for model, spent in report.spent.items():
            used = spent.usage
            self._tokens.labels(model, "prompt").inc(used.prompt_tokens)
            self._tokens.labels(model, "cached_prompt").inc(used.cached_prompt_tokens)
            self._tokens.labels(model, "completion").inc(used.completion_tokens)
            if report.currency:
                self._cost.labels(model, report.currency).inc(spent.cost / 1e9)
