"""The quota of a provider's account, requests and tokens a minute, shared by all pods.

Ask before every attempt, tell what it really used after it::

    taken = await quota.take(prompt_tokens, max_tokens, deadline)
    try:
        ...
    finally:
        quota.settle(taken, tokens=usage.prompt_tokens + usage.completion_tokens)

Windows are fixed parts of the clock: of a minute, or shorter, since a provider that looks at a
sliding minute sees two neighbouring windows at once. What a pod took and did not use of a window
is left: it ends with it. While the shared counter cannot be asked each pod goes by its static
share, the limit divided by the number of pods.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

from msgspec import Meta, Struct

from seawall.budgets.shared_limit import Share, Window
from seawall.errors import DeadlineExceeded, UpstreamThrottled
from seawall.storage.counters import Counters

__all__ = ["Place", "Quota", "QuotaPermit", "QuotaSettings"]

_REQUESTS = "requests"
_TOKENS = "tokens"
_FIRST_COMPLETION = 256.0
_WEIGHT = 0.05
_LEAST_SECONDS = 0.5
"""A call that gets its turn later than so long before its deadline need not be made at all."""
_LOOK_SECONDS = 0.5  # between two looks of a call that waits, while the counter cannot be asked


class QuotaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an account at a provider allows; 0 for no limit. Models that share it name it.

    window_seconds: the limits count over windows of this length, each with its part of a minute's.
    pods: how many processes share the account: how it is divided while the shared counter cannot
    be asked, and has not told the number either.
    """

    requests_per_minute: Annotated[int, Meta(ge=0, le=10**12)] = 0
    tokens_per_minute: Annotated[int, Meta(ge=0, le=10**15)] = 0
    window_seconds: Annotated[float, Meta(ge=0.1, le=60.0)] = 60.0
    pods: Annotated[int, Meta(ge=1, le=100_000)] = 1


class QuotaPermit(Struct, frozen=True):
    """What a call was given, of which window: one request, and an estimate of its tokens."""

    window: str
    tokens: int


class Place(Struct):
    """One attempt inside `Quota.place`; `tokens`: what it really used, None if that is unknown."""

    tokens: int | None = None
    completion_tokens: int | None = None


class _Waiting(Struct, eq=False):
    needs: dict[str, int]
    turn: asyncio.Future[None]


class Quota:
    """One account's quota in one process. clock: Unix time in seconds."""

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
        part = settings.window_seconds / 60.0
        measures = {
            _REQUESTS: settings.requests_per_minute,
            _TOKENS: settings.tokens_per_minute,
        }
        self._limits = {key: max(1, int(each * part)) for key, each in measures.items() if each}
        self._name = name
        self._window_seconds = settings.window_seconds
        self._least_pods = settings.pods
        self._clock = clock
        self._share = Share(
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
        """Calls that wait for a window to come."""
        return len(self._queue)

    @property
    def on_static_share(self) -> bool:
        """Whether the last addition failed, so that the static share counts."""
        return self._share.in_doubt

    def estimate(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """Tokens that a call may use: the prompt, and what answers took on average so far."""
        written = int(self._completion) + 1
        return prompt_tokens + (written if max_tokens is None else min(written, max_tokens))

    @asynccontextmanager
    async def place(
        self, prompt_tokens: int, max_tokens: int | None, deadline: float
    ) -> AsyncGenerator[Place, None]:
        """`acquire`, and `settle` with what the block has written into the place."""
        permit = await self.acquire(prompt_tokens, max_tokens, deadline)
        place = Place()
        try:
            yield place
        finally:
            self.settle(permit, tokens=place.tokens, completion_tokens=place.completion_tokens)

    async def acquire(
        self, prompt_tokens: int, max_tokens: int | None, deadline: float
    ) -> QuotaPermit:
        """Have one request and its estimated tokens; waits for the next window if need be.

        deadline: of the call, in seconds on the event loop's clock.

        Raises:
            UpstreamThrottled: the quota is used up, and its turn would come too late.
            DeadlineExceeded: it did not come, against what was to be expected.
        """
        share = self._share
        needs = self._needs(prompt_tokens, max_tokens)
        loop = asyncio.get_running_loop()
        while (seconds := deadline - loop.time()) > 0:
            share.advance_window()
            if share.in_doubt:
                self._go_by_static_share()
                share.probe()  # not waited for: the static share decides meanwhile
            if (permit := self._spend(needs)) is not None:
                return permit
            if not share.in_doubt and share.may_have_more(needs):
                await share.ask(needs, seconds=seconds)
            else:
                await self._wait(needs, deadline)
        raise DeadlineExceeded(
            f"The quota of '{self._name}' did not let the call through in time.", field="model"
        )

    def try_acquire(self, prompt_tokens: int, max_tokens: int | None) -> QuotaPermit | None:
        """The same, if it needs no waiting and nobody waits already."""
        self._share.advance_window()
        return None if self._queue else self._spend(self._needs(prompt_tokens, max_tokens))

    def give_back(self, permit: QuotaPermit) -> None:
        """The call was not made."""
        self.settle(permit, tokens=0)
        if _REQUESTS in self._limits and permit.window == self._share.window.name:
            self._share.spend({_REQUESTS: -1})
            self._wake()

    def settle(
        self, permit: QuotaPermit, *, tokens: int | None, completion_tokens: int | None = None
    ) -> None:
        """The call is over: `tokens` were used; 0 for a refused one, None where nobody knows.

        What the estimate had too much goes to those who wait; what it had too little is owed.
        After the end of the window neither counts any more.
        """
        if completion_tokens is not None:
            self._completion += _WEIGHT * (completion_tokens - self._completion)
        self._share.advance_window()
        if (
            tokens is None
            or _TOKENS not in self._limits
            or permit.window != self._share.window.name
        ):
            return
        self._share.spend({_TOKENS: tokens - permit.tokens})
        if tokens < permit.tokens and self._queue:
            self._wake()

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._share.close(give_back=False)

    def _needs(self, prompt_tokens: int, max_tokens: int | None) -> dict[str, int]:
        """What a call takes. One that is larger than the whole quota takes all of a window."""
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

    def _go_by_static_share(self) -> None:
        pods = max(self._least_pods, self._share.pods)
        for part in self._share.parts.values():
            part.floor = part.limit // pods

    def _wake(self) -> None:
        """Tell those whose turn it is, first come first, that there is something again."""
        free = {measure: part.free for measure, part in self._share.parts.items()}
        for each in self._queue:
            free = {measure: left - each.needs[measure] for measure, left in free.items()}
            if min(free.values()) < 0:
                return
            if not each.turn.done():
                each.turn.set_result(None)

    async def _wait(self, needs: Mapping[str, int], deadline: float) -> None:
        """Until the next window, or until enough was given back.

        Raises:
            UpstreamThrottled: that is, as far as can be seen, too late.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        ends = self._share.window.ends
        pods = max(self._least_pods, self._share.pods)
        ahead = max(  # windows that those who wait already will fill
            (self._queued[measure] + need - 1) // max(self._limits[measure] // pods, need)
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
            patience = _LOOK_SECONDS if self._share.in_doubt else ends - now
            await asyncio.wait((waiting.turn,), timeout=max(0.0, min(patience, ends - now)))
        finally:
            self._queue.remove(waiting)
            for measure, need in needs.items():
                self._queued[measure] -= need
