"""A fraction of a large system in place of the whole: so many requests, slots and starts fewer.

The pods of a fleet are alike, and the requests of a crowd independent, so that a fraction behaves
as the whole does, only with more chance: relative deviations grow with the root of the factor.
The fraction stays large enough for that not to matter; `tests/plan/test_thinning.py` compares.
"""

import math
from typing import Any

from msgspec import structs

from seawall.plan.inputs.arrivals import Arrivals, Spike
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.model import ModelUse, part_of_quota
from seawall.plan.inputs.platforms import (
    Eks,
    HpaSettings,
    KedaSettings,
    Lambda,
    Managed,
    Platform,
    Policy,
    Rules,
)
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.result import ModelCalls, Result, Usage
from seawall.plan.simulator.stability import overload

__all__ = ["FEWEST_CALLS", "FEWEST_ENVIRONMENTS", "FEWEST_PODS", "scaled_usage", "thinned", "whole"]

FEWEST_PODS = 16
_MANY_PODS = 128
FEWEST_ENVIRONMENTS = 1_000
_CROWDED = 4  # times the limit: so large a crowd is refused, however chance has it
FEWEST_CALLS = 200  # that the model's quota admits at once
_HOPELESS = 100.0  # times what it can do: 99 % are refused; that more are is not simulated
_TIMES = ("first_token_mean", "first_token_max")  # of the arrays over time, not amounts


def thinned(
    workload: Workload, platform: Platform, most: float
) -> tuple[Workload, Platform, float]:
    """A fraction of a workload and of the platform that serves it, and how many make the whole.

    Args:
        workload: Stays whole with at most `most` expected requests, or with a trace.
        platform: Its fraction has at least sixteen pods, or 1,000 environments.
        most: Requests of the fraction, if the platform is large enough.
    """
    beyond = overload(workload, platform) / _HOPELESS
    if beyond > 1.0:
        workload = structs.replace(workload, arrivals=_fewer(workload.arrivals, beyond))
    factor = workload.expected_requests / most
    if factor <= 1.0 or workload.arrivals.trace is not None:
        return workload, platform, 1.0
    factor = min(factor, _quota_calls(workload.model) / FEWEST_CALLS)
    cut: Platform
    match platform:
        case Lambda():
            crowd = max([0, *(spike.size for spike in workload.arrivals.spikes)])
            fewest = FEWEST_ENVIRONMENTS / (_CROWDED if crowd > _CROWDED * platform.limit else 1)
            factor = min(factor, platform.limit / fewest)
            if factor > 1.0:
                cut = _functions(platform, factor)
        case Eks():
            factor = _of_many(factor, platform.pods)
            pods = max(FEWEST_PODS, math.ceil(platform.pods / factor))
            factor = platform.pods / pods  # so that each pod gets exactly what it would
            if factor > 1.0:
                cut = _pods(platform, pods, factor)
        case Managed():
            factor = _of_many(factor, platform.minimum)
            pods = max(FEWEST_PODS, math.ceil(platform.minimum / factor))
            factor = platform.minimum / pods
            if factor > 1.0:
                most_pods = max(pods, math.ceil(platform.maximum / factor))
                cut = structs.replace(platform, minimum=pods, maximum=most_pods)
        case _:
            factor = 1.0
    if factor <= 1.0:
        return workload, platform, 1.0
    fewer = structs.replace(
        workload,
        arrivals=_fewer(workload.arrivals, factor),
        model=part_of_quota(workload.model, factor),
    )
    return fewer, cut, factor


def _of_many(factor: float, pods: int) -> float:
    """A greater factor for many pods, as the balancer looks at all of them for each request."""
    return max(factor, min(2.5 * factor, pods / _MANY_PODS))


def _quota_calls(model: ModelUse) -> float:
    """Calls that the smallest of the model's quotas admits at once; infinite without one."""
    if model.limits is None:
        return math.inf
    limits, found = model.limits, [math.inf]
    tokens = mean_of(model.input_tokens) + model.bound(limits)
    minutes = limits.burst_seconds / 60.0
    found += [
        quota * limits.factor * minutes / tokens
        for quota in (
            limits.tokens_a_minute, limits.input_tokens_a_minute, limits.output_tokens_a_minute
        )
        if quota is not None
    ]  # fmt: skip
    if limits.requests_a_minute is not None:
        calls = limits.requests_a_minute * limits.request_burst_seconds / 60.0
        found.append(calls * limits.factor)
    if limits.concurrent is not None:
        found.append(limits.concurrent * limits.factor)
    return min(found)


def _fewer(arrivals: Arrivals, factor: float) -> Arrivals:
    spikes = tuple(
        Spike(max(1, round(each.size / factor)) if each.size else 0, each.at, each.within)
        for each in arrivals.spikes
    )
    return structs.replace(arrivals, rate=arrivals.rate / factor, spikes=spikes)


def _functions(platform: Lambda, factor: float) -> Lambda:
    limit = round(platform.limit / factor)

    def share(count: int) -> int:
        return min(limit, round(count / factor))

    tracking = platform.tracking
    if tracking is not None:
        tracking = structs.replace(
            tracking, minimum=share(tracking.minimum), maximum=share(tracking.maximum)
        )
    return structs.replace(
        platform,
        account_limit=limit,
        elsewhere=0,
        reserved=None,
        provisioned=share(platform.provisioned),
        warm=share(platform.warm),
        schedule=tuple(
            structs.replace(each, capacity=share(each.capacity)) for each in platform.schedule
        ),
        tracking=tracking,
        start_rate=platform.start_rate / factor,
        start_burst=max(1.0, platform.start_burst / factor),
    )


def _pods(platform: Eks, pods: int, factor: float) -> Eks:
    def policies(rules: Rules) -> Rules:
        found = tuple(
            Policy(each.kind, max(1.0, each.value / factor), each.period)
            if each.kind == "pods" else each
            for each in rules.policies
        )  # fmt: skip
        return structs.replace(rules, policies=found)

    scaler = platform.scaler
    if scaler is not None:
        changed: dict[str, Any] = {
            "minimum": math.ceil(scaler.minimum / factor),
            "maximum": max(pods, math.ceil(scaler.maximum / factor)),
        }
        if isinstance(scaler, HpaSettings | KedaSettings):
            changed |= {"up": policies(scaler.up), "down": policies(scaler.down)}
        scaler = structs.replace(scaler, **changed)
    nodes = structs.replace(platform.nodes, spare=round(platform.nodes.spare / factor))
    return structs.replace(platform, pods=pods, scaler=scaler, nodes=nodes)


def scaled_usage(usage: Usage, factor: float) -> Usage:
    """So many times the billed quantities."""
    return Usage(**{name: getattr(usage, name) * factor for name in Usage.__struct_fields__})


def _whole_calls(calls: ModelCalls, factor: float) -> ModelCalls:
    return structs.replace(
        calls,
        **{
            name: round(value * factor) if isinstance(value, int) else value * factor
            for name in ModelCalls.__struct_fields__
            if isinstance(value := getattr(calls, name), int | float)
        },
    )


def whole(result: Result, factor: float) -> Result:
    """The result of the whole system from that of its fraction; distributions stay as they are."""
    if factor == 1.0:
        return result
    counts: dict[str, Any] = {
        name: round(getattr(result, name) * factor)
        for name in (
            "requests", "attempts", "served", "refused", "timed_out", "failed", "throttled",
            "cold_starts", "on_provisioned",
        )
    }  # fmt: skip
    in_pod = result.peak.get("in_one_pod", 0)
    return structs.replace(
        result,
        **counts,
        mean_busy=result.mean_busy * factor,
        mean_capacity=result.mean_capacity * factor,
        usage=scaled_usage(result.usage, factor),
        model=None if result.model is None else _whole_calls(result.model, factor),
        peak={name: round(value * factor) for name, value in result.peak.items()}
        | {"in_one_pod": in_pod},
        seconds={
            name: array if name in _TIMES else array * factor
            for name, array in result.seconds.items()
        },
    )
