"""One attempt at an answer: deadlines, quota, concurrency permit, and a hedge where it is slow."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from seawall.errors import (
    DeadlineExceeded,
    Problem,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
)
from seawall.models.port import Finish, ModelEvent, ModelRequest, estimate_prompt_tokens
from seawall.models.upstream import CallPermit, Outcome, Upstream
from seawall.resilience import RetryBudget
from seawall.turn import Usage

if TYPE_CHECKING:
    from seawall.budgets.quota import Quota, QuotaPermit

__all__ = ["open_answer"]

# A call with less time than this says nothing about its upstream when the deadline passes.
_SLOW_QUANTILES = 3.0

_FirstEvent = tuple["Attempt", ModelEvent | None]


class UpstreamTimedOut(UpstreamFailed):
    """No event came from the endpoint within the time that the settings allow."""


class Attempt:
    """A stream of events with a timeout for each event.

    The owner calls `next` until it returns None or raises, and `close` in any case. One timer per
    attempt, re-armed only when it fires, serves all waits.
    """

    __slots__ = (
        "_cancelling",
        "_closed",
        "_due",
        "_expired",
        "_last_at",
        "_loop",
        "_outcome",
        "_permit",
        "_quota_permit",
        "_retry_after",
        "_stream",
        "_task",
        "_timeout",
        "_timer",
        "_upstream",
        "_usage",
        "begun",
    )

    def __init__(
        self,
        upstream: Upstream,
        permit: CallPermit,
        request: ModelRequest,
        deadline: float,
        quota_permit: "QuotaPermit | None" = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._upstream = upstream
        self._permit = permit
        self._stream: AsyncGenerator[ModelEvent, None] = upstream.model.stream(
            request, deadline=deadline
        )
        self._quota_permit = quota_permit
        self._usage: Usage | None = None
        self._outcome: Outcome = "left"
        self._retry_after: float | None = None
        self._closed = False
        self._timeout = upstream.settings.first_token_seconds
        self._last_at = permit.began
        self._due = math.inf
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False
        self.begun = False
        self._timer = upstream.wheel.call_at(permit.began + self._timeout, self._check_timeout)

    async def next(self) -> ModelEvent | None:
        """Return the next event; None after the last.

        Raises:
            UpstreamFailed: As `Model.stream`, and where no event came in time.
            DeadlineExceeded: The deadline of the whole call passed.
        """
        task = self._task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        # The wait begins now: the time that the reader took is not the upstream's.
        self._last_at = self._loop.time()
        self._due = self._last_at + self._timeout
        try:
            event = await anext(self._stream)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if self._expired and task is not None and task.uncancel() <= self._cancelling:
                self._outcome = "late"
                raise self._timeout_error() from None
            raise
        except UpstreamFailed as failure:
            self._outcome = _outcome_of(failure)
            self._retry_after = failure.retry_after
            raise
        except DeadlineExceeded:
            self._outcome = "late" if self._was_slow() else "left"
            raise
        finally:
            self._task = None
        if not self.begun:
            self._begin()
        if type(event) is Finish:
            self._outcome = "answered"
            self._usage = event.usage
        return event

    async def close(self) -> None:
        """End the call, and the upstream's connection if it is in the middle of an answer."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        try:
            await self._stream.aclose()
        finally:
            self._upstream.release(self._permit, self._outcome, retry_after=self._retry_after)
            if self._quota_permit is not None and self._upstream.quota is not None:
                self._settle(self._upstream.quota, self._quota_permit)

    def _settle(self, quota: "Quota", permit: "QuotaPermit") -> None:
        """Correct the quota by what was used; where that is unknown, the estimate stays."""
        usage = self._usage
        if usage is not None and (usage.prompt_tokens or usage.completion_tokens):
            used = usage.prompt_tokens + usage.completion_tokens
            quota.settle(permit, tokens=used, completion_tokens=usage.completion_tokens)
        elif not self.begun and self._outcome in ("refused", "throttled", "failed"):
            quota.settle(permit, tokens=0)

    def _begin(self) -> None:
        self.begun = True
        self._timeout = self._upstream.settings.between_tokens_seconds
        self._upstream.record_first_event(self._permit)
        self._timer.cancel()  # it was set for the first event, which may be allowed more time
        self._timer = self._upstream.wheel.call_at(
            self._loop.time() + self._timeout, self._check_timeout
        )

    def _check_timeout(self) -> None:
        """Time out, or re-arm the timer if another wait began meanwhile."""
        now = self._loop.time()
        lag = self._upstream.wheel.lag  # the loop was blocked: what came meanwhile is unread
        if self._task is None:
            self._due = now + self._timeout
        elif now >= self._due + lag:
            self._expired = True
            self._task.cancel()
            return
        self._timer = self._upstream.wheel.call_at(self._due + lag, self._check_timeout)

    def _was_slow(self) -> bool:
        quantile = self._upstream.first_token_quantile()
        waited = self._loop.time() - self._last_at
        return quantile is not None and waited > _SLOW_QUANTILES * quantile

    def _timeout_error(self) -> UpstreamTimedOut:
        what = "go on" if self.begun else "begin to answer"
        return UpstreamTimedOut(
            f"The model '{self._upstream.name}' did not {what} within {self._timeout:g} s."
        )


def _outcome_of(failure: UpstreamFailed) -> Outcome:
    if isinstance(failure, UpstreamThrottled):
        return "throttled"
    return "refused" if isinstance(failure, UpstreamRefused) else "failed"


@asynccontextmanager
async def open_answer(
    upstream: Upstream,
    request: ModelRequest,
    *,
    deadline: float,
    hedges: RetryBudget | None,
    quota_deadline: float,
) -> AsyncGenerator[_FirstEvent, None]:
    """Call an upstream; yield the attempt that answers, and its first event.

    Leaving the block ends the call.

    Args:
        upstream: The endpoint to call.
        request: What to send.
        deadline: Of the whole call, on the event loop's clock.
        hedges: Pays for a second request, which is sent when the first takes longer than most
            calls do. The one that answers first is used, the other is cancelled. None: no hedge.
        quota_deadline: Until when to wait for the quota of the endpoint's account. That is not
            time of the endpoint, so it is over before the call begins.

    Raises:
        UpstreamFailed: The call could not be made, or failed; of two requests, both did.
        DeadlineExceeded: The deadline passed.
    """
    attempt = await _start(upstream, request, deadline=deadline, quota_deadline=quota_deadline)

    def start_hedge() -> Attempt | None:
        now = asyncio.get_running_loop().time()
        if hedges is None or hedges.tokens(at=now) < 1.0:
            return None
        hedge = _start_at_once(upstream, request, deadline=deadline)
        if hedge is not None:
            hedges.spend(1.0, at=now)
        return hedge

    try:
        delay = upstream.first_token_quantile() if hedges is not None else None
        if delay is None:
            event = await attempt.next()
        else:
            attempt, event = await _race(attempt, delay, start_hedge)
        yield attempt, event
    finally:
        await attempt.close()


async def _start(
    upstream: Upstream, request: ModelRequest, *, deadline: float, quota_deadline: float
) -> Attempt:
    """Start a call once quota and concurrency limit permit it."""
    quota = upstream.quota
    if quota is None:
        return Attempt(upstream, await upstream.acquire(deadline=deadline), request, deadline)
    try:
        quota_permit = await quota.acquire(
            estimate_prompt_tokens(request), request.max_tokens, quota_deadline
        )
    except DeadlineExceeded as error:
        if quota_deadline >= deadline:
            raise
        raise UpstreamThrottled(error.detail) from error  # time is left for another endpoint
    try:
        permit = await upstream.acquire(deadline=deadline)
    except BaseException:
        quota.cancel(quota_permit)
        raise
    return Attempt(upstream, permit, request, deadline, quota_permit)


def _start_at_once(upstream: Upstream, request: ModelRequest, *, deadline: float) -> Attempt | None:
    """Start a call if that needs no waiting."""
    quota, quota_permit = upstream.quota, None
    if quota is not None:
        quota_permit = quota.try_acquire(estimate_prompt_tokens(request), request.max_tokens)
        if quota_permit is None:
            return None
    permit = upstream.try_acquire()
    if permit is not None:
        return Attempt(upstream, permit, request, deadline, quota_permit)
    if quota is not None and quota_permit is not None:
        quota.cancel(quota_permit)
    return None


async def _race(
    first: Attempt, delay: float, start_hedge: Callable[[], Attempt | None]
) -> _FirstEvent:
    """Return the attempt that answers first, with its first event; the other one is closed."""
    second: Attempt | None = None
    try:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(_capture(first))
            won = one
            await asyncio.wait([one], timeout=delay)
            if not one.done() and (second := start_hedge()) is not None:
                two = group.create_task(_capture(second))
                await asyncio.wait([one, two], return_when=asyncio.FIRST_COMPLETED)
                if _failed(one):
                    await two
                elif _failed(two):
                    await one
                if two.done() and not _failed(two):
                    won = two
                (one if won is two else two).cancel()
        if second is not None and won is two:
            first, second = second, first
    finally:
        if second is not None:
            try:
                await second.close()
            except BaseException:
                await first.close()  # the caller may not know it yet
                raise
    outcome = won.result()
    if isinstance(outcome, Problem):
        raise outcome
    return first, outcome


def _failed(task: asyncio.Task[ModelEvent | Problem | None]) -> bool:
    return task.done() and isinstance(task.result(), Problem)


async def _capture(attempt: Attempt) -> ModelEvent | Problem | None:
    """Return the attempt's first event, or its failure as a value."""
    try:
        return await attempt.next()
    except Problem as problem:
        return problem
