"""Discipline of calls to one upstream of tools: limits, deadlines, retries, circuit breaker.

Calls that wait for one upstream hold nothing that calls to another need.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Literal

from seawall.resilience import (
    BreakerState,
    CircuitBreaker,
    ConcurrencyLimiter,
    RetryBudget,
    full_jitter,
)
from seawall.tools.port import ToolOutcome
from seawall.tools.settings import SourceLimits
from seawall.turn import Principal

__all__ = ["FaultKind", "Payer", "ToolUpstream", "UpstreamFault", "after_sending"]

_log = logging.getLogger("seawall.tools")
_BUDGET_CAPACITY = 100.0
_BUDGET_AT_START = 5.0
_MARGIN_SECONDS = 0.1
_LONGEST_PAUSE = 300.0  # whatever the upstream asks for
_MOST_PAUSED = 10_000  # payers

Payer = Principal | str | None
"""Whose credentials a call has: a subject's, a tenant's, or the common ones."""

FaultKind = Literal["unreachable", "throttled", "failed", "late", "broken", "refused"]
"""How an attempt failed: no connection; 429 or 503; another server error; no answer in time; a
connection or an answer that broke off; credentials that are missing or were not accepted."""

_UPSTREAM_FAULTS = ("unreachable", "failed", "late", "broken")
_NOT_DONE = ("unreachable", "throttled", "refused")


class UpstreamFault(Exception):
    """One attempt at a call failed.

    Attributes:
        kind: How.
        detail: For the log; without secrets.
        retry_after: Seconds that the upstream asked for; None if it did not.
        sent: Whether what was asked for may have been done.
    """

    def __init__(
        self,
        kind: FaultKind,
        detail: str,
        *,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(detail)
        self.kind: FaultKind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.sent = sent and kind not in _NOT_DONE

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@contextmanager
def after_sending() -> Generator[None, None, None]:
    """A block after something was sent: whatever fails in it, that may have been done."""
    try:
        yield
    except UpstreamFault as fault:
        fault.sent = True
        raise


class ToolUpstream:
    """The calls to one upstream in this process.

    Attributes:
        name: Of the table in the configuration.
        attempts: Number of attempts by how they ended: "answered", or a `FaultKind`; "left" if the
            caller went away.
    """

    def __init__(
        self,
        name: str,
        limits: SourceLimits,
        *,
        payer: Callable[[Principal | None], Payer] = lambda _: None,
    ) -> None:
        """Create it without calls.

        Args:
            name: Of the table in the configuration.
            limits: See `SourceLimits`.
            payer: With whose credentials it is called for a principal: a pause that it asks for is
                theirs.
        """
        self.name = name
        self.limits = limits
        self.attempts: Counter[str] = Counter()
        self._breaker = CircuitBreaker(
            failure_rate=limits.failure_rate,
            window_seconds=limits.window_seconds,
            min_calls=limits.min_calls,
            open_seconds=limits.open_seconds,
            probes=limits.probes,
        )
        self._limiter = ConcurrencyLimiter(limits.concurrency)
        self._retries = RetryBudget(
            capacity=_BUDGET_CAPACITY, refill_per_second=0.0, tokens=_BUDGET_AT_START
        )
        self._next_at = 0.0  # of the rate limit
        self._payer = payer
        self._paused_until: dict[Payer, float] = {}

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        return self._limiter.in_flight

    @property
    def limit(self) -> int:
        """Calls that may be in flight."""
        return self._limiter.limit

    def state(self) -> BreakerState:
        """State of the circuit breaker."""
        return self._breaker.state(at=asyncio.get_running_loop().time())

    async def call(
        self,
        attempt: Callable[[float], Awaitable[ToolOutcome]],
        *,
        deadline: float,
        read: bool,
        principal: Principal | None = None,
    ) -> ToolOutcome:
        """Make a call, in one attempt or several.

        Args:
            attempt: Makes one attempt until the time that it gets, on the event loop's clock;
                raises `UpstreamFault`.
            deadline: Of the whole call.
            read: Whether it may be repeated although it may have arrived.
            principal: For whom.

        Raises:
            UpstreamFault: The last attempt's; or the call was not made.
        """
        clock = asyncio.get_running_loop().time
        self._retries.deposit(self.limits.retry_budget, at=clock())
        tried = 0
        arrived = False
        while True:
            try:
                return await self._attempt(attempt, deadline, principal)
            except UpstreamFault as fault:
                tried += 1
                arrived = arrived or fault.sent
                fault.sent = arrived
                pause = self._pause_before_retry(fault, tried, read=read)
                if pause is None or clock() + pause >= deadline:
                    raise
                if not self._retries.spend(1.0, at=clock()):
                    raise
                await asyncio.sleep(pause)

    def _pause_before_retry(self, fault: UpstreamFault, tried: int, *, read: bool) -> float | None:
        """Seconds until the next attempt; None for none."""
        if tried >= self.limits.attempts or fault.kind in ("refused", "late"):
            return None
        if isinstance(fault, _NotCalled) or (fault.sent and not read):
            return None
        asked = fault.retry_after or 0.0
        if asked > self.limits.answer_seconds:
            return None  # the model reads when it may work again, instead of a turn that waits
        jitter = full_jitter(
            tried,
            base=self.limits.backoff_seconds,
            cap=self.limits.answer_seconds,
            chance=random.random(),  # noqa: S311 - jitter, not a secret
        )
        return max(jitter, asked)

    async def _attempt(
        self,
        attempt: Callable[[float], Awaitable[ToolOutcome]],
        deadline: float,
        principal: Principal | None,
    ) -> ToolOutcome:
        loop = asyncio.get_running_loop()
        payer = self._payer(principal)
        ticket = await self._acquire(deadline, payer)
        ended: str = "left"
        try:
            now = loop.time()
            until = min(deadline, now + self.limits.answer_seconds)
            # What the attempt waits for says better than its end whether anything was sent.
            within = until - min(_MARGIN_SECONDS, max(0.0, until - now) / 10)
            try:
                async with asyncio.timeout_at(until):
                    outcome = await attempt(within)
            except TimeoutError:
                raise UpstreamFault("late", "there was no answer in time") from None
            ended = "answered"
        except UpstreamFault as fault:
            ended = fault.kind
            if fault.kind == "throttled" and fault.retry_after:
                self._pause(payer, loop.time(), min(fault.retry_after, _LONGEST_PAUSE))
            raise
        else:
            return outcome
        finally:
            self._limiter.release()
            self.attempts[ended] += 1
            self._record(ticket, ended, loop.time())

    def _pause(self, payer: Payer, now: float, seconds: float) -> None:
        """Call it no more for a while with the credentials of one payer."""
        paused = self._paused_until
        if len(paused) >= _MOST_PAUSED:
            self._paused_until = paused = {key: end for key, end in paused.items() if end > now}
            while len(paused) >= _MOST_PAUSED:
                del paused[next(iter(paused))]
        paused[payer] = max(paused.get(payer, 0.0), now + seconds)

    async def _acquire(self, deadline: float, payer: Payer) -> int:
        """Wait for the right to make an attempt; the ticket of the circuit breaker.

        Raises:
            UpstreamFault: The attempt is not made.
        """
        clock = asyncio.get_running_loop().time
        now = clock()
        self._check(now)
        until = min(deadline, now + self.limits.wait_seconds)
        paused_until = self._paused_until.get(payer, 0.0) if self._paused_until else 0.0
        if paused_until > now:
            if paused_until > until:
                raise _NotCalled("throttled", "it asked for a pause", paused_until - now)
            await asyncio.sleep(paused_until - now)
        await self._pace(until)
        if not self._limiter.try_acquire() and not await self._limiter.acquire(until):
            raise _NotCalled("throttled", f"{self.limit} calls are in flight already", 1.0)
        ticket = self._breaker.acquire(at=clock())
        if ticket is None:
            self._limiter.release()
            raise _NotCalled("unreachable", "its circuit breaker is open")
        return ticket

    def _check(self, now: float) -> None:
        if self._breaker.state(at=now) == "open":
            raise _NotCalled(
                "unreachable", "its circuit breaker is open", self._breaker.retry_after(at=now)
            )

    async def _pace(self, until: float) -> None:
        """Wait for the rate limit; calls are spread evenly."""
        if self.limits.rate_per_second is None:
            return
        now = asyncio.get_running_loop().time()
        at = max(self._next_at, now)
        if at > until:
            raise _NotCalled("throttled", "the configured rate is used up", at - now)
        self._next_at = at + 1.0 / self.limits.rate_per_second
        if at > now:
            await asyncio.sleep(at - now)

    def _record(self, ticket: int, ended: str, now: float) -> None:
        if ended not in ("answered", *_UPSTREAM_FAULTS):
            self._breaker.discard(ticket)
            return
        changed = self._breaker.record(ticket, failed=ended != "answered", at=now)
        if changed == "open":
            _log.warning(
                "tools of %s keep failing: circuit breaker open for %.1f s",
                self.name,
                self._breaker.retry_after(at=now),
            )
        elif changed == "closed":
            _log.warning("tools of %s have recovered: circuit breaker closed", self.name)


class _NotCalled(UpstreamFault):
    """The upstream was not called at all; a retry at once would not be either."""

    def __init__(self, kind: FaultKind, detail: str, retry_after: float | None = None) -> None:
        super().__init__(kind, detail, retry_after=retry_after, sent=False)
