"""Which quota of the model the traffic needs, and what a quota did."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from seawall.plan.decision.answer import Figure, ModelFigures, ModelNeed
from seawall.plan.decision.numbers import amount
from seawall.plan.decision.runs import ENDLESS, Outcome
from seawall.plan.inputs.distributions import constant, mean_of
from seawall.plan.inputs.model import ModelLimits, ModelUse
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.replications import interval
from seawall.plan.simulator.result import ModelCalls
from seawall.plan.simulator.simulate import simulate
from seawall.plan.simulator.thinning import thinned, whole

__all__ = ["least_quota", "model_figures", "model_need"]

Floats = NDArray[np.float64]
_MOST = 50_000.0  # requests that are simulated; for more, a fraction is


def model_need(workload: Workload) -> ModelNeed:
    """The quota that the traffic needs.

    The traffic is simulated on a platform without limits and with a model without a quota. The
    model's calls are then replayed, by the second, against quotas of tokens and requests: the least
    ones that admit each call at once.
    """
    model = workload.model
    free = structs.replace(
        workload,
        model=ModelUse(),
        service=structs.replace(workload.service, start=constant(0.0), cold_request=None),
    )
    part, fraction, factor = thinned(free, ENDLESS, _MOST)
    result = whole(simulate(part, fraction), factor)
    limits = model.limits or ModelLimits()
    bound = model.bound(limits)
    tokens = mean_of(model.input_tokens)
    counted = tokens if limits.cached_counts else tokens * (1.0 - model.cached_share)
    output = min(mean_of(model.output_tokens), bound)
    reserved = limits.reserved(counted, bound)
    used = counted + limits.burndown * output
    begun = result.seconds["model_begun"]
    ended = begun - np.diff(result.seconds["model_calls"], prepend=0.0)
    returned = 0.0 if limits.counting == "estimate" else reserved - used
    width = result.bin_seconds
    quota = least_quota(begun * reserved, ended * returned, width)
    requests = least_quota(begun, np.zeros(len(begun)), width)
    words = (
        f"Without waiting or 429s the traffic needs a quota of {amount(quota)} tokens and "
        f"{amount(requests)} requests a minute: a call takes {amount(reserved)} tokens when it is "
        f"admitted (input {amount(counted)}, bound {amount(bound)})"
    )
    if limits.counting == "produced":
        words = words.replace(f", bound {amount(bound)}", "; output counts as it is produced")
    if not model.limited:
        words += (
            ". No quota was given, and none was simulated; give yours: --model-tpm, --model-rpm"
        )
    return ModelNeed(
        name=model.name,
        simulated=model.limited,
        bound=bound,
        input_tokens=tokens,
        output_tokens=output,
        reserved_tokens=reserved,
        requests_a_minute=requests,
        tokens_a_minute=quota,
        words=words + ".",
    )


def least_quota(taken: Floats, returned: Floats, width: float) -> float:
    """The least quota a minute, to three digits, whose bucket of a minute never runs dry.

    Args:
        taken: In each bin.
        returned: In each bin, after what is taken; negative: taken later.
        width: Seconds of a bin.
    """
    if not taken.any():
        return 0.0
    high = float(taken.sum() + np.maximum(0.0, -returned).sum())
    low = high / 60.0 * width / max(1, len(taken)) * 1e-3
    while high / low > 1.0005:
        middle = math.sqrt(low * high)
        if _suffices(middle, taken, returned, width):
            high = middle
        else:
            low = middle
    digits = 10.0 ** (math.floor(math.log10(high)) - 2)
    return math.ceil(high / digits) * digits


def _suffices(quota: float, taken: Floats, returned: Floats, width: float) -> bool:
    lacking = np.cumsum(taken - returned - quota / 60.0 * width)
    lacking -= np.minimum(0.0, np.minimum.accumulate(lacking))  # it is never more than full
    before = np.concatenate(([0.0], lacking[:-1]))
    # What calls used more in the end may be owed.
    return not np.any((before + taken > quota) & (taken > 0.0))


def model_figures(outcomes: Sequence[Outcome]) -> ModelFigures | None:
    """The figures of the model's quota from replications; None: they had none."""
    models = [each.model for each in outcomes if each.model is not None]
    first = outcomes[0].result
    if not models or first is None:
        return None

    def mean(of: Callable[[ModelCalls], float]) -> Figure:
        found = interval([of(each) for each in models])
        return Figure(found.mean, found.half if math.isfinite(found.half) else None)

    wait = models[0].wait
    return ModelFigures(
        refusals=mean(lambda each: float(each.refusals)),
        failed=mean(lambda each: float(each.failed)),
        on_fallback=mean(lambda each: each.on_fallback / max(1, each.admitted)),
        wait_p50=wait.quantile(0.5) if wait.count else 0.0,
        wait_p99=wait.quantile(0.99) if wait.count else 0.0,
        reserved_most=float(first.seconds["model_reserved"].max()),
    )
