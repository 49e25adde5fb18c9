"""What a model call reserves of a quota, and what it has used in the end. Pure.

Providers count differently: see `QuotaSettings.reserve`. The tokens of a prompt are estimated from
its size in bytes, by a ratio that is learned from what providers report; no tokenizer is needed.
"""

from collections.abc import Iterable
from typing import Literal

from seawall.settings import QuotaSettings
from seawall.turn import Usage

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "INPUT",
    "OUTPUT",
    "REQUESTS",
    "TOKENS",
    "Average",
    "Reservations",
    "Rule",
    "rule_of",
]

REQUESTS, TOKENS, INPUT, OUTPUT = "requests", "tokens", "input_tokens", "output_tokens"
DEFAULT_MAX_TOKENS = 4_096
"""Bound on completion tokens of a call without one: providers reserve the model's maximum else."""

Rule = Literal["input+max_tokens", "larger", "usage"]

# Of each kind of model. Bedrock: AWS's user guide, page quotas-token-burndown; OpenAI:
# platform.openai.com/docs/guides/rate-limits; Anthropic: docs.anthropic.com/en/api/rate-limits.
_RULES: dict[str, Rule] = {
    "bedrock": "input+max_tokens",
    "openai": "larger",
    "responses": "larger",
    "anthropic": "usage",
}
_FIRST_TOKENS_PER_BYTE = 1 / 3
_LEAST_TOKENS_PER_BYTE = 1 / 16
_FIRST_COMPLETION = 256.0
_DEVIATIONS = 3.0
_LEAST_DEVIATION = 0.01  # of the mean
_WEIGHT = 0.05


class Average:
    """Mean and mean deviation of a series, as of round-trip times (Jacobson, SIGCOMM 1988).

    Attributes:
        mean: Of the first values the arithmetic mean, then a moving average.
        deviation: The moving average of the distances from the mean.
    """

    __slots__ = ("_count", "deviation", "mean")

    def __init__(self, first: float) -> None:
        """Begin with a guess, which the first value replaces."""
        self.mean = first
        self.deviation = 0.0
        self._count = 0

    def add(self, value: float) -> None:
        """Add a value."""
        self._count += 1
        weight = max(_WEIGHT, 1 / self._count)
        distance = value - self.mean if self._count > 1 else 0.0
        self.mean += weight * (value - self.mean)
        self.deviation += weight * (abs(distance) - self.deviation)

    @property
    def high(self) -> float:
        """A value that few exceed: three deviations above the mean, each of at least 1 %."""
        return self.mean + _DEVIATIONS * max(self.deviation, _LEAST_DEVIATION * self.mean)


def rule_of(settings: QuotaSettings, kinds: Iterable[str]) -> Rule:
    """The rule of a quota: as configured, or that of the models' kind.

    Args:
        settings: Of the quota.
        kinds: Of the models that use it; of several kinds, the rule that reserves most.
    """
    if settings.reserve != "auto":
        return settings.reserve
    rules = {_RULES.get(kind, "input+max_tokens") for kind in kinds}
    return rules.pop() if len(rules) == 1 else "input+max_tokens"


class Reservations:
    """The rule of one quota, and the estimates that it needs."""

    def __init__(self, settings: QuotaSettings, rule: Rule) -> None:
        """Create it without experience.

        Args:
            settings: Of the quota.
            rule: How the provider counts.
        """
        self._rule = rule
        self._burndown = settings.burndown
        self._kept = settings.returned == "nothing" or (
            settings.returned == "auto" and rule == "larger"
        )
        self._ratio = Average(_FIRST_TOKENS_PER_BYTE)
        self._completion = Average(_FIRST_COMPLETION)

    def input_tokens(self, prompt_bytes: int) -> int:
        """Estimate the tokens of a prompt; rather too many than too few."""
        return int(prompt_bytes * max(_LEAST_TOKENS_PER_BYTE, min(1.0, self._ratio.high))) + 1

    def reserve(self, prompt_bytes: int, max_tokens: int) -> dict[str, int]:
        """What the provider deducts when it admits the call, by measure.

        Args:
            prompt_bytes: Size of the prompt.
            max_tokens: The call's limit of completion tokens.
        """
        prompt = self.input_tokens(prompt_bytes)
        if self._rule == "input+max_tokens":
            output, tokens = max_tokens, prompt + max_tokens
        elif self._rule == "larger":
            output, tokens = max_tokens, max(prompt, max_tokens)
        else:
            output = min(max_tokens, int(self._completion.high) + 1)
            tokens = prompt + round(output * self._burndown)
        return {REQUESTS: 1, TOKENS: tokens, INPUT: prompt, OUTPUT: output}

    def typical(self, prompt_bytes: int, calls: int) -> dict[str, int] | None:
        """What calls are expected to have used in the end; None: all that they have reserved.

        Args:
            prompt_bytes: Size of their prompts together.
            calls: Their number.
        """
        if self._kept:
            return None
        output = int(calls * self._completion.mean) + calls
        prompt = int(prompt_bytes * min(1.0, self._ratio.mean)) + calls
        tokens = prompt + round(output * self._burndown)
        return {REQUESTS: calls, TOKENS: tokens, INPUT: prompt, OUTPUT: output}

    def used(self, usage: Usage) -> dict[str, int] | None:
        """What the provider counts for a call that has ended; None: all that it has reserved.

        Tokens read from its prompt cache do not count.
        """
        if self._kept:
            return None
        prompt = max(0, usage.prompt_tokens - usage.cached_prompt_tokens)
        output = usage.completion_tokens
        tokens = prompt + round(output * self._burndown)
        return {REQUESTS: 1, TOKENS: tokens, INPUT: prompt, OUTPUT: output}

    def learn(self, prompt_bytes: int, usage: Usage) -> None:
        """Learn from what a provider reports of a call."""
        if prompt_bytes and usage.prompt_tokens:
            self._ratio.add(min(1.0, usage.prompt_tokens / prompt_bytes))
        if usage.completion_tokens:
            self._completion.add(usage.completion_tokens)
