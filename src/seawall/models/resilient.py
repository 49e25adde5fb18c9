"""Resilient model calls: retries with jitter, hedges, fallbacks, resumption of broken answers.

An attempt at an answer has deadlines, a quota, a permit of its endpoint, and a hedge if it is slow.
"""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, structs

from seawall.errors import (
    DeadlineExceeded,
    Problem,
    QuotaExhausted,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from seawall.models import (
    AnswerText,
    Finish,
    ModelEvent,
    ModelRequest,
    Progress,
    Text,
    ToolCalls,
    prompt_bytes,
)
from seawall.models.upstream import CallPermit, Outcome, Upstream, UpstreamBusy
from seawall.resilience import RetryBudget, full_jitter
from seawall.turn import Usage

if TYPE_CHECKING:
    from seawall.budgets.quota import CallSize, Quota, QuotaPermit

__all__ = [
    "ResilientModel",
    "open_answer",
]

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
        "_direct",
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
        self._direct = request.sink
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
        task = self._task = asyncio.current_task(self._loop)
        self._cancelling = task.cancelling() if task is not None else 0
        # The wait begins now: the time that the reader took is not the upstream's.
        self._last_at = self._loop.time()
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
        """Correct the quota by what was used; where that is unknown, the reservation stays."""
        if self._outcome == "throttled":
            quota.record_throttled(permit, self._retry_after)
        elif not self.begun and self._outcome in ("refused", "failed"):
            quota.cancel(permit)
        else:
            quota.settle(permit, self._usage)

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
        due = (now if self._task is None else self._waits_since()) + self._timeout + lag
        if self._task is not None and now >= due:
            self._expired = True
            self._task.cancel()
            return
        self._timer = self._upstream.wheel.call_at(due, self._check_timeout)

    def _waits_since(self) -> float:
        """When the present wait began: pieces that went to the sink are events too."""
        return self._last_at if self._direct is None else max(self._last_at, self._direct.at)

    def _was_slow(self) -> bool:
        quantile = self._upstream.first_token_quantile()
        waited = self._loop.time() - self._waits_since()
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


class CallTime(Struct):
    """The time that a call has, with all its attempts.

    Attributes:
        deadline: On the event loop's clock; later by what the call has waited for quotas.
        latest: The deadline of its turn, beyond which it is not moved.
        patience: Seconds that it waits for the quota of the next attempt.
        throttled: How often a provider has refused it in spite of its quota.
    """

    deadline: float
    latest: float
    patience: float = math.inf
    throttled: int = 0


async def open_answer(
    upstream: Upstream,
    request: ModelRequest,
    *,
    time: CallTime,
    hedges: RetryBudget | None,
) -> _FirstEvent:
    """Call an upstream; return the attempt that answers, to be closed, and its first event.

    Args:
        upstream: The endpoint to call.
        request: What to send.
        time: Of the whole call.
        hedges: Pays for a second request, which is sent when the first takes longer than most
            calls do. The one that answers first is used, the other is cancelled. None: no hedge.

    Raises:
        UpstreamFailed: The call could not be made, or failed; of two requests, both did.
        DeadlineExceeded: The deadline passed.
    """
    attempt = await _start(upstream, request, time)

    try:
        delay = upstream.first_token_quantile() if hedges is not None else None
        if hedges is None or delay is None:
            event = await attempt.next()
        else:
            start_hedge = partial(_start_hedge, upstream, request, time, hedges)
            attempt, event = await _race(attempt, delay, start_hedge)
    except BaseException:
        await attempt.close()
        raise
    return attempt, event


async def _start(upstream: Upstream, request: ModelRequest, time: CallTime) -> Attempt:
    """Start a call once quota and concurrency limit permit it.

    Waiting for the quota is not time of the endpoint: the deadline moves by it.
    """
    quota = upstream.quota
    if quota is None:
        permit = await upstream.acquire(deadline=time.deadline)
        return Attempt(upstream, permit, request, time.deadline)
    clock = asyncio.get_running_loop().time
    caller, began = request.caller, clock()
    request = _with_bound(request)
    quota_permit = await quota.acquire(
        _size_of(request),
        time.latest,
        tenant=caller.tenant if caller is not None else "",
        report=caller.queued if caller is not None else None,
        again=time.throttled > 0,
        patience=time.patience,
    )
    time.deadline = min(time.latest, time.deadline + clock() - began)
    try:
        permit = await upstream.acquire(deadline=time.deadline)
    except BaseException:
        quota.cancel(quota_permit)
        raise
    return Attempt(upstream, permit, request, time.deadline, quota_permit)


def _with_bound(request: ModelRequest) -> ModelRequest:
    """The request with a limit of completion tokens: without one a provider reserves the most."""
    if request.max_tokens is not None:
        return request
    from seawall.budgets.reservation import DEFAULT_MAX_TOKENS  # noqa: PLC0415 - with quotas only

    return structs.replace(request, max_tokens=DEFAULT_MAX_TOKENS)


def _size_of(request: ModelRequest) -> "CallSize":
    from seawall.budgets.quota import CallSize  # noqa: PLC0415 - loaded with the quota

    assert request.max_tokens is not None  # noqa: S101 - see `_with_bound`
    return CallSize(prompt_bytes(request), request.max_tokens)


def _start_at_once(upstream: Upstream, request: ModelRequest, *, deadline: float) -> Attempt | None:
    """Start a call if that needs no waiting."""
    quota, quota_permit = upstream.quota, None
    if quota is not None:
        request, caller = _with_bound(request), request.caller
        tenant = caller.tenant if caller is not None else ""
        quota_permit = quota.try_acquire(_size_of(request), tenant=tenant)
        if quota_permit is None:
            return None
    permit = upstream.try_acquire()
    if permit is not None:
        return Attempt(upstream, permit, request, deadline, quota_permit)
    if quota is not None and quota_permit is not None:
        quota.cancel(quota_permit)
    return None


def _start_hedge(
    upstream: Upstream, request: ModelRequest, time: CallTime, hedges: RetryBudget
) -> Attempt | None:
    now = asyncio.get_running_loop().time()
    if hedges.tokens(at=now) < 1.0:
        return None
    hedge = _start_at_once(upstream, request, deadline=time.deadline)
    if hedge is not None:
        hedges.spend(1.0, at=now)
    return hedge


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


_BUDGET_CAPACITY = 500.0
_BUDGET_AT_START = 10.0
_LONGEST_PAUSE = 15.0
_EMPTY_ANSWER_ATTEMPTS = 2
_MOST_THROTTLED = 20  # of one call, by a provider that does not keep to its quota

# An answer that a limit or a filter ended may be empty; a repetition would be the same.
_COMPLETE = ("stop", "tool_calls", "other")


_DIFFERS = "The answer broke off, and its repetition differs from what was shown."


class EmptyAnswer(UpstreamFailed):
    """The model ended its answer without text and without calls."""


class Resumption:
    """Resumption of an answer that broke off: skips the part of its repetition that was shown.

    Args:
        request: What is asked for; an empty answer is valid if it has stop sequences.
        enabled: Repeat answers of which something was shown; else only others.
    """

    __slots__ = ("_enabled", "_may_be_empty", "_repeated", "_shown", "begun")

    def __init__(self, request: ModelRequest, *, enabled: bool) -> None:
        self._enabled = enabled
        self._may_be_empty = bool(request.stop)
        self._shown = AnswerText(request.sink)
        self._repeated: str | None = None  # what the repetition has yet to repeat
        self.begun = False

    @property
    def possible(self) -> bool:
        """Whether the answer may be requested again."""
        return self._enabled or not self.begun

    def restart(self, request: ModelRequest) -> ModelRequest:
        """Prepare for the answer to be requested again; the request, of which a sink takes nothing.

        The sink of an answer that has not begun is kept.
        """
        if not self.begun:
            return request
        self._repeated = self._shown.whole()
        return structs.replace(request, sink=None)

    def take(self, event: ModelEvent) -> ModelEvent | None:
        """Return the part of the next event to show; None if it was shown before.

        Raises:
            UpstreamFailed: The repetition differs, or the answer is empty.
        """
        if type(event) is Progress:
            return event
        if type(event) is not Text:
            if self._repeated:
                raise UpstreamFailed(_DIFFERS)
            if type(event) is ToolCalls:
                self.begun = True
            elif type(event) is Finish and not self.begun and self._is_fault(event):
                raise EmptyAnswer("The model's answer was empty.")
            return event
        text = event.text
        if self._repeated:
            known = min(len(text), len(self._repeated))
            if text[:known] != self._repeated[:known]:
                raise UpstreamFailed(_DIFFERS)
            self._repeated = self._repeated[known:]
            text = text[known:]
            if not text:
                return None
            event = Text(text)
        self.begun = True
        if self._enabled:
            self._shown.add(text)
        return event

    def _is_fault(self, end: Finish) -> bool:
        return end.reason in _COMPLETE and not (self._may_be_empty and end.reason == "stop")


class ResilientModel:
    """One configured model with its fallbacks; implements the model port.

    After an endpoint whose breaker is open, that is at its limit, or that fails before anything
    was shown, the next one is called; the last one is retried. Retries and hedges are paid from
    budgets that grow with the calls, so they stay a share of them. Fallbacks are free: the answer
    depends on them, and the circuit breaker ends the failing calls before them.
    """

    def __init__(self, upstreams: tuple[Upstream, ...]) -> None:
        """Create the model.

        Args:
            upstreams: The model's own endpoint, then those of its fallbacks in order.
        """
        self._upstreams = upstreams
        self._settings = settings = upstreams[0].settings
        self._retries = _new_budget()
        self._hedges = _new_budget() if settings.hedge_share else None

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        loop = asyncio.get_running_loop()
        self._deposit(loop.time())
        resumption = Resumption(request, enabled=self._settings.resume)
        index = tried = 0  # of the upstream; calls to it
        time = CallTime(deadline, deadline if request.caller is None else request.caller.deadline)
        while True:
            time.patience = math.inf
            if index + 1 < len(self._upstreams):  # before a fallback as long as for a permit
                time.patience = self._settings.permit_wait_seconds
            try:
                attempt, event = await open_answer(
                    self._upstreams[index], request, time=time, hedges=self._hedges
                )
                try:
                    while event is not None:
                        if (shown := resumption.take(event)) is not None:
                            yield shown
                        event = await attempt.next()
                finally:
                    await attempt.close()
            except UpstreamFailed as failure:
                tried += 1
                if self._waits_again(failure, index, resumption, time):
                    request = resumption.restart(request)
                    continue
                left = time.deadline - loop.time()
                step = self._next_step(failure, index, tried, resumption, left=left)
                if step is None:
                    raise
                request = resumption.restart(request)
                if step == "next":
                    index, tried = index + 1, 0
                    time.throttled = 0
                else:
                    await asyncio.sleep(step)
            else:
                return

    async def warm(self) -> None:
        """See `Model.warm`; the fallbacks are warmed as models of their own."""
        await self._upstreams[0].model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._upstreams[0].model.close()

    def check_quota(self, request: ModelRequest, deadline: float, tenant: str) -> None:
        """Raise if the quotas leave no room for a request before a deadline, also of fallbacks.

        Args:
            request: The smallest that there will be.
            deadline: On the event loop's clock.
            tenant: Whose it is.

        Raises:
            QuotaExhausted: There is no room.
            UpstreamRefused: The request exceeds the quotas altogether.
        """
        refusal: UpstreamFailed | None = None
        for upstream in self._upstreams:
            if upstream.quota is None:
                return
            try:
                upstream.quota.check(_size_of(_with_bound(request)), deadline, tenant=tenant)
            except (QuotaExhausted, UpstreamRefused) as failure:
                if refusal is None or isinstance(refusal, UpstreamRefused):
                    refusal = failure
            else:
                return
        if refusal is not None:
            raise refusal

    def _waits_again(
        self, failure: UpstreamFailed, index: int, resumption: Resumption, time: CallTime
    ) -> bool:
        """Whether a call that the provider refused in spite of its quota goes back to the queue.

        The quota has paused all calls by then. A fallback is called rather.
        """
        refused_here = isinstance(failure, QuotaExhausted | UpstreamBusy)
        if not isinstance(failure, UpstreamThrottled) or refused_here:
            return False
        last = index + 1 == len(self._upstreams)
        if self._upstreams[index].quota is None or resumption.begun or not last:
            return False
        time.throttled += 1
        return time.throttled <= _MOST_THROTTLED

    def _deposit(self, now: float) -> None:
        self._retries.deposit(self._settings.retry_budget, at=now)
        if self._hedges is not None:
            self._hedges.deposit(self._settings.hedge_share, at=now)

    def _next_step(
        self,
        failure: UpstreamFailed,
        index: int,
        tried: int,
        resumption: Resumption,
        *,
        left: float,
    ) -> float | Literal["next"] | None:
        """Decide after a failure: seconds until a retry, "next" for the next upstream, or None.

        `left` are the seconds until the deadline of the call.
        """
        if not resumption.possible:
            return None
        if index + 1 < len(self._upstreams) and not resumption.begun:
            return "next"  # faster than waiting, and it spares the endpoint that fails
        if isinstance(failure, UpstreamRefused | UpstreamUnavailable | QuotaExhausted):
            return None  # a retry would fail in the same way
        settings = self._settings
        attempts = settings.attempts
        if isinstance(failure, EmptyAnswer):
            attempts = min(attempts, _EMPTY_ANSWER_ATTEMPTS)
        pause = full_jitter(
            tried,
            base=settings.backoff_seconds,
            cap=settings.backoff_cap_seconds,
            chance=random.random(),  # noqa: S311 - jitter, not a secret
        )
        pause = max(pause, failure.retry_after or 0.0)
        if (
            tried < attempts
            and pause < min(_LONGEST_PAUSE, left)
            and self._retries.spend(1.0, at=asyncio.get_running_loop().time())
        ):
            return pause
        return None


def _new_budget() -> RetryBudget:
    return RetryBudget(capacity=_BUDGET_CAPACITY, refill_per_second=0.0, tokens=_BUDGET_AT_START)
