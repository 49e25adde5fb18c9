"""Quota of a provider account: requests and tokens per minute, shared by all processes.

Acquire before every attempt, settle after it with what was really used::

    permit = await quota.acquire(prompt_tokens, max_tokens, deadline)
    try:
        ...
    finally:
        quota.settle(permit, tokens=usage.prompt_tokens + usage.completion_tokens)

Windows are fixed parts of the clock: of a minute, or shorter, because a provider that counts a
sliding minute sees two neighbouring windows at once. What a process took of a window and did not
use expires with it. While the shared counter cannot be reached, each process goes by its static
share: the limit divided by the number of processes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping

from msgspec import Struct

from seawall.budgets.shared_limit import SharedLimit, Window
from seawall.errors import DeadlineExceeded, UpstreamThrottled
from seawall.settings import QuotaSettings
from seawall.storage.counters import Counters

__all__ = ["Quota", "QuotaPermit"]

_REQUESTS = "requests"
_TOKENS = "tokens"
_FIRST_COMPLETION = 256.0
_WEIGHT = 0.05
_LEAST_SECONDS = 0.5
"""A call that would begin later than this before its deadline is not made."""
_POLL_SECONDS = 0.5  # of waiting calls, while the shared counter cannot be reached


class QuotaPermit(Struct, frozen=True):
    """What a call took of a window: one request, and an estimate of its tokens."""

    window: str
    tokens: int


class _Waiting(Struct, eq=False):
    needs: dict[str, int]
    admitted: asyncio.Future[None]


class Quota:
    """One account's quota, as one process sees it."""

    def __init__(
        self,
        name: str,
        settings: QuotaSettings,
        counters: Counters,
        *,
        seconds: float = 2.0,
        retry_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the quota; the shared counter is first asked by a call.

        Args:
            name: Name of the quota in the configuration.
            settings: Its limits.
            counters: Shared by all processes.
            seconds: Longest wait for the shared counter.
            retry_seconds: How long the counter is not asked after a failure.
            clock: Unix time in seconds.
        """
        part = settings.window_seconds / 60.0
        measures = {
            _REQUESTS: settings.requests_per_minute,
            _TOKENS: settings.tokens_per_minute,
        }
        self._limits = {key: max(1, int(each * part)) for key, each in measures.items() if each}
        self._name = name
        self._window_seconds = settings.window_seconds
        self._min_processes = settings.pods
        self._clock = clock
        self._share = SharedLimit(
            counters,
            f"quota/{name}",
            self._limits,
            self._window_at,
            count_processes=True,
            seconds=seconds,
            retry_seconds=retry_seconds,
            clock=clock,
        )
        self._queue: deque[_Waiting] = deque()
        self._queued = dict.fromkeys(self._limits, 0)
        self._completion = _FIRST_COMPLETION

    @property
    def waiting(self) -> int:
        """Calls that wait for the next window."""
        return len(self._queue)

    @property
    def on_static_share(self) -> bool:
        """Whether the shared counter failed, so that the static share applies."""
        return self._share.degraded

    def estimate(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Estimate the tokens of a call: the prompt, and the average answer so far."""
        written = int(self._completion) + 1
        return prompt_tokens + (written if max_tokens is None else min(written, max_tokens))

    async def acquire(
        self, prompt_tokens: int, max_tokens: int | None, deadline: float
    ) -> QuotaPermit:
        """Take one request and its estimated tokens; wait for the next window if necessary.

        Args:
            prompt_tokens: Estimate.
            max_tokens: Limit of the answer; None for none.
            deadline: Of the call, on the event loop's clock.

        Raises:
            UpstreamThrottled: The quota is used up, and the next window comes too late.
            DeadlineExceeded: The permit did not arrive in time, against the estimate.
        """
        share = self._share
        needs = self._needs(prompt_tokens, max_tokens)
        loop = asyncio.get_running_loop()
        while (seconds := deadline - loop.time()) > 0:
            share.advance_window()
            if share.degraded:
                self._apply_static_share()
                share.probe()  # in the background: the static share decides meanwhile
            if (permit := self._spend(needs)) is not None:
                return permit
            if not share.degraded and share.may_have_more(needs):
                await share.ask(needs, seconds=seconds)
            else:
                await self._wait(needs, deadline)
        raise DeadlineExceeded(
            f"The quota of '{self._name}' did not permit the call in time.", field="model"
        )

    def try_acquire(self, prompt_tokens: int, max_tokens: int | None) -> QuotaPermit | None:
        """Return a permit if that needs no waiting and no other call waits."""
        self._share.advance_window()
        return None if self._queue else self._spend(self._needs(prompt_tokens, max_tokens))

    def cancel(self, permit: QuotaPermit) -> None:
        """Return the permit of a call that was not made."""
        self.settle(permit, tokens=0)
        if _REQUESTS in self._limits and permit.window == self._share.window.name:
            self._share.spend({_REQUESTS: -1})
            self._wake()

    def settle(
        self, permit: QuotaPermit, *, tokens: int | None, completion_tokens: int | None = None
    ) -> None:
        """Correct the estimate of a call that has ended.

        What it did not use goes to waiting calls; what it used beyond is deducted. After the end
        of the window neither counts.

        Args:
            permit: Of the call.
            tokens: Used tokens; 0 for a refused call, None if unknown.
            completion_tokens: Of them; for the average answer.
        """
        if completion_tokens is not None:
            self._completion += _WEIGHT * (completion_tokens - self._completion)
        self._share.advance_window()
        current = permit.window == self._share.window.name
        if tokens is None or _TOKENS not in self._limits or not current:
            return
        self._share.spend({_TOKENS: tokens - permit.tokens})
        if tokens < permit.tokens and self._queue:
            self._wake()

    async def close(self) -> None:
        """Wait for pending requests to the counter."""
        await self._share.close(return_unspent=False)

    def _needs(self, prompt_tokens: int, max_tokens: int | None) -> dict[str, int]:
        """Return what a call takes; one that exceeds the quota takes a whole window."""
        tokens = self.estimate(prompt_tokens, max_tokens)
        return {
            measure: min(tokens if measure == _TOKENS else 1, limit)
            for measure, limit in self._limits.items()
        }

    def _spend(self, needs: dict[str, int]) -> QuotaPermit | None:
        if not self._share.fits(needs):
            return None
        self._share.spend(needs)
        return QuotaPermit(self._share.window.name, needs.get(_TOKENS, 0))

    def _window_at(self, now: float) -> Window:
        number = int(now // self._window_seconds)
        starts = number * self._window_seconds
        return Window(f"{starts:.3f}", starts, starts + self._window_seconds)

    def _apply_static_share(self) -> None:
        processes = max(self._min_processes, self._share.processes)
        for part in self._share.parts.values():
            part.floor = part.limit // processes

    def _wake(self) -> None:
        """Wake the calls for which enough is free again, first come first served."""
        free = {measure: part.free for measure, part in self._share.parts.items()}
        for each in self._queue:
            free = {measure: left - each.needs[measure] for measure, left in free.items()}
            if min(free.values()) < 0:
                return
            if not each.admitted.done():
                each.admitted.set_result(None)

    async def _wait(self, needs: Mapping[str, int], deadline: float) -> None:
        """Wait for the next window, or until enough is free again.

        Raises:
            UpstreamThrottled: That is expected to be too late.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        ends = self._share.window.ends
        processes = max(self._min_processes, self._share.processes)
        ahead = max(  # windows that the waiting calls will fill
            (self._queued[measure] + need - 1) // max(self._limits[measure] // processes, need)
            for measure, need in needs.items()
        )
        seconds = ends - now + ahead * self._window_seconds
        if loop.time() + seconds + _LEAST_SECONDS > deadline:
            raise UpstreamThrottled(
                f"The quota of '{self._name}' is used up for now.",
                retry_after=max(1.0, round(seconds, 1)),
            )
        waiting = _Waiting(dict(needs), loop.create_future())
        self._queue.append(waiting)
        for measure, need in needs.items():
            self._queued[measure] += need
        try:
            timeout = _POLL_SECONDS if self._share.degraded else ends - now
            await asyncio.wait((waiting.admitted,), timeout=max(0.0, min(timeout, ends - now)))
        finally:
            self._queue.remove(waiting)
            for measure, need in needs.items():
                self._queued[measure] -= need
