"""A bound on all retries together: when everything fails, nobody should try everything thrice."""

__all__ = ["RetryBudget"]


class RetryBudget:
    """A bucket of tokens that retries spend, successes give back, and time slowly refills.

    While an upstream mostly works the bucket is full and every retry is granted. When it is down
    the bucket empties within `capacity / cost` retries, and from then on a failure is final at
    once: the load on what is struggling stays near that of first attempts alone.

    capacity: tokens of a full bucket. refill_per_second: so that after an outage without any
    traffic there are retries again. tokens: those it begins with; None for a full bucket.
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
        if capacity < 0 or refill_per_second < 0:
            raise ValueError("a retry budget cannot be negative")
        self._capacity = capacity
        self._refill_per_second = refill_per_second
        self._tokens = capacity if tokens is None else min(tokens, capacity)
        self._at: float | None = None

    def spend(self, cost: float, *, at: float) -> bool:
        """Whether a retry of this cost may be made; if so, it is paid. `at`: any steady clock."""
        self._refill(at)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def deposit(self, amount: float, *, at: float) -> None:
        """A call succeeded: return what its last retry cost, or one token if it needed none."""
        self._refill(at)
        self._tokens = min(self._capacity, self._tokens + amount)

    def tokens(self, *, at: float) -> float:
        """How many are left."""
        self._refill(at)
        return self._tokens

    def _refill(self, at: float) -> None:
        if self._at is None or at < self._at:
            self._at = at
            return
        gained = (at - self._at) * self._refill_per_second
        self._tokens = min(self._capacity, self._tokens + gained)
        self._at = at
