"""The beginning of an answer; where that is slow and both may be paid for, from two calls."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from seawall.errors import DeadlineExceeded, Problem, UpstreamThrottled
from seawall.models.attempt import Attempt
from seawall.models.estimate import prompt_tokens
from seawall.models.port import ModelEvent, ModelRequest
from seawall.models.upstream import Upstream
from seawall.resilience.retries import RetryBudget

__all__ = ["open_answer"]

_First = tuple[Attempt, ModelEvent | None]


@asynccontextmanager
async def open_answer(
    upstream: Upstream,
    request: ModelRequest,
    *,
    deadline: float,
    hedges: RetryBudget | None,
    quota_deadline: float,
) -> AsyncGenerator[_First, None]:
    """A call that has begun to answer, and its first event. Leaving the block ends the call.

    quota_deadline: until when to wait for a turn in the quota of the endpoint's account. That is
    no time of the endpoint's, so it is over before the call begins.
    hedges: pays for a second call, which is made when the first takes longer than calls usually
    do. Whichever answers first is it, the other one is cancelled.

    Raises:
        UpstreamFailed: the call could not be made or failed; of two calls, both did.
        DeadlineExceeded: the deadline passed.
    """
    attempt = await _start_attempt(
        upstream, request, deadline=deadline, quota_deadline=quota_deadline
    )

    def start_hedge() -> Attempt | None:
        now = asyncio.get_running_loop().time()
        if hedges is None or hedges.tokens(at=now) < 1.0:
            return None
        made = _try_start_attempt(upstream, request, deadline=deadline)
        if made is not None:
            hedges.spend(1.0, at=now)
        return made

    try:
        patience = upstream.first_token_quantile() if hedges is not None else None
        if patience is None:
            event = await attempt.next()
        else:
            attempt, event = await _race(attempt, patience, start_hedge)
        yield attempt, event
    finally:
        await attempt.close()


async def _start_attempt(
    upstream: Upstream, request: ModelRequest, *, deadline: float, quota_deadline: float
) -> Attempt:
    """A call that has its turn in the quota, then its place."""
    quota = upstream.quota
    if quota is None:
        return Attempt(upstream, await upstream.acquire(deadline=deadline), request, deadline)
    try:
        quota_permit = await quota.acquire(
            prompt_tokens(request), request.max_tokens, quota_deadline
        )
    except DeadlineExceeded as late:
        if quota_deadline >= deadline:
            raise
        raise UpstreamThrottled(late.detail) from late  # there is time left for another endpoint
    try:
        permit = await upstream.acquire(deadline=deadline)
    except BaseException:
        quota.give_back(quota_permit)
        raise
    return Attempt(upstream, permit, request, deadline, quota_permit)


def _try_start_attempt(
    upstream: Upstream, request: ModelRequest, *, deadline: float
) -> Attempt | None:
    """The same, if nothing of it has to be waited for."""
    quota, quota_permit = upstream.quota, None
    if quota is not None:
        quota_permit = quota.try_acquire(prompt_tokens(request), request.max_tokens)
        if quota_permit is None:
            return None
    permit = upstream.try_acquire()
    if permit is not None:
        return Attempt(upstream, permit, request, deadline, quota_permit)
    if quota is not None and quota_permit is not None:
        quota.give_back(quota_permit)
    return None


async def _race(
    first: Attempt, patience: float, start_hedge: Callable[[], Attempt | None]
) -> _First:
    """The attempt that answers first, with its first event; the other one is closed."""
    second: Attempt | None = None
    try:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(_capture(first))
            won = one
            await asyncio.wait([one], timeout=patience)
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
                await first.close()  # it may be the one of which the caller knows nothing
                raise
    outcome = won.result()
    if isinstance(outcome, Problem):
        raise outcome
    return first, outcome


def _failed(task: asyncio.Task[ModelEvent | Problem | None]) -> bool:
    return task.done() and isinstance(task.result(), Problem)


async def _capture(attempt: Attempt) -> ModelEvent | Problem | None:
    """The attempt's first event, or its failure, as a value."""
    try:
        return await attempt.next()
    except Problem as problem:
        return problem
