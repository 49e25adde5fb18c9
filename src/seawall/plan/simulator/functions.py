"""A run on several identical Lambda functions behind a router."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from seawall.plan.inputs.model import part_of_quota
from seawall.plan.inputs.platforms import Lambda
from seawall.plan.simulator.environments import run_lambda
from seawall.plan.simulator.job import Job, arrivals_in_pieces
from seawall.plan.simulator.result import Histogram, ModelCalls, Result, Samples, Usage

__all__ = ["run_functions"]

_ROUTING = 7  # of the seed of the router's choices
_STRIDE = 1_000_003  # between the seeds of the functions


def run_functions(job: Job, platform: Lambda) -> Result:
    """Run a job; see `simulate`.

    Each request goes to a function at random, as by the hash of its session, and its retries to the
    same one. The functions are independent but for what they share: each gets its part of the
    model's quota, and of the account's concurrency its part and three standard deviations of a
    random split.
    """
    count = platform.functions
    share = platform.account_limit / count
    whole = platform.account_limit - platform.elsewhere
    limit = min(whole, math.ceil((whole / count) + 3.0 * math.sqrt(share)))
    one = structs.replace(
        platform, functions=1, account_limit=max(1, limit), elsewhere=0,
        provisioned=math.ceil(platform.provisioned / count),
        warm=math.ceil(platform.warm / count),
    )  # fmt: skip
    workload = structs.replace(job.workload, model=part_of_quota(job.workload.model, count))
    kept = isinstance(job.pieces, list)
    parts = list(zip(*(_split(job, count)), strict=True)) if kept else []
    results = []
    for at in range(count):
        pieces = parts[at] if kept else (each[at] for each in _split(job, count))
        rows = sum(len(piece) for piece in parts[at]) if len(job.samples) else 0
        part = structs.replace(
            job,
            workload=workload,
            pieces=pieces,
            seed=job.seed + _STRIDE * at,
            samples=np.zeros((rows, 5)),
        )
        results.append(run_lambda(part, one))
    return _together(results, job)


def _split(job: Job, count: int) -> Iterator[list[NDArray[np.float64]]]:
    """The arrivals at each function, piece by piece."""
    random = np.random.default_rng([job.seed, _ROUTING])
    pieces = job.pieces
    if not isinstance(pieces, list):
        pieces = arrivals_in_pieces(job.workload.arrivals, job.seed)
    for piece in pieces:
        chosen = random.integers(0, count, len(piece), dtype=np.int8)
        yield [piece[chosen == at] for at in range(count)]


def _histogram(parts: Sequence[Histogram]) -> Histogram:
    counts = np.sum([each.counts for each in parts], axis=0)
    return Histogram(counts, parts[0].edges, sum(each.total for each in parts))


def _model_calls(parts: Sequence[ModelCalls]) -> ModelCalls:
    sums = {
        name: sum(getattr(each, name) for each in parts)
        for name in ModelCalls.__struct_fields__
        if name != "wait"
    }
    return ModelCalls(wait=_histogram([each.wait for each in parts]), **sums)


def _samples(parts: Sequence[Samples]) -> Samples:
    """All samples in order of arrival."""
    order = np.argsort(np.concatenate([each.arrival for each in parts]), kind="stable")
    fields = {
        name: np.concatenate([getattr(each, name) for each in parts])[order]
        for name in Samples.__struct_fields__
    }
    return Samples(**fields)


def _together(results: Sequence[Result], job: Job) -> Result:
    """The sum of the functions' results."""
    first = results[0]
    fields = {}
    for name in first.__struct_fields__:
        value = getattr(first, name)
        if isinstance(value, Histogram):
            fields[name] = _histogram([getattr(each, name) for each in results])
        elif name not in ("seed", "horizon", "bin_seconds") and isinstance(value, int | float):
            fields[name] = sum(getattr(each, name) for each in results)
    seconds = {
        name: np.sum([each.seconds[name] for each in results], axis=0) for name in first.seconds
    }
    arrived = [each.seconds["arrived"] for each in results]
    tokens = [
        np.where(many > 0, each.seconds["first_token_mean"] * many, 0.0)
        for each, many in zip(results, arrived, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        seconds["first_token_mean"] = np.sum(tokens, axis=0) / np.sum(arrived, axis=0)
    seconds["first_token_max"] = np.max([each.seconds["first_token_max"] for each in results], 0)
    peak = {name: int(seconds[name].max()) for name in first.peak if name in seconds}
    usage = Usage(**{
        name: sum(getattr(each.usage, name) for each in results)
        for name in Usage.__struct_fields__
    })  # fmt: skip
    samples = [each.samples for each in results if each.samples is not None]
    calls = [each.model for each in results if each.model is not None]
    return structs.replace(
        first, **fields, seed=job.seed, seconds=seconds, usage=usage, peak=first.peak | peak,
        samples=_samples(samples) if samples else None,
        model=_model_calls(calls) if calls else None,
    )  # fmt: skip
