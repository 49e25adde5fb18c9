"""Which quota of the model the traffic needs: a bucket that never runs dry."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.decision.answer import Figure, ModelFigures, ModelNeed
from seawall.plan.decision.numbers import amount
from seawall.plan.inputs.distributions import mean_of
from seawall.plan.inputs.model import ModelLimits, ModelUse
from seawall.plan.simulator.result import Result

__all__ = ["least_quota", "model_figures", "model_need"]

Floats = NDArray[np.float64]


def model_need(model: ModelUse, result: Result) -> ModelNeed:
    """The quota that the traffic of a run needs.

    The model's calls of the run are replayed, by the second, against quotas of tokens and requests:
    the least ones that admit each call at once.

    Args:
        model: How it is used.
        result: A run without a quota.
    """
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
        words += ". No quota was given, and none was simulated; give yours: --model-tpm, --model-rpm"
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
    level, refill = quota, quota / 60.0 * width
    for take, back in zip(taken.tolist(), returned.tolist(), strict=True):
        level -= take
        if level < 0.0:
            return False
        level = min(quota, level + back + refill)
    return True


def model_figures(results: list[Result]) -> ModelFigures | None:
    """The figures of the model's quota from runs of one window; None: they had none."""
    found = [(each, each.model) for each in results if each.model is not None]
    if not found:
        return None
    first, model = found[0]
    assert model is not None

    return ModelFigures(
        refusals=Figure(float(np.mean([each.model.refusals for each, _ in found]))),  # type: ignore[union-attr]
        failed=Figure(float(np.mean([each.model.failed for each, _ in found]))),  # type: ignore[union-attr]
        on_fallback=Figure(model.on_fallback / max(1, model.admitted)),
        wait_p50=_known(model.wait.quantile(0.5)),
        wait_p99=_known(model.wait.quantile(0.99)),
        reserved_most=float(first.seconds["model_reserved"].max()),
    )


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
