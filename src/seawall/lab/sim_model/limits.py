"""Rate limits of the simulated model: quotas per minute, concurrency, slowdown under load.

Each model name has its own, as with real providers. Time is an argument.
"""

import math
from typing import Literal

from msgspec import Struct

__all__ = ["Charge", "LimitExceeded", "Limits", "Quota", "Reserve", "SimLimits", "TokenBucket"]

Reserve = Literal["larger", "input+max_tokens"]


class SimLimits(Struct, frozen=True):
    """Limits of each model name; 0 for none.

    Attributes:
        requests_per_minute: Capacity of a token bucket of one minute.
        tokens_per_minute: The same, for tokens.
        reserve: Tokens that are deducted when a request is admitted: the larger of its prompt and
            its limit of completion tokens, as OpenAI does; or both, as Amazon Bedrock does, which
            returns at the end what was not used.
        burndown: With "input+max_tokens", how many tokens a completion token counts in the end.
        unbounded: Completion tokens that a request without a limit may write.
        slow_above: Concurrent streams above which delays stretch in proportion.
        max_concurrent: Concurrent streams above which requests are refused.
    """

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    reserve: Reserve = "larger"
    burndown: float = 1.0
    unbounded: int = 64_000
    slow_above: int = 0
    max_concurrent: int = 0

    @property
    def none(self) -> bool:
        """Whether there is no limit."""
        return not any(
            (
                self.requests_per_minute,
                self.tokens_per_minute,
                self.slow_above,
                self.max_concurrent,
            )
        )


class TokenBucket:
    """A token bucket with a capacity of one minute, full at the start.

    Source: Tanenbaum, Computer Networks §5.3.
    """

    __slots__ = ("_at", "_level", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._at = 0.0

    def level(self, now: float) -> float:
        """The current level."""
        flowed = max(0.0, now - self._at) * self.capacity / 60.0
        self._level = min(float(self.capacity), self._level + flowed)
        self._at = max(self._at, now)
        return self._level

    def seconds_until(self, amount: float, now: float) -> float:
        """Seconds until `amount` is available; infinite if it exceeds the capacity."""
        if amount > self.capacity:
            return math.inf
        return max(0.0, amount - self.level(now)) * 60.0 / self.capacity

    def take(self, amount: float, now: float) -> None:
        """Take out an amount; a negative one is returned, up to the capacity."""
        self._level = min(float(self.capacity), self.level(now) - amount)


class Charge(Struct, frozen=True):
    """Tokens that were deducted for a request: all of them, and those of its prompt."""

    tokens: int
    prompt: int


class LimitExceeded(Struct, frozen=True):
    """A limit that a request exceeds, and for how many seconds (infinite: always)."""

    limit: str
    seconds: float


class Quota(Struct, frozen=True):
    """The state of one bucket; reset: seconds until it is full again."""

    limit: int
    remaining: int
    reset: float


class Limits:
    """The state of the limits of one model name."""

    def __init__(self, limits: SimLimits) -> None:
        self._limits = limits
        self._requests = TokenBucket(limits.requests_per_minute)
        self._tokens = TokenBucket(limits.tokens_per_minute)
        self.open = 0

    def admit(self, tokens: int, now: float) -> LimitExceeded | None:
        """Charge a request to the quotas, or return the limit that it exceeds.

        A refused request is charged nothing. The caller counts an admitted stream in `open`.
        """
        limits = self._limits
        if limits.max_concurrent and self.open >= limits.max_concurrent:
            return LimitExceeded("max-concurrent", 1.0)
        if limits.requests_per_minute and (wait := self._requests.seconds_until(1, now)):
            return LimitExceeded("requests-per-minute", wait)
        if limits.tokens_per_minute and (wait := self._tokens.seconds_until(tokens, now)):
            return LimitExceeded("tokens-per-minute", wait)
        if limits.requests_per_minute:
            self._requests.take(1, now)
        if limits.tokens_per_minute:
            self._tokens.take(tokens, now)
        return None

    def charge(self, prompt: int, limit: int) -> Charge:
        """What is deducted for a request.

        Args:
            prompt: Its tokens.
            limit: Its limit of completion tokens; 0 for none.
        """
        if self._limits.reserve == "larger":
            return Charge(max(prompt, limit), prompt)
        return Charge(prompt + (limit or self._limits.unbounded), prompt)

    def settle(self, charge: Charge, written: int, now: float) -> None:
        """Return what a request that has ended did not use, or deduct what it used beyond.

        Args:
            charge: Its deduction.
            written: Completion tokens.
            now: Seconds.
        """
        limits = self._limits
        if limits.tokens_per_minute and limits.reserve == "input+max_tokens":
            used = charge.prompt + limits.burndown * written
            self._tokens.take(used - charge.tokens, now)

    def stretch(self) -> float:
        """The factor by which delays are longer now, at least 1."""
        above = self._limits.slow_above
        return max(1.0, self.open / above) if above else 1.0

    def quotas(self, now: float) -> dict[str, Quota]:
        """The limited buckets, by "requests" and "tokens"."""
        buckets = {"requests": self._requests, "tokens": self._tokens}
        return {
            name: Quota(
                bucket.capacity,
                max(0, int(bucket.level(now))),
                bucket.seconds_until(bucket.capacity, now),
            )
            for name, bucket in buckets.items()
            if bucket.capacity
        }
