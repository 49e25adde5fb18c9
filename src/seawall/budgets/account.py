"""What one process knows of a provider account: what is left, what calls reserve, who was refused.

Decides nothing about who goes first: that is `Quota`.
"""

import asyncio
import random
from collections.abc import Mapping

from msgspec import Struct

from seawall.admission.queue import Ticket
from seawall.budgets.refill import refills_of
from seawall.budgets.reservation import (
    DEFAULT_MAX_TOKENS,
    INPUT,
    OUTPUT,
    REQUESTS,
    TOKENS,
    Average,
    Reservations,
    Rule,
)
from seawall.budgets.shared_bucket import SharedBucket
from seawall.errors import UpstreamRefused
from seawall.settings import QuotaSettings
from seawall.turn import Usage

__all__ = ["Account", "CallSize", "QuotaPermit"]

_FIRST_BACKOFF = 1.0
_LONGEST_PAUSE = 60.0


class CallSize(Struct, frozen=True):
    """Size of a call: bytes of its prompt, and its limit of completion tokens."""

    prompt_bytes: int
    max_tokens: int = DEFAULT_MAX_TOKENS


class QuotaPermit(Struct, eq=False):
    """What a call reserved.

    Attributes:
        reserved: Amounts of the measures that are limited.
        prompt_bytes: Size of the prompt.
        ticket: Its place among the calls of all tenants.
        window: In which it was reserved.
        at: When it was admitted, on the event loop's clock.
    """

    reserved: dict[str, int]
    prompt_bytes: int
    ticket: Ticket
    window: int = 0
    at: float = 0.0


class Account:
    """Reservations of the calls in flight, and pauses that the provider asks for.

    Attributes:
        bucket: What is left.
        shared: The measure that tenants share: what is most likely to be short.
        shared_limit: Its limit a minute.
        call_seconds: How long calls take.
        calls: In flight.
    """

    def __init__(
        self, name: str, settings: QuotaSettings, rule: Rule, bucket: SharedBucket
    ) -> None:
        """Create it without calls.

        Args:
            name: Name of the quota in the configuration.
            settings: Its limits.
            rule: How the provider counts.
            bucket: What is left.
        """
        self._name = name
        self._refills = refills_of(settings)
        self._rule = Reservations(settings, rule)
        self.bucket = bucket
        self.shared = next(
            each for each in (TOKENS, OUTPUT, INPUT, REQUESTS) if each in self._refills
        )
        self.shared_limit = self._refills[self.shared].per_minute
        self.call_seconds = Average(0.0)
        self.calls = 0
        self._bytes = 0  # of their prompts
        self._in_flight = dict.fromkeys(self._refills, 0)  # reserved by them
        self._paused_at = self._paused_until = 0.0  # on the event loop's clock
        self._refusals = 0  # in a row, of calls that began after one another

    @property
    def pause(self) -> float:
        """Seconds until calls may be made, because the provider has refused one."""
        if not self._paused_until:
            return 0.0
        left = self._paused_until - asyncio.get_running_loop().time()
        if left <= 0:
            self._paused_until = 0.0
        return max(0.0, left)

    def needs(self, size: CallSize) -> dict[str, int]:
        """What a call reserves, of the measures that are limited.

        Raises:
            UpstreamRefused: It can never be admitted.
        """
        reserved = self._rule.reserve(size.prompt_bytes, size.max_tokens)
        needs = {}
        for measure, refill in self._refills.items():
            needs[measure] = need = reserved[measure]
            if need > refill.capacity:
                needs[measure] = self._shortened(measure, reserved[OUTPUT], size)
        return needs

    def _shortened(self, measure: str, output: int, size: CallSize) -> int:
        """What is reserved of a call that exceeds the quota by its estimate: all that there is.

        Raises:
            UpstreamRefused: It exceeds it for certain.
        """
        capacity = self._refills[measure].capacity
        if measure != INPUT and output == size.max_tokens > capacity:
            raise UpstreamRefused(
                f"The call may write {size.max_tokens:,} tokens, and the quota '{self._name}' "
                f"never has more than {capacity:,}: the agent needs a lower limit of completion "
                "tokens."
            )
        return capacity

    def fits(self, needs: Mapping[str, int]) -> bool:
        """Whether a call could be made now."""
        return not self.pause and self.bucket.fits(needs)

    def take(self, needs: Mapping[str, int]) -> bool:
        """Take what a call needs, if it is free and the provider has not asked for a pause."""
        return not self.pause and self.bucket.take(needs)

    def begin(self, permit: QuotaPermit) -> None:
        """A call begins; what it needs was taken."""
        permit.at = asyncio.get_running_loop().time()
        permit.window = self.bucket.number
        self._count_in_flight(permit, 1)

    def end(self, permit: QuotaPermit, back: Mapping[str, int]) -> None:
        """A call has ended, or was not made; `back` is returned."""
        self._count_in_flight(permit, -1)
        if back:
            self.bucket.give(back, permit.window)

    def unused(self, permit: QuotaPermit, usage: Usage | None) -> dict[str, int]:
        """What a call that has ended did not use; negative where it used more.

        Args:
            permit: Of the call.
            usage: As the provider reports it; None if it is unknown: then the reservation stays.
        """
        if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
            return {}
        self._rule.learn(permit.prompt_bytes, usage)
        self.call_seconds.add(asyncio.get_running_loop().time() - permit.at)
        if permit.at >= self._paused_at:
            self._refusals = 0
        used = self._rule.used(usage)
        if used is None:
            return {}
        return {name: each - used[name] for name, each in permit.reserved.items()}

    def record_throttled(self, permit: QuotaPermit, retry_after: float | None) -> None:
        """The provider refused a call: pause all, longer when it refuses those after the pause.

        Calls that were in flight before a pause say nothing new.

        Args:
            permit: Of the call.
            retry_after: Seconds that the provider asks for.
        """
        now = asyncio.get_running_loop().time()
        pause = retry_after or 0.0
        if permit.at >= self._paused_at:
            if retry_after is None or self._refusals:
                pause = max(pause, _FIRST_BACKOFF * 2.0 ** min(self._refusals, 6))
            self._refusals += 1
            self._paused_at = now
        pause = min(pause, _LONGEST_PAUSE) * (1.0 + 0.1 * random.random())  # noqa: S311 - no secret
        self._paused_until = max(self._paused_until, now + pause)

    def expected(self, needs: Mapping[str, int], prompt_bytes: int, ahead: int) -> float:
        """Seconds until a call is admitted behind others, if no other process takes anything.

        Those ahead use what a call typically uses: what they reserve beyond is returned, as is what
        calls in flight have reserved beyond.
        """
        longest = self.pause
        if not self.bucket.read_at and not self.bucket.degraded:
            return longest
        typical = self._rule.typical(prompt_bytes, 1)
        running = self._rule.typical(self._bytes, self.calls)
        for measure, need in needs.items():
            short = need - self.bucket.left(measure)
            if typical is not None and running is not None:
                short += ahead * min(need, typical[measure])
                short -= max(0, self._in_flight[measure] - running[measure])
            else:
                short += ahead * need
            if short > 0:
                longest = max(longest, short * 60.0 / self._refills[measure].per_minute)
        return longest

    def _count_in_flight(self, permit: QuotaPermit, sign: int) -> None:
        self.calls += sign
        self._bytes += sign * permit.prompt_bytes
        for measure, amount in permit.reserved.items():
            self._in_flight[measure] += sign * amount
