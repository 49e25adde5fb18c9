"""How the measures of a quota refill. Pure; time is passed in."""

from msgspec import Struct

from seawall.budgets.reservation import INPUT, OUTPUT, REQUESTS, TOKENS
from seawall.settings import QuotaSettings

__all__ = ["Refill", "refills_of"]


class Refill(Struct, frozen=True):
    """How one measure of a quota refills.

    Attributes:
        per_minute: The limit.
        capacity: What can be taken at once.
        window: Seconds between refills of the whole capacity; 0: it flows in all the time.
    """

    per_minute: int
    capacity: int
    window: float = 0.0

    def allowed(self, now: float) -> int:
        """What may have been taken altogether until `now`, in Unix seconds."""
        if self.window:
            return self.capacity * (int(now / self.window) + 1)
        return self.capacity + self.per_minute * int(now * 1_000) // 60_000

    def floor(self, now: float) -> int:
        """What counts as taken at least: a bucket is not more than full."""
        return self.allowed(now) - self.capacity

    def allowed_at(self, total: int) -> float:
        """From when on, in Unix seconds, `total` may have been taken."""
        if self.window:
            return max(0, -(-total // self.capacity) - 1) * self.window
        return -(-max(0, total - self.capacity) * 60_000 // self.per_minute) / 1_000


def refills_of(settings: QuotaSettings) -> dict[str, Refill]:
    """The refills of a quota, by the measures that it limits."""
    limits = {
        REQUESTS: settings.requests_per_minute,
        TOKENS: settings.tokens_per_minute,
        INPUT: settings.input_tokens_per_minute,
        OUTPUT: settings.output_tokens_per_minute,
    }
    seconds, window = settings.burst_seconds, settings.refill == "window"
    return {
        name: Refill(limit, max(1, int(limit * seconds / 60)), seconds if window else 0.0)
        for name, limit in limits.items()
        if limit
    }
