"""Retries: exponential backoff with jitter, and a retry budget."""

__all__ = ["RetryBudget", "full_jitter"]


def full_jitter(attempt: int, *, base: float, cap: float, chance: float) -> float:
    """Return the seconds to wait before a retry: exponential backoff with full jitter.

    Spread over the whole interval, callers that failed together do not return together.

    Args:
        attempt: Number of the failed attempt, 1 for the first.
        base: Longest wait after the first attempt, in seconds; doubles with each attempt.
        cap: Longest wait of all, in seconds.
        chance: Random number in [0, 1).

    Source: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    # The exponent is bounded before it is raised: 2.0 ** 1024 is an OverflowError.
    return chance * min(cap, base * 2.0 ** min(attempt - 1, 64))


class RetryBudget:
    """Token bucket that bounds all retries together.

    Retries spend tokens, successes return them, and time slowly refills the bucket. While an
    upstream mostly works, the bucket is full and every retry is permitted. When it is down, the
    bucket is empty after `capacity / cost` retries, and from then on failures are final: the load
    on the struggling upstream stays near that of first attempts alone.

    The capacity, and the costs that callers pass, are those of the AWS SDKs' standard mode
    (botocore/retries/quota.py and standard.py, 1.43); the refill by time is that of Finagle's
    RetryBudget (https://twitter.github.io/finagle/guide/Clients.html#retries).
    """

    __slots__ = ("_at", "_capacity", "_refill_per_second", "_tokens")

    def __init__(
        self,
        *,
        capacity: float = 500.0,
        refill_per_second: float = 5.0,
        tokens: float | None = None,
    ) -> None:
        """Create a budget.

        Args:
            capacity: Tokens of a full bucket.
            refill_per_second: Tokens that time adds, so that retries return after an outage
                without traffic.
            tokens: Initial tokens; None for a full bucket.
        """
        if capacity < 0 or refill_per_second < 0:
            raise ValueError("a retry budget cannot be negative")
        self._capacity = capacity
        self._refill_per_second = refill_per_second
        self._tokens = capacity if tokens is None else min(tokens, capacity)
        self._at: float | None = None

    def spend(self, cost: float, *, at: float) -> bool:
        """Pay for a retry; return whether it is permitted. `at` is on any monotonic clock."""
        self._refill(at)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def deposit(self, amount: float, *, at: float) -> None:
        """Return tokens after a success: the cost of its last retry, or one without a retry."""
        self._refill(at)
        self._tokens = min(self._capacity, self._tokens + amount)

    def tokens(self, *, at: float) -> float:
        """Return the tokens that are left."""
        self._refill(at)
        return self._tokens

    def _refill(self, at: float) -> None:
        if self._at is None or at < self._at:
            self._at = at
            return
        gained = (at - self._at) * self._refill_per_second
        self._tokens = min(self._capacity, self._tokens + gained)
        self._at = at
