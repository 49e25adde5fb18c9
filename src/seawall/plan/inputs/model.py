"""How the workload uses its model: tokens, their bound, quotas, and what happens on a 429.

A provider counts tokens against a quota in one of three ways (`ModelLimits.counting`), each with
its source:

- `reserve`: input and the output's bound when the call is admitted; the unused part is returned
  when it ends, and output counts `burndown` times (Amazon Bedrock:
  https://docs.aws.amazon.com/bedrock/latest/userguide/quotas-token-burndown.html; it returns parts
  of it earlier, at times that are not published).
- `estimate`: input and the bound, or the greater of the two, when the call is admitted; nothing is
  returned (Azure OpenAI: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/quota; OpenAI:
  https://developers.openai.com/api/docs/guides/rate-limits).
- `produced`: input when the call is admitted, output as it is produced; the bound does not count
  (Anthropic: https://platform.claude.com/docs/en/api/rate-limits, 2026-08).
"""

import math
from typing import Literal

from msgspec import Struct, structs

from seawall.errors import ConfigError
from seawall.plan.inputs.distributions import Distribution, check_amounts, constant

__all__ = [
    "MODEL_SOURCES",
    "Endpoint",
    "ModelLimits",
    "ModelUse",
    "check_model",
    "part_of_quota",
]

MINUTE = 60.0

MODEL_SOURCES = {
    "model.limits": "not given: the model was simulated without a quota",
    "model.max_tokens": "Seawall's own: what an agent has without limits.call_tokens",
    "model.on_refusal": "assumed: a turn repeats a refused call twice, as providers' clients do",
}


class ModelLimits(Struct, frozen=True, kw_only=True):
    """Quotas of a model at a provider; None: without one.

    Attributes:
        tokens_a_minute: Input and output together.
        input_tokens_a_minute: Input alone.
        output_tokens_a_minute: Output alone.
        requests_a_minute: Calls.
        concurrent: Calls in progress at most.
        counting: `reserve`, `estimate` or `produced`; see the module.
        greater: With `estimate`: the greater of input and bound counts, not their sum.
        burndown: Quota tokens that an output token uses in the end.
        cached_counts: Whether input that is read from a prompt cache counts.
        refusals_count: Whether a refused call counts against the requests a minute.
        refill: `continuous`: a token bucket; `window`: the whole quota at each full minute.
        burst_seconds: Size of the buckets of tokens, in seconds of their refill.
        request_burst_seconds: Size of the bucket of requests, in seconds of its refill.
        factor: Multiplies the quotas: that of a cross-Region profile, or a number of model units.
        greatest_output: Output tokens of the model at most: the bound of a call without one.
    """

    tokens_a_minute: float | None = None
    input_tokens_a_minute: float | None = None
    output_tokens_a_minute: float | None = None
    requests_a_minute: float | None = None
    concurrent: int | None = None
    counting: Literal["reserve", "estimate", "produced"] = "reserve"
    greater: bool = False
    burndown: float = 1.0
    cached_counts: bool = False
    refusals_count: bool = False
    refill: Literal["continuous", "window"] = "continuous"
    burst_seconds: float = MINUTE
    request_burst_seconds: float = MINUTE
    factor: float = 1.0
    greatest_output: int = 64_000

    @property
    def any(self) -> bool:
        """Whether there is a quota."""
        return any(
            each is not None
            for each in (
                self.tokens_a_minute,
                self.input_tokens_a_minute,
                self.output_tokens_a_minute,
                self.requests_a_minute,
                self.concurrent,
            )
        )

    def reserved(self, input_tokens: float, bound: float) -> float:
        """Tokens of the quota of input and output together that a call takes when admitted."""
        if self.counting == "produced":
            return input_tokens
        return max(input_tokens, bound) if self.greater else input_tokens + bound


class Endpoint(Struct, frozen=True, kw_only=True):
    """A model at a provider, with quotas of its own.

    Attributes:
        name: For readers.
        limits: Its quotas.
        slower: Factor of the time of a call and of its first token.
    """

    name: str = ""
    limits: ModelLimits = ModelLimits()
    slower: float = 1.0


class ModelUse(Struct, frozen=True, kw_only=True):
    """How turns use the model.

    A call that no quota admits is refused (429). The turn repeats it up to `retries` times, after a
    random time up to min(backoff_cap, backoff * 2**n) (full jitter), meanwhile in service: it
    occupies its environment, or its slot in a pod. Or it waits in a queue, in order of arrival,
    until the reservation is possible.

    Attributes:
        name: Of the model or preset, for readers.
        limits: Of the model. None: not given; the simulation has no quota then.
        provisioned: Provisioned throughput, used first.
        fallbacks: Models that are called, in order, when the first has no quota left.
        input_tokens: Of a call.
        output_tokens: Of a call; longer calls have more.
        cached_share: Of the input, read from the prompt cache.
        max_tokens: Bound of the output. None: the model's own.
        on_refusal: `retry`: a refused call is repeated; `queue`: calls wait for the quota.
        retries: Of a call.
        backoff: Seconds.
        backoff_cap: Seconds.
        retry_after: Whether retries also wait as long as the provider's Retry-After says.
        wait_seconds: A turn waits for the quota at most; then it fails.
        queued: Calls that wait in the queue at most.
        refuse_early: Whether the queue refuses a call at once whose expected wait is longer than
            that, as Seawall's own does; not with fallbacks or provisioned throughput.
    """

    name: str = ""
    limits: ModelLimits | None = None
    provisioned: ModelLimits | None = None
    fallbacks: tuple[Endpoint, ...] = ()
    input_tokens: Distribution = constant(1_500.0)
    output_tokens: Distribution = constant(250.0)
    cached_share: float = 0.0
    max_tokens: int | None = 4_096
    on_refusal: Literal["retry", "queue"] = "retry"
    retries: int = 2
    backoff: float = 0.5
    backoff_cap: float = 8.0
    retry_after: bool = False
    wait_seconds: float = 30.0
    queued: int = 10_000
    refuse_early: bool = True

    @property
    def limited(self) -> bool:
        """Whether the simulation has a quota."""
        return self.limits is not None and self.limits.any

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that a call is tried on, in order: provisioned throughput, the model, fallbacks."""
        found = [Endpoint(name=self.name, limits=self.limits or ModelLimits()), *self.fallbacks]
        if self.provisioned is not None:
            found.insert(0, Endpoint(name="provisioned throughput", limits=self.provisioned))
        return tuple(found)

    def bound(self, limits: ModelLimits) -> float:
        """The bound of a call's output under these limits."""
        return float(limits.greatest_output if self.max_tokens is None else self.max_tokens)


def part_of_quota(model: ModelUse, parts: float) -> ModelUse:
    """The model's use by one of so many equal parts of a system, with its part of the quotas."""

    def less(limits: ModelLimits) -> ModelLimits:
        return structs.replace(limits, factor=limits.factor / parts)

    if model.limits is None:
        return model
    return structs.replace(
        model,
        limits=less(model.limits),
        provisioned=None if model.provisioned is None else less(model.provisioned),
        fallbacks=tuple(
            structs.replace(each, limits=less(each.limits)) for each in model.fallbacks
        ),
        queued=math.ceil(model.queued / parts),
    )


def check_model(model: ModelUse) -> None:
    """Raise ConfigError, naming the field, if a value is invalid."""
    if not 0 <= model.cached_share <= 1:
        raise ConfigError(f"model.cached_share: {model.cached_share:g} is not from 0 to 1")
    if model.max_tokens is not None and model.max_tokens < 1:
        raise ConfigError("model.max_tokens: must be at least 1")
    check_amounts(
        "model",
        backoff=model.backoff,
        backoff_cap=model.backoff_cap,
        wait_seconds=model.wait_seconds,
    )
    if not 0 <= model.retries <= 20:
        raise ConfigError("model.retries: must be from 0 to 20")
    if not 0 <= model.queued <= 1_000_000:
        raise ConfigError("model.queued: must be from 0 to 1,000,000")
    if len(model.fallbacks) > 4:
        raise ConfigError("model.fallbacks: more than 4")
    if model.limits is None and (model.provisioned is not None or model.fallbacks):
        raise ConfigError("model: provisioned throughput and fallbacks need a quota of the model")
    _check_limits(model.limits, "model")
    _check_limits(model.provisioned, "model.provisioned")
    for at, each in enumerate(model.fallbacks):
        _check_limits(each.limits, f"model.fallbacks.{at}")
        if not (math.isfinite(each.slower) and each.slower > 0):
            raise ConfigError(f"model.fallbacks.{at}.slower: must be more than 0")


def _check_limits(limits: ModelLimits | None, where: str) -> None:
    if limits is None:
        return
    names = ("tokens_a_minute", "input_tokens_a_minute", "output_tokens_a_minute")
    for name in (*names, "requests_a_minute", "concurrent"):
        value = getattr(limits, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{where}.{name}: must be more than 0")
    for name in ("burndown", "burst_seconds", "request_burst_seconds", "factor"):
        value = getattr(limits, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{where}.{name}: must be more than 0")
    if limits.greatest_output < 1:
        raise ConfigError(f"{where}.greatest_output: must be at least 1")
