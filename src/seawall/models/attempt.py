"""One call to an upstream: its deadlines, and what its end tells about the upstream."""

import asyncio
import math
from collections.abc import AsyncGenerator

from seawall.errors import (
    DeadlineExceeded,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamThrottled,
)
from seawall.models.port import Finish, ModelEvent, ModelRequest
from seawall.models.upstream import Outcome, Pass, Upstream
from seawall.resilience.quota import Quota, Taken
from seawall.turn import Usage

__all__ = ["Attempt", "UpstreamLate"]

# A turn with little time left says nothing about an upstream that was given no more than that.
_LATE_QUANTILES = 3.0


class UpstreamLate(UpstreamFailed):
    """No word came from the endpoint for longer than one may be waited for."""


class Attempt:
    """A stream of events that is waited for no longer than the settings allow.

    The owner calls `next` until it gives None or fails, and `close` whatever happened. One timer
    an attempt, re-armed only when it goes off, serves all of its waits.
    """

    __slots__ = (
        "_cancelling",
        "_due",
        "_entered",
        "_expired",
        "_last_at",
        "_left",
        "_loop",
        "_outcome",
        "_patience",
        "_retry_after",
        "_stream",
        "_taken",
        "_task",
        "_timer",
        "_upstream",
        "_usage",
        "begun",
    )

    def __init__(
        self,
        upstream: Upstream,
        entered: Pass,
        request: ModelRequest,
        deadline: float,
        taken: Taken | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._upstream = upstream
        self._entered = entered
        self._stream: AsyncGenerator[ModelEvent, None] = upstream.model.stream(
            request, deadline=deadline
        )
        self._taken = taken
        self._usage: Usage | None = None
        self._outcome: Outcome = "left"
        self._retry_after: float | None = None
        self._left = False
        self._patience = upstream.settings.first_token_seconds
        self._last_at = entered.began
        self._due = math.inf
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._expired = False
        self.begun = False
        self._timer = upstream.wheel.call_at(entered.began + self._patience, self._look)

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
        """End the call; the upstream's connection with it, if it is in the middle of an answer."""
        if self._left:
            return
        self._left = True
        self._timer.cancel()
        try:
            await self._stream.aclose()
        finally:
            self._upstream.leave(self._entered, self._outcome, retry_after=self._retry_after)
            if self._taken is not None and self._upstream.quota is not None:
                self._settle(self._upstream.quota, self._taken)

    def _settle(self, quota: Quota, taken: Taken) -> None:
        """Tell the quota what was used; what nobody knows stays as it was estimated."""
        usage = self._usage
        if usage is not None and (usage.prompt_tokens or usage.completion_tokens):
            used = usage.prompt_tokens + usage.completion_tokens
            quota.settle(taken, tokens=used, completion_tokens=usage.completion_tokens)
        elif not self.begun and self._outcome in ("refused", "throttled", "failed"):
            quota.settle(taken, tokens=0)

    def _begin(self) -> None:
        self.begun = True
        self._patience = self._upstream.settings.between_tokens_seconds
        self._upstream.began_to_answer(self._entered)
        self._timer.cancel()  # it was set for the first event, which may be allowed more time
        self._timer = self._upstream.wheel.call_at(self._loop.time() + self._patience, self._look)

    def _look(self) -> None:
        """The timer went off: either the wait is over, or it had begun anew meanwhile."""
        now = self._loop.time()
        if self._task is None:
            self._due = now + self._patience
        elif now >= self._due + self._paused:
            self._expired = True
            self._task.cancel()
            return
        self._timer = self._upstream.wheel.call_at(self._due + self._paused, self._look)

    @property
    def _paused(self) -> float:
        """Seconds that the event loop did not come round: what came meanwhile is yet unread."""
        return self._upstream.wheel.lag

    def _was_slow(self) -> bool:
        usual = self._upstream.usual_first_token()
        waited = self._loop.time() - self._last_at
        return usual is not None and waited > _LATE_QUANTILES * usual

    def _late(self) -> UpstreamLate:
        what = "go on" if self.begun else "begin to answer"
        return UpstreamLate(
            f"The model '{self._upstream.name}' did not {what} within {self._patience:g} s."
        )


def _outcome_of(failure: UpstreamFailed) -> Outcome:
    if isinstance(failure, UpstreamThrottled):
        return "throttled"
    return "refused" if isinstance(failure, UpstreamRefused) else "failed"
