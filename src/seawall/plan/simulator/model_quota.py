"""The model's quota in a run: its arrays for the compiled loops, and what they counted."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.distributions import encode, mean_of
from seawall.plan.inputs.model import Endpoint, ModelLimits, ModelUse
from seawall.plan.simulator.job import (
    MODEL_TOKENS,
    MODEL_WAITS,
    SERVICES,
    Job,
    empty_histogram,
    histogram,
    numbers,
)
from seawall.plan.simulator.kernels.model import arrays as k
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.meters import settle
from seawall.plan.simulator.kernels.primitives import HEAP_ROOM
from seawall.plan.simulator.result import ModelCalls

__all__ = ["is_limited", "model_calls", "model_series", "quota_of"]

_COUNTING = {"reserve": k.RESERVE, "estimate": k.ESTIMATE, "produced": k.PRODUCED}


def is_limited(job: Job) -> bool:
    """Whether the run has a quota of the model."""
    return job.workload.model.limited and job.model_at < len(job.workload.service.stages)


def quota_of(job: Job, calls: int) -> Quota:
    """The arrays of a run's quota.

    Args:
        job: The run.
        calls: Calls at once at most: waiting for the quota or in progress.
    """
    model = job.workload.model
    limited = is_limited(job)
    room = calls if limited else 0
    endpoints = model.endpoints if limited else ()
    rules, levels = _rules(model, endpoints, numbers(job.seed, MODEL_WAITS))
    draws, tables = encode([model.input_tokens, model.output_tokens])
    items = np.zeros((15, room), dtype=np.int64)
    items[k.FREE] = np.arange(room)
    return Quota(
        tokens=numbers(job.seed, MODEL_TOKENS),
        jitters=numbers(job.seed, MODEL_WAITS),
        services=numbers(job.seed, SERVICES),
        stage=job.model_at,
        rules=np.array(
            [
                model.cached_share,
                float(model.on_refusal == "queue"),
                model.retries,
                model.backoff,
                model.backoff_cap,
                float(model.retry_after),
                model.wait_seconds,
                model.queued,
                job.width,
                0.0,
                1.0,
                float(model.provisioned is not None),
                float(model.refuse_early),
                _typical(model),
            ]
        ),
        draws=draws,
        tables=tables,
        endpoints=rules,
        levels=levels,
        clock=np.array([math.inf, math.inf]),
        numbers=np.zeros((12, room)),
        items=items,
        times=np.full((2, room + HEAP_ROOM), math.inf),
        calls=np.zeros((2, room), dtype=np.int64),
        tally=np.zeros(6, dtype=np.int64),
        series=np.zeros((11, job.bins if limited else 0)),
        waits=empty_histogram(),
        totals=np.zeros(6),
    )


def _rules(
    model: ModelUse, endpoints: tuple[Endpoint, ...], stream: np.uint64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rules and the full buckets of each endpoint."""
    rules = np.zeros((len(endpoints), 18))
    levels = np.zeros((len(endpoints), 8))
    for at, each in enumerate(endpoints):
        limits = each.limits
        quotas = (
            limits.requests_a_minute,
            limits.tokens_a_minute,
            limits.input_tokens_a_minute,
            limits.output_tokens_a_minute,
        )
        window = limits.refill == "window"
        for meter, quota in enumerate(quotas):
            rate = math.inf if quota is None else quota * limits.factor / 60.0
            seconds = limits.burst_seconds if meter else limits.request_burst_seconds
            burst = rate * (60.0 if window else seconds)
            # A bucket of less than a request admits one.
            rules[at, 2 * meter], rules[at, 2 * meter + 1] = (
                rate,
                burst if meter else max(1.0, burst),
            )
            levels[at, meter] = rules[at, 2 * meter + 1]
        rules[at, 8:] = (
            math.inf if limits.concurrent is None else limits.concurrent * limits.factor,
            _COUNTING[limits.counting],
            float(limits.greater),
            limits.burndown,
            float(limits.cached_counts),
            float(limits.refusals_count),
            60.0 if window else 0.0,
            # Where in the provider's minute the run begins is not known.
            -60.0 * _share(stream, at) if window else 0.0,
            model.bound(limits),
            each.slower,
        )
    return rules, levels


def _typical(model: ModelUse) -> float:
    """Tokens of its quota that a call uses in the end, on average."""
    limits = model.limits or ModelLimits()
    tokens = mean_of(model.input_tokens)
    if not limits.cached_counts:
        tokens *= 1.0 - model.cached_share
    return tokens + limits.burndown * min(mean_of(model.output_tokens), model.bound(limits))


def _share(stream: np.uint64, at: int) -> float:
    """A number from 0 to 1."""
    return float(np.random.default_rng([int(stream), at]).random())


def model_series(quota: Quota) -> dict[str, NDArray[np.float64]]:
    """Arrays over time of a run with a quota, which is over; see `SERIES`."""
    series = quota.series
    if not series.size:
        return {}
    settle(quota, math.inf)
    return {
        "model_refusals": series[k.REFUSALS],
        "model_failures": series[k.FAILURES],
        "model_waiting": _level(series[k.WAIT_CHANGE]),
        "model_tokens": series[k.COUNTED],
        "model_reserved": _level(series[k.RESERVED_CHANGE]),
        "model_on_fallback": series[k.ON_FALLBACK],
        "model_on_provisioned": series[k.ON_PROVISIONED],
        "model_short_of_tokens": series[k.SHORT_OF_TOKENS],
        "model_short_of_requests": series[k.SHORT_OF_REQUESTS],
        "model_short_of_calls": series[k.SHORT_OF_CALLS],
    }


def _level(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of changes, without the rounding of fractions."""
    found: NDArray[np.float64] = np.cumsum(change).round(6)
    return found


def model_calls(quota: Quota) -> ModelCalls | None:
    """What the model's quota did in a run, which is over; None: the run had none."""
    series, totals = quota.series, quota.totals
    if not series.size:
        return None
    settle(quota, math.inf)
    return ModelCalls(
        admitted=int(series[k.BEGUN].sum()),
        refusals=int(series[k.REFUSALS].sum()),
        failed=int(series[k.FAILURES].sum()),
        on_fallback=int(series[k.ON_FALLBACK].sum()),
        on_provisioned=int(series[k.ON_PROVISIONED].sum()),
        input_tokens=float(totals[k.INPUT_SUM]),
        output_tokens=float(totals[k.OUTPUT_SUM]),
        reserved_tokens=float(totals[k.RESERVED_SUM]),
        fallback_input_tokens=float(totals[k.FALLBACK_INPUT]),
        fallback_output_tokens=float(totals[k.FALLBACK_OUTPUT]),
        wait=histogram(quota.waits, totals[k.WAITED]),
    )
