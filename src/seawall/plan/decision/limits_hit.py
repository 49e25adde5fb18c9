"""Which limits the requests met, and which of them first: derived from a run's series."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.decision.answer import LimitHit, LimitName
from seawall.plan.decision.numbers import amount
from seawall.plan.decision.windows import Window
from seawall.plan.inputs.model import ModelUse
from seawall.plan.inputs.platforms import Eks, Lambda, Managed, Platform
from seawall.plan.inputs.question import PerRequest
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.pods import cores_of, slots_of
from seawall.plan.simulator.result import Result

__all__ = ["begin_of", "limits_hit"]

Floats = NDArray[np.float64]

# A new on-demand table; it doubles within half an hour, and can be warmed in advance:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
_READ_UNITS, _WRITE_UNITS = 12_000.0, 4_000.0

_TITLES: dict[LimitName, str] = {
    "model-tokens": "the model's tokens a minute",
    "model-requests": "the model's requests a minute",
    "model-concurrency": "the model's calls at once",
    "account-concurrency": "the account's concurrency",
    "scaling-rate": "the rate at which environments start",
    "pod-cores": "the processors of the pods",
    "pod-slots": "the slots of the pods",
    "database": "the throughput of a new DynamoDB table",
}
_MET: dict[LimitName, str] = {
    "model-tokens": "model calls were refused or waited",
    "model-requests": "model calls were refused or waited",
    "model-concurrency": "model calls were refused or waited",
    "account-concurrency": "attempts were refused",
    "scaling-rate": "attempts were refused",
    "pod-cores": "requests began while there was more work than processors",
    "pod-slots": "requests waited or were refused",
    "database": "units beyond it, which the simulation does not enforce",
}


def begin_of(window: Window, result: Result) -> float:
    """Seconds from the start of a run until the judged time of its window.

    A run that was not stationary before a spike was repeated with more time before it.
    """
    return window.at + max(0.0, result.horizon - window.horizon)


def limits_hit(
    result: Result, window: Window, platform: Platform, each: PerRequest
) -> tuple[LimitHit, ...]:
    """The limits that the requests of a window met, the first one first.

    Args:
        result: A run of the window, with its series.
        window: That was simulated.
        platform: That it was simulated on.
        each: Amounts of one request.
    """
    start = int(begin_of(window, result) / result.bin_seconds) if window.event else 0
    found = _of_model(window.workload.model, result)
    match platform:
        case Lambda():
            found += _of_function(platform, result)
        case Eks() | Managed():
            found += _of_pods(platform, window.workload, result)
        case _:
            pass
    found += _of_database(each, window.workload, result)
    hits = [
        _hit(name, _from(value, start), unit, met[start:], result.bin_seconds)
        for name, value, unit, met in found
        if met[start:].any()
    ]
    # At the same second the limit that was enforced decides.
    return tuple(sorted(hits, key=lambda hit: (hit.at, not hit.simulated)))


# Limit, its value (by bin, if it changes) and unit, how often it was met by bin.
_Met = tuple[LimitName, float | Floats, str, Floats]


def _from(value: float | Floats, start: int) -> float | Floats:
    return value if isinstance(value, float) else value[start:]


def _hit(name: LimitName, values: float | Floats, unit: str, met: Floats, width: float) -> LimitHit:
    first = int(np.flatnonzero(met)[0])
    value = values if isinstance(values, float) else float(values[first])
    at = first * width
    requests = float(met.sum())
    words = (
        f"{_TITLES[name]} ({amount(value)} {unit}) after {at:g} s: {amount(requests)} {_MET[name]}"
    )
    return LimitHit(
        name=name,
        title=_TITLES[name],
        at=at,
        value=value,
        unit=unit,
        requests=requests,
        simulated=name != "database",
        words=words,
    )


def _of_model(model: ModelUse, result: Result) -> list[_Met]:
    limits = model.limits
    if limits is None or "model_short_of_tokens" not in result.seconds:
        return []
    tokens = limits.tokens_a_minute or limits.input_tokens_a_minute or limits.output_tokens_a_minute
    found: list[_Met] = []
    for name, value, unit, row in (
        ("model-tokens", tokens, "a minute", "model_short_of_tokens"),
        ("model-requests", limits.requests_a_minute, "a minute", "model_short_of_requests"),
        ("model-concurrency", limits.concurrent, "at once", "model_short_of_calls"),
    ):
        if value is not None:
            found.append((name, value * limits.factor, unit, result.seconds[row]))  # type: ignore[arg-type]
    return found


def _of_function(platform: Lambda, result: Result) -> list[_Met]:
    """Throttles: by the account's concurrency where nearly all of it is taken.

    An idle environment would have served, so that all are busy or start.
    """
    throttled, taken = result.seconds["throttled"], result.seconds["capacity"]
    before = np.concatenate(([0.0], taken[:-1]))
    full = np.maximum(taken, before) >= 0.99 * platform.limit
    return [
        ("account-concurrency", float(platform.limit), "at once", np.where(full, throttled, 0.0)),
        ("scaling-rate", platform.start_rate, "a second", np.where(full, 0.0, throttled)),
    ]


def _of_pods(platform: Eks | Managed, workload: Workload, result: Result) -> list[_Met]:
    seconds, width = result.seconds, result.bin_seconds
    slots = slots_of(platform, workload) * seconds["ready"]
    queued = seconds["queued"]
    waiting = np.maximum(0.0, np.diff(queued, prepend=0.0)) + seconds["throttled"]
    cores = _cores_of(platform)
    stages = workload.service.stages
    at = next((at for at, stage in enumerate(stages) if stage.model), len(stages))
    first = sum(stage.cpu_ms for stage in stages[:at]) / 1e3
    last = sum(stage.cpu_ms for stage in stages[at:]) / 1e3
    begun = seconds["model_begun"] if at < len(stages) else seconds["started"]
    answered = begun - np.diff(seconds["model_calls"], prepend=0.0)
    work = first * seconds["started"] + last * answered
    left = np.zeros(len(work))
    behind = 0.0
    for here, (more, able) in enumerate(zip(work, seconds["ready"] * cores * width, strict=True)):
        behind = max(0.0, behind + float(more) - float(able))
        left[here] = behind
    busy = np.where(left > 0.0, seconds["started"], 0.0)
    return [
        ("pod-slots", slots, "at once", waiting),
        ("pod-cores", cores * seconds["ready"], "processors", busy),
    ]


def _cores_of(platform: Eks | Managed) -> float:
    """Processors that the requests of one pod or environment use."""
    if isinstance(platform, Eks):
        return platform.cores
    return cores_of(platform)


def _of_database(each: PerRequest, workload: Workload, result: Result) -> list[_Met]:
    if not any(stage.store_calls for stage in workload.service.stages):
        return []
    width = result.bin_seconds
    ended = result.seconds["ended"]
    if "model_failures" in result.seconds:  # these write nothing
        ended = np.maximum(0.0, ended - result.seconds["model_failures"])
    writes = each.write_units * ended / width
    reads = each.read_units * result.seconds["started"] / width
    beyond = np.maximum(0.0, writes - _WRITE_UNITS) + np.maximum(0.0, reads - _READ_UNITS)
    write = bool((writes > _WRITE_UNITS).any())
    value, unit = (_WRITE_UNITS, "write units") if write else (_READ_UNITS, "read units")
    return [("database", value, f"{unit} a second", beyond * width)]
