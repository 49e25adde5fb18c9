"""One call to an upstream: its deadlines, and what its end tells about the upstream."""

import asyncio
import math
from collections.abc import AsyncGenerator

from seawall.budgets.quota import Quota, QuotaPermit
from seawall.errors import (
    DeadlineExceeded,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
)
from seawall.models.port import Finish, ModelEvent, ModelRequest
from seawall.models.upstream import CallPermit, Outcome, Upstream
from seawall.turn import Usage

__all__ = ["Attempt", "UpstreamTimedOut"]

# A turn with little time left says nothing about an upstream that was given no more than that.
_LATE_QUANTILES = 3.0


class UpstreamTimedOut(UpstreamFailed):
    """No word came from the endpoint for longer than one may be waited for."""


class Attempt:
    """A stream of events that is waited for no longer than the settings allow.

    The owner calls `next` until it gives None or fails, and `close` whatever happened. One timer
    an attempt, re-armed only when it goes off, serves all of its waits.
    """

    __slots__ = (
        "_cancelling",
        "_closed",
        "_due",
        "_expired",
        "_last_at",
        "_loop",
        "_outcome",
        "_patience",
        "_permit",
        "_quota_permit",
        "_retry_after",
        "_stream",
        "_task",
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
        quota_permit: QuotaPermit | None = None,
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
        self._patience = upstream.settings.first_token_seconds
        self._last_at = permit.began
        self._due = math.inf
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False
        self.begun = False
        self._timer = upstream.wheel.call_at(permit.began + self._patience, self._check_timeout)

    async def next(self) -> ModelEvent | None:
        """The next event; None after the last.

        Raises:
            UpstreamFailed: as the model's `stream`, and where nothing came in time.
            DeadlineExceeded: the deadline of the whole call passed.
        """
        task = self._task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        # The wait begins now: a reader that took its time is not the upstream's fault.
        self._last_at = self._loop.time()
        self._due = self._last_at + self._patience
        try:
            event = await anext(self._stream)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if self._expired and task is not None and task.uncancel() <= self._cancelling:
                self._outcome = "late"
                raise self._late() from None
            raise
        except UpstreamFailed as failure:
            self._outcome = _outcome_of(failure)
            self._retry_after = failure.retry_after
            raise
        except DeadlineExceeded:
            self._outcome = "late" if self._was_slow_to_answer() else "left"
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
        """End the call; the upstream's connection with it, if it is in the middle of an answer."""
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

    def _settle(self, quota: Quota, quota_permit: QuotaPermit) -> None:
        """Tell the quota what was used; what nobody knows stays as it was estimated."""
        usage = self._usage
        if usage is not None and (usage.prompt_tokens or usage.completion_tokens):
            used = usage.prompt_tokens + usage.completion_tokens
            quota.settle(quota_permit, tokens=used, completion_tokens=usage.completion_tokens)
        elif not self.begun and self._outcome in ("refused", "throttled", "failed"):
            quota.settle(quota_permit, tokens=0)

    def _begin(self) -> None:
        self.begun = True
        self._patience = self._upstream.settings.between_tokens_seconds
        self._upstream.record_first_event(self._permit)
        self._timer.cancel()  # it was set for the first event, which may be allowed more time
        self._timer = self._upstream.wheel.call_at(
            self._loop.time() + self._patience, self._check_timeout
        )

    def _check_timeout(self) -> None:
        """The timer went off: either the wait is over, or it had begun anew meanwhile."""
        now = self._loop.time()
        if self._task is None:
            self._due = now + self._patience
        elif now >= self._due + self._paused:
            self._expired = True
            self._task.cancel()
            return
        self._timer = self._upstream.wheel.call_at(self._due + self._paused, self._check_timeout)

    @property
    def _paused(self) -> float:
        """Seconds that the event loop did not come round: what came meanwhile is yet unread."""
        return self._upstream.wheel.lag

    def _was_slow_to_answer(self) -> bool:
        usual = self._upstream.first_token_quantile()
        waited = self._loop.time() - self._last_at
        return usual is not None and waited > _LATE_QUANTILES * usual

    def _late(self) -> UpstreamTimedOut:
        what = "go on" if self.begun else "begin to answer"
        return UpstreamTimedOut(
            f"The model '{self._upstream.name}' did not {what} within {self._patience:g} s."
        )


def _outcome_of(failure: UpstreamFailed) -> Outcome:
    if isinstance(failure, UpstreamThrottled):
        return "throttled"
    return "refused" if isinstance(failure, UpstreamRefused) else "failed"
