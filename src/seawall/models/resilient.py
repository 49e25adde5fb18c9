"""Resilient model calls: retries with jitter, hedges, fallbacks, resumption of broken answers."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Literal

from seawall.errors import UpstreamFailed, UpstreamRefused, UpstreamUnavailable
from seawall.models.attempt import open_answer
from seawall.models.port import Finish, ModelEvent, ModelRequest, Progress, Text, ToolCalls
from seawall.models.upstream import Upstream
from seawall.resilience import RetryBudget, full_jitter

__all__ = ["ResilientModel"]

_BUDGET_CAPACITY = 500.0
_BUDGET_AT_START = 10.0
_LONGEST_PAUSE = 15.0
_EMPTY_ANSWER_ATTEMPTS = 2

# An answer that a limit or a filter ended may be empty; a repetition would be the same.
_COMPLETE = ("stop", "tool_calls", "other")


_DIFFERS = "The answer broke off, and its repetition differs from what was shown."


class EmptyAnswer(UpstreamFailed):
    """The model ended its answer without text and without calls."""


class Resumption:
    """Resumption of an answer that broke off: skips the part of its repetition that was shown.

    Args:
        enabled: Repeat answers of which something was shown; else only others.
        may_be_empty: An empty answer is valid, because the client named stop sequences.
    """

    __slots__ = ("_enabled", "_may_be_empty", "_repeated", "_shown", "begun")

    def __init__(self, *, enabled: bool, may_be_empty: bool = False) -> None:
        self._enabled = enabled
        self._may_be_empty = may_be_empty
        self._shown: list[str] = []
        self._repeated: str | None = None  # what the repetition has yet to repeat
        self.begun = False

    @property
    def possible(self) -> bool:
        """Whether the answer may be requested again."""
        return self._enabled or not self.begun

    def restart(self) -> None:
        """Prepare for the answer to be requested again."""
        if self.begun:
            shown = "".join(self._shown)
            self._shown = [shown]
            self._repeated = shown

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
            self._shown.append(text)
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
        clock = asyncio.get_running_loop().time
        self._deposit(clock())
        resumption = Resumption(enabled=self._settings.resume, may_be_empty=bool(request.stop))
        index = tried = 0  # of the upstream; calls to it
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
                        if (shown := resumption.take(event)) is not None:
                            yield shown
                        event = await attempt.next()
            except UpstreamFailed as failure:
                tried += 1
                step = self._next_step(failure, index, tried, resumption, left=deadline - clock())
                if step is None:
                    raise
                resumption.restart()
                if step == "next":
                    index, tried = index + 1, 0
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

    def _quota_deadline(self, index: int, deadline: float, now: float) -> float:
        """Return until when to wait for the quota: before a fallback as long as for a permit."""
        if index + 1 < len(self._upstreams):
            return min(deadline, now + self._settings.permit_wait_seconds)
        return deadline

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
        if isinstance(failure, UpstreamRefused | UpstreamUnavailable):
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
