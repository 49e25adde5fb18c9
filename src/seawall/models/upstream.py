"""State of one model endpoint: circuit breaker, adaptive concurrency limit, latency, pauses."""

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from seawall.errors import UpstreamThrottled, UpstreamUnavailable
from seawall.models import Model
from seawall.resilience import (
    BreakerState,
    CircuitBreaker,
    ConcurrencyLimiter,
    GradientLimit,
    RollingQuantile,
)
from seawall.settings import ResilienceSettings
from seawall.timers import TimingWheel

if TYPE_CHECKING:
    from seawall.budgets.quota import Quota

__all__ = ["CallPermit", "Outcome", "Upstream", "UpstreamBusy"]

_log = logging.getLogger("seawall.models")
_THROTTLED_IN_A_ROW = 5
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_LONGEST_RETRY_AFTER = 300.0  # of a pause without a probe, whatever the endpoint asks for
_OWN_LAG = 0.1
_PEAK_FADES = 0.999

Outcome = Literal["answered", "refused", "throttled", "failed", "late", "left"]
"""How a call to an upstream ended; `left`: the caller went away, or the outcome is unknown."""


class UpstreamBusy(UpstreamThrottled):
    """The endpoint was not called: no permit became free in time."""


class CallPermit(Struct):
    """The right to make one call; released with its outcome.

    Attributes:
        ticket: Of the circuit breaker.
        began: Event loop's clock when the call began.
    """

    ticket: int
    began: float


class Upstream:
    """One configured endpoint, and the state that this process measured by calling it.

    Every call needs a permit: of an adaptive concurrency limit, and of the circuit breaker.

    Attributes:
        attempts: Number of calls by how they ended.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        settings: ResilienceSettings,
        *,
        max_concurrency: int,
        wheel: TimingWheel,
        quota: "Quota | None" = None,
    ) -> None:
        """Create the state of an endpoint.

        Args:
            name: Name of the model in the configuration.
            model: The adapter.
            settings: Timeouts, retries, breaker and limits.
            max_concurrency: Calls in flight at most.
            wheel: Timers of the calls.
            quota: Of the provider's account, acquired before a call; None for none.
        """
        self.name = name
        self.model = model
        self.settings = settings
        self.wheel = wheel
        self.quota = quota
        self.attempts: Counter[str] = Counter()
        self._breaker = CircuitBreaker(
            failure_rate=settings.failure_rate,
            window_seconds=settings.window_seconds,
            min_calls=settings.min_calls,
            open_seconds=settings.open_seconds,
            probes=settings.probes,
        )
        self._limit = GradientLimit(minimum=settings.min_concurrency, maximum=max_concurrency)
        self._limiter = ConcurrencyLimiter(self._limit.limit)
        self._first_token = RollingQuantile(settings.hedge_quantile)
        self._throttled = 0  # calls in a row
        self._pauses = 0
        self._paused_until = 0.0
        self._peak = 0.0  # calls in flight lately, while it worked; decays

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        return self._limiter.in_flight

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return self._limiter.limit

    def state(self) -> BreakerState:
        """Return the state of the circuit breaker."""
        return self._breaker.state(at=asyncio.get_running_loop().time())

    def first_token_quantile(self) -> float | None:
        """Return the hedge quantile of the time to the first token, in seconds; None if unknown."""
        return self._first_token.value

    def try_acquire(self) -> CallPermit | None:
        """Return a permit if that needs no waiting."""
        now = asyncio.get_running_loop().time()
        if now < self._paused_until or not self._limiter.try_acquire():
            return None
        ticket = self._breaker.acquire(at=now)
        if ticket is None:
            self._limiter.release()
            return None
        return CallPermit(ticket, now)

    async def acquire(self, *, deadline: float) -> CallPermit:
        """Return a permit; waits for one as long as the settings allow.

        Raises:
            UpstreamUnavailable: The breaker is open.
            UpstreamThrottled: The endpoint asked for a pause, or no permit became free.
        """
        if (permit := self.try_acquire()) is not None:
            return permit
        clock = asyncio.get_running_loop().time
        now = clock()
        self._check(now)
        until = min(deadline, now + self.settings.permit_wait_seconds)
        if self._paused_until > now:
            if self._paused_until >= until:
                raise self._busy(self._paused_until - now)
            await asyncio.sleep(self._paused_until - now)
        if not self._limiter.try_acquire() and not await self._limiter.acquire(until):
            raise self._busy(1.0)
        now = clock()
        ticket = self._breaker.acquire(at=now)
        if ticket is None:
            self._limiter.release()
            raise self._unavailable(now)
        return CallPermit(ticket, now)

    def record_first_event(self, permit: CallPermit) -> None:
        """Record the time to the first event of an answer."""
        now = asyncio.get_running_loop().time()
        self._throttled = self._pauses = 0
        self._first_token.add(now - permit.began)
        if self.wheel.lag < _OWN_LAG:  # else it was this process that was slow
            self._limit.sample(now - permit.began, in_flight=self._limiter.in_flight)
            self._follow_limit()

    def release(
        self, permit: CallPermit, outcome: Outcome, *, retry_after: float | None = None
    ) -> None:
        """End a call.

        Args:
            permit: Of the call.
            outcome: How it ended.
            retry_after: Seconds that the endpoint asked for when it throttled the call.
        """
        now = asyncio.get_running_loop().time()
        self.attempts[outcome] += 1
        in_flight = self._limiter.in_flight
        if outcome in ("failed", "late"):
            self._record(permit, failed=True, at=now)
        elif outcome in ("answered", "refused"):
            self._peak = max(in_flight, self._peak * _PEAK_FADES)
            self._record(permit, failed=False, at=now)
        else:
            self._breaker.discard(permit.ticket)
        throttled = outcome == "throttled" and self.quota is None  # else the quota pauses the calls
        if throttled or outcome == "late":
            self._limit.record_drop(in_flight=in_flight, at=now)
            self._follow_limit()
        if throttled:
            self._throttled += 1
            if self._throttled >= _THROTTLED_IN_A_ROW:
                self._pause(now, retry_after)
        self._limiter.release()

    def _record(self, permit: CallPermit, *, failed: bool, at: float) -> None:
        changed = self._breaker.record(permit.ticket, failed=failed, at=at)
        if changed == "open":
            _log.warning(
                "model %s keeps failing: circuit breaker open for %.1f s",
                self.name,
                self._breaker.retry_after(at=at),
            )
        elif changed == "closed":
            _log.warning("model %s has recovered: circuit breaker closed", self.name)
            self._limit.restart(was=self._peak)
            self._follow_limit()

    def _pause(self, now: float, retry_after: float | None) -> None:
        """Pause calls to an endpoint that throttles all of them, longer each time."""
        if now < self._paused_until:
            return  # the call was in flight before the pause
        self._pauses += 1
        grown = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._pauses - 1, 10))
        self._paused_until = now + min(retry_after or grown, _LONGEST_RETRY_AFTER)

    def _follow_limit(self) -> None:
        self._limiter.limit = self._limit.limit
        self._limiter.admit_waiting()

    def _check(self, now: float) -> None:
        if self._breaker.state(at=now) == "open":
            raise self._unavailable(now)

    def _unavailable(self, now: float) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            f"The model '{self.name}' keeps failing: its circuit breaker is open.",
            retry_after=max(1.0, round(self._breaker.retry_after(at=now), 1)),
        )

    def _busy(self, seconds: float) -> "UpstreamBusy":
        return UpstreamBusy(
            f"The model '{self.name}' is at its concurrency limit.",
            retry_after=max(1.0, round(seconds, 1)),
        )
