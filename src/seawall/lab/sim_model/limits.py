"""The limits of a simulated provider: quotas a minute, concurrency, slowness under load.

Each model name has its own, as with real providers. Time comes in as an argument.
"""

import math

from msgspec import Struct

__all__ = ["LimitExceeded", "Limits", "Quota", "SimLimits", "TokenBucket"]


class SimLimits(Struct, frozen=True):
    """What a provider allows each model; 0 for no limit.

    requests_per_minute, tokens_per_minute: token buckets that hold a minute's worth.
    slow_above: with more streams than that, times stretch in proportion: twice as many, twice as
    long. max_concurrent: more are refused.
    """

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    slow_above: int = 0
    max_concurrent: int = 0

    @property
    def none(self) -> bool:
        """Whether nothing is limited."""
        return not any(
            (
                self.requests_per_minute,
                self.tokens_per_minute,
                self.slow_above,
                self.max_concurrent,
            )
        )


class TokenBucket:
    """Full at the start, refilled evenly; holds what flows in a minute.

    Source: token bucket as in Tanenbaum, Computer Networks §5.3.
    """

    __slots__ = ("_at", "_level", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._level = float(capacity)
        self._at = 0.0

    def level(self, now: float) -> float:
        """What is in it."""
        flowed = max(0.0, now - self._at) * self.capacity / 60.0
        self._level = min(float(self.capacity), self._level + flowed)
        self._at = max(self._at, now)
        return self._level

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until `amount` is in it; infinite for more than it holds."""
        if amount > self.capacity:
            return math.inf
        return max(0.0, amount - self.level(now)) * 60.0 / self.capacity

    def take(self, amount: float, now: float) -> None:
        """Take out what `seconds_until` has said is there."""
        self._level = self.level(now) - amount


class LimitExceeded(Struct, frozen=True):
    """Why a request is refused: which limit, and for how many seconds (infinite: always)."""

    limit: str
    seconds: float


class Quota(Struct, frozen=True):
    """What is left of one bucket after a request; reset: seconds until it is full again."""

    limit: int
    remaining: int
    reset: float


class Limits:
    """The present state of the limits of one model name."""

    def __init__(self, limits: SimLimits) -> None:
        self._limits = limits
        self._requests = TokenBucket(limits.requests_per_minute)
        self._tokens = TokenBucket(limits.tokens_per_minute)
        self.open = 0

    def admit(self, tokens: int, now: float) -> LimitExceeded | None:
        """Take a request of so many tokens out of the quotas, or say why not.

        A refused one takes nothing. Who is admitted and answered with a stream counts in `open`
        from then on; its owner counts it.
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

    def stretch(self) -> float:
        """By how much times are longer now, at least 1."""
        above = self._limits.slow_above
        return max(1.0, self.open / above) if above else 1.0

    def quotas(self, now: float) -> dict[str, Quota]:
        """What is left, by "requests" and "tokens", as far as they are limited."""
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
