"""A model that is called so that it can fail: retries, hedges, others in its stead."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Literal

from seawall.errors import UpstreamFailed, UpstreamRefused, UpstreamUnavailable
from seawall.models.answering import open_answer
from seawall.models.port import ModelEvent, ModelRequest
from seawall.models.resumption import EmptyAnswer, Resumption
from seawall.models.upstream import Upstream
from seawall.resilience.backoff import full_jitter
from seawall.resilience.retries import RetryBudget

__all__ = ["ResilientModel"]

_BUDGET_CAPACITY = 500.0
_BUDGET_AT_START = 10.0
_LONGEST_PAUSE = 15.0
_ATTEMPTS_AT_EMPTY = 2


class ResilientModel:
    """One configured model, and those that stand in for it; implements the model port.

    upstreams: the model itself, then its fallbacks in order. An endpoint that is known not to
    work, has no room or fails before anything was shown is followed by the next one; the last is
    tried again. Retries and hedges are paid from budgets that grow with the calls, so they stay a
    share of them. Fallbacks are not: they are what the answer depends on, and the circuit breaker
    ends the calls that fail before them.
    """

    def __init__(self, upstreams: tuple[Upstream, ...]) -> None:
        self._upstreams = upstreams
        self._settings = settings = upstreams[0].settings
        self._retries = _budget()
        self._hedges = _budget() if settings.hedge_share else None

    async def stream(
        self, request: ModelRequest, *, deadline: float
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        clock = asyncio.get_running_loop().time
        self._deposit_budgets(clock())
        resuming = Resumption(enabled=self._settings.resume, may_be_empty=bool(request.stop))
        index = tried = 0  # among the upstreams; calls to the one there
        while True:
            try:
                async with open_answer(
                    self._upstreams[index],
                    request,
                    deadline=deadline,
                    hedges=self._hedges,
                    quota_deadline=self._quota_deadline(index, deadline, clock()),
                ) as (attempt, first):
                    event = first
                    while event is not None:
                        if (shown := resuming.take(event)) is not None:
                            yield shown
                        event = await attempt.next()
            except UpstreamFailed as failure:
                tried += 1
                step = self._next_step(failure, index, tried, resuming, left=deadline - clock())
                if step is None:
                    raise
                resuming.restart()
                if step == "next":
                    index, tried = index + 1, 0
                else:
                    await asyncio.sleep(step)
            else:
                return

    async def warm(self) -> None:
        """See `Model.warm`; the fallbacks are models of their own."""
        await self._upstreams[0].model.warm()

    async def close(self) -> None:
        """See `Model.close`."""
        await self._upstreams[0].model.close()

    def _quota_deadline(self, index: int, deadline: float, now: float) -> float:
        """Until when to wait for the quota: where another can be asked, no longer than for room."""
        if index + 1 < len(self._upstreams):
            return min(deadline, now + self._settings.wait_seconds)
        return deadline

    def _deposit_budgets(self, now: float) -> None:
        self._retries.deposit(self._settings.retry_budget, at=now)
        if self._hedges is not None:
            self._hedges.deposit(self._settings.hedge_share, at=now)

    def _next_step(
        self, failure: UpstreamFailed, index: int, tried: int, resuming: Resumption, *, left: float
    ) -> float | Literal["next"] | None:
        """What to do after a failure: a pause before the same again, the next one, or nothing.

        left: seconds of the call's deadline.
        """
        if not resuming.possible:
            return None
        another = index + 1 < len(self._upstreams) and not resuming.begun
        if another:
            return "next"  # sooner than waiting, and no more calls to the one that fails
        if isinstance(failure, UpstreamRefused | UpstreamUnavailable):
            return None  # the same again would bring the same
        settings = self._settings
        attempts = settings.attempts
        if isinstance(failure, EmptyAnswer):
            attempts = min(attempts, _ATTEMPTS_AT_EMPTY)
        pause = full_jitter(
            tried,
            base=settings.backoff_seconds,
            cap=settings.backoff_cap_seconds,
            chance=random.random(),  # noqa: S311 - to spread retries, not to keep a secret
        )
        pause = max(pause, failure.retry_after or 0.0)
        if (
            tried < attempts
            and pause < min(_LONGEST_PAUSE, left)
            and self._retries.spend(1.0, at=asyncio.get_running_loop().time())
        ):
            return pause
        return None


def _budget() -> RetryBudget:
    return RetryBudget(capacity=_BUDGET_CAPACITY, refill_per_second=0.0, tokens=_BUDGET_AT_START)
