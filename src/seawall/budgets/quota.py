"""Quota of a provider account: calls reserve as the provider does, or wait for their turn.

Acquire before every attempt, settle after it with what was really used::

    permit = await quota.acquire(CallSize(prompt_bytes, max_tokens), deadline)
    try:
        ...
    finally:
        quota.settle(permit, usage)

Calls that wait are admitted in the order of their arrival, tenants in turn, when enough has flowed
in or was returned; nothing is polled. A call that cannot be admitted before its deadline is refused
at once.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from seawall.admission.queue import FairQueue, Ticket
from seawall.budgets.provider_view import ProviderView
from seawall.budgets.refill import refills_of
from seawall.budgets.reservation import (
    DEFAULT_MAX_TOKENS,
    INPUT,
    OUTPUT,
    REQUESTS,
    TOKENS,
    Average,
    Reservations,
    Rule,
)
from seawall.budgets.shared_bucket import SharedBucket
from seawall.errors import QuotaExhausted, UpstreamRefused
from seawall.settings import QuotaSettings
from seawall.storage.counters import Counters
from seawall.turn import Usage

__all__ = ["CallSize", "QueueReport", "Quota", "QuotaPermit"]

_LEAST_SECONDS = 0.5
"""A call that would begin later than this before its deadline is not made."""
_LEAST_PAUSE = 0.05  # between two questions to the shared counter
_REPORT_SECONDS = 1.0
_REPORT_PART = 10.0  # of the expected wait: those who wait longer hear of it less often
_ORDER_SECONDS = 0.5
_RETURN_SECONDS = 1.0
_FIRST_BACKOFF = 1.0
_LONGEST_PAUSE = 60.0
_RANK = 1  # of all calls: their turns were admitted by their class before


class CallSize(Struct, frozen=True):
    """Size of a call: bytes of its prompt, and its limit of completion tokens."""

    prompt_bytes: int
    max_tokens: int = DEFAULT_MAX_TOKENS


class QuotaPermit(Struct, eq=False):
    """What a call reserved.

    Attributes:
        reserved: Amounts of the measures that are limited.
        prompt_bytes: Size of the prompt.
        ticket: Its place among the calls of all tenants.
        window: In which it was reserved.
        at: When it was admitted, on the event loop's clock.
    """

    reserved: dict[str, int]
    prompt_bytes: int
    ticket: Ticket
    window: int = 0
    at: float = 0.0


class QueueReport(Protocol):
    """Receives where in the queue a call is, at first and as that changes."""

    async def __call__(self, position: int, seconds: float) -> None:
        """Take a position, from 1, and the expected wait in seconds."""
        ...


class _Waiting(Struct, eq=False):
    permit: QuotaPermit
    admitted: asyncio.Future[None]


class Quota:
    """One account's quota, as one process sees it.

    Attributes:
        refused: Calls that were not made, because there was no room before their deadline.
        throttled: Calls that the provider refused although the quota had room for them.
        view: What the provider's responses say of the quota.
    """

    def __init__(
        self,
        name: str,
        settings: QuotaSettings,
        counters: Counters,
        *,
        rule: Rule = "input+max_tokens",
        seconds: float = 2.0,
        retry_seconds: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create the quota; the shared counter is first asked by a call.

        Args:
            name: Name of the quota in the configuration.
            settings: Its limits.
            counters: Shared by all processes.
            rule: How the provider counts.
            seconds: Longest wait for the shared counter.
            retry_seconds: How long the counter is not asked after a failure.
            clock: Unix time in seconds.
        """
        self._refills = refills_of(settings)
        self.name = name
        self.refused = self.throttled = 0
        self._queued = settings.queued
        self._rule = Reservations(settings, rule)
        self._bucket = SharedBucket(
            counters,
            f"quota/{name}",
            self._refills,
            processes=settings.pods,
            seconds=seconds,
            retry_seconds=retry_seconds,
            clock=clock,
        )
        self.view = ProviderView(name, self._bucket, clock)
        self._fair = FairQueue()
        self._waiting: dict[Ticket, _Waiting] = {}
        self._serving: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._head_changed = asyncio.Event()
        self._paused_until = 0.0  # on the event loop's clock, as all times but the counter's
        self._backoff = _FIRST_BACKOFF
        self._call_seconds = Average(0.0)
        self._calls = self._bytes = 0  # in flight: calls, and bytes of their prompts
        self._in_flight = dict.fromkeys(self._refills, 0)  # reserved by them
        # Tenants share what is most likely to be short.
        self._shared = next(
            each for each in (TOKENS, OUTPUT, INPUT, REQUESTS) if each in self._refills
        )
        self._shared_limit = self._refills[self._shared].per_minute
        self._surplus_at = -math.inf
        self._positions: dict[Ticket, int] = {}
        self._ordered_at = 0.0

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    @property
    def on_static_share(self) -> bool:
        """Whether the shared counter failed, so that the static share applies."""
        return self._bucket.degraded

    async def acquire(
        self,
        size: CallSize,
        deadline: float,
        *,
        tenant: str = "",
        report: QueueReport | None = None,
        again: bool = False,
        patience: float = math.inf,
    ) -> QuotaPermit:
        """Reserve for a call; wait in the queue if necessary.

        Args:
            size: Of the call.
            deadline: By which it must have been answered, on the event loop's clock.
            tenant: For which it is made; tenants share the quota.
            report: Is called while it waits.
            again: It had a permit before, and the provider refused it: it goes first.
            patience: The longest wait, in seconds.

        Raises:
            QuotaExhausted: There is no room before the deadline, or none to wait.
            UpstreamRefused: The call can never be admitted.
        """
        needs = self._needs(size)
        if not self._waiting and self._take(needs):
            return self._admit(self._permit(needs, size, tenant))
        ahead = 0 if again else len(self._waiting)
        latest = self._check(needs, size, deadline, ahead, patience)
        permit = self._permit(needs, size, tenant, latest)
        await self._wait(_Waiting(permit, asyncio.Future()), report, again=again)
        return permit

    def try_acquire(self, size: CallSize, *, tenant: str = "") -> QuotaPermit | None:
        """Return a permit if that needs no waiting and no other call waits."""
        if self._waiting:
            return None
        needs = self._needs(size)
        return self._admit(self._permit(needs, size, tenant)) if self._take(needs) else None

    def check(self, size: CallSize, deadline: float) -> None:
        """Raise if a call that came now would be refused.

        Args:
            size: Of the call.
            deadline: On the event loop's clock.

        Raises:
            QuotaExhausted: There is no room before the deadline, or none to wait.
        """
        needs = self._needs(size)
        if self._waiting or self._paused_until or not self._bucket.fits(needs):
            self._check(needs, size, deadline, len(self._waiting))

    def cancel(self, permit: QuotaPermit) -> None:
        """Return the whole reservation of a call that was not made."""
        self._end(permit, permit.reserved)

    def settle(self, permit: QuotaPermit, usage: Usage | None) -> None:
        """Return what a call that has ended did not use, or deduct what it used beyond.

        Args:
            permit: Of the call.
            usage: As the provider reports it; None if it is unknown: then the reservation stays.
        """
        if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
            self._end(permit, {})
            return
        self._rule.learn(permit.prompt_bytes, usage)
        self._call_seconds.add(asyncio.get_running_loop().time() - permit.at)
        self._backoff = _FIRST_BACKOFF
        used = self._rule.used(usage)
        if used is None:
            self._end(permit, {})
            return
        self._end(permit, {name: each - used[name] for name, each in permit.reserved.items()})

    def record_throttled(self, permit: QuotaPermit, retry_after: float | None) -> None:
        """The provider refused a call for which there should have been room: pause all of them.

        What the call reserved is not returned, since the provider does not have it.

        Args:
            permit: Of the call.
            retry_after: Seconds that the provider asks for.
        """
        self.throttled += 1
        pause = retry_after if retry_after is not None else self._backoff
        self._backoff = min(2 * self._backoff, _LONGEST_PAUSE)
        pause = min(pause, _LONGEST_PAUSE) * (1.0 + 0.1 * random.random())  # noqa: S311 - no secret
        until = asyncio.get_running_loop().time() + pause
        self._paused_until = max(self._paused_until, until)
        self._end(permit, {})

    async def close(self) -> None:
        """Wait for pending requests to the counter."""
        if self._serving is not None:
            self._serving.cancel()
        tasks = [each for each in (self._serving, self._returning) if each is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _needs(self, size: CallSize) -> dict[str, int]:
        """What a call reserves, of the measures that are limited.

        Raises:
            UpstreamRefused: It can never be admitted.
        """
        reserved = self._rule.reserve(size.prompt_bytes, size.max_tokens)
        needs = {}
        for measure, refill in self._refills.items():
            needs[measure] = need = reserved[measure]
            if need > refill.capacity:
                needs[measure] = self._shortened(measure, reserved[OUTPUT], size)
        return needs

    def _shortened(self, measure: str, output: int, size: CallSize) -> int:
        """What is reserved of a call that exceeds the quota by its estimate: all that there is.

        Raises:
            UpstreamRefused: It exceeds it for certain.
        """
        capacity = self._refills[measure].capacity
        if measure != INPUT and output == size.max_tokens > capacity:
            raise UpstreamRefused(
                f"The call may write {size.max_tokens:,} tokens, and the quota '{self.name}' never "
                f"has more than {capacity:,}: the agent needs a lower limit of completion tokens."
            )
        return capacity

    def _check(
        self,
        needs: Mapping[str, int],
        size: CallSize,
        deadline: float,
        ahead: int,
        patience: float = math.inf,
    ) -> float:
        """Until when a call may wait; see `acquire` for what it raises."""
        wait = self._expected(needs, size.prompt_bytes, ahead)
        now = asyncio.get_running_loop().time()
        typical = self._call_seconds.mean + self._call_seconds.deviation
        latest = min(deadline - max(_LEAST_SECONDS, typical), now + patience)
        if now + wait > latest or len(self._waiting) >= self._queued:
            raise self._exhausted(wait)
        return latest

    def _permit(
        self, needs: dict[str, int], size: CallSize, tenant: str, latest: float = 0.0
    ) -> QuotaPermit:
        ticket = Ticket(self._fair.flow(tenant, 1.0, _RANK), 0.0, latest)
        return QuotaPermit(needs, size.prompt_bytes, ticket)

    def _take(self, needs: Mapping[str, int]) -> bool:
        """Take what a call needs, if it is free and the provider has not asked for a pause."""
        if self._paused_until:
            if asyncio.get_running_loop().time() < self._paused_until:
                return False
            self._paused_until = 0.0
        return self._bucket.take(needs)

    def _admit(self, permit: QuotaPermit) -> QuotaPermit:
        permit.at = asyncio.get_running_loop().time()
        permit.window = self._bucket.number
        self._fair.charge(permit.ticket, permit.reserved[self._shared] / self._shared_limit)
        self._count_in_flight(permit, 1)
        return permit

    def _count_in_flight(self, permit: QuotaPermit, sign: int) -> None:
        self._calls += sign
        self._bytes += sign * permit.prompt_bytes
        for measure, amount in permit.reserved.items():
            self._in_flight[measure] += sign * amount

    def _end(self, permit: QuotaPermit, back: Mapping[str, int]) -> None:
        self._count_in_flight(permit, -1)
        kept = permit.reserved[self._shared] - back.get(self._shared, 0)
        self._fair.finish(permit.ticket, max(0, kept) / self._shared_limit)
        if not back:
            return
        self._bucket.give(back, permit.window)
        self.view.note_returned(back)
        if self._waiting:
            head = self._fair.next()
            self._serve()
            if self._fair.next() is not head:
                self._head_changed.set()
        elif self._bucket.processes > 1 and (self._returning is None or self._returning.done()):
            self._returning = asyncio.create_task(self._return_surplus())

    async def _return_surplus(self) -> None:
        """Return what others may wait for, at most once a second."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._surplus_at + _RETURN_SECONDS - clock())
        self._surplus_at = clock()
        if not self._waiting:
            await self._bucket.return_surplus()

    def _expected(self, needs: Mapping[str, int], prompt_bytes: int, ahead: int) -> float:
        """Seconds until a call is admitted behind others, if no other process takes anything.

        Those ahead use what a call typically uses: what they reserve beyond is returned, as is what
        calls in flight have reserved beyond.
        """
        longest = max(0.0, self._paused_until - asyncio.get_running_loop().time())
        if not self._bucket.read_at and not self._bucket.degraded:
            return longest
        typical = self._rule.typical(prompt_bytes, 1)
        running = self._rule.typical(self._bytes, self._calls)
        for measure, need in needs.items():
            left = self._bucket.left(measure)
            short = need - left
            if typical is not None and running is not None:
                short += ahead * min(need, typical[measure])
                short -= max(0, self._in_flight[measure] - running[measure])
            else:
                short += ahead * need
            if short > 0:
                longest = max(longest, short * 60.0 / self._refills[measure].per_minute)
        return longest

    def _exhausted(self, seconds: float) -> QuotaExhausted:
        self.refused += 1
        seconds *= self._bucket.processes
        return QuotaExhausted(
            f"The quota '{self.name}' of the model's account is used up for now.",
            field="model",
            retry_after=min(3_600.0, max(1.0, round(seconds * (1.0 + 0.2 * random.random()), 1))),  # noqa: S311
        )

    async def _wait(
        self, waiting: _Waiting, report: QueueReport | None, *, again: bool = False
    ) -> None:
        """Wait until the call is admitted.

        Raises:
            QuotaExhausted: It was not in time.
        """
        ticket = waiting.permit.ticket
        self._fair.push(ticket, first=again)
        self._waiting[ticket] = waiting
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve_queue())
        try:
            await self._until_admitted(waiting, report)
        except BaseException:
            if ticket in self._waiting:
                self._fair.remove(ticket)
                self._fair.forget(ticket.flow)
                del self._waiting[ticket]
                if self._waiting:
                    self._head_changed.set()
            else:  # it was admitted at the same moment
                self.cancel(waiting.permit)
            raise

    async def _until_admitted(self, waiting: _Waiting, report: QueueReport | None) -> None:
        clock = asyncio.get_running_loop().time
        ticket, shown = waiting.permit.ticket, (0, 0.0)
        pause = 0.0
        if report is not None and self._shown(waiting)[1] < _REPORT_SECONDS:
            pause = _REPORT_SECONDS  # it may be over before anyone could read it
        while not waiting.admitted.done():
            left = ticket.latest - clock()
            if left <= 0:
                raise self._exhausted(self._shown(waiting)[1])
            if report is not None and not pause:
                position, seconds = self._shown(waiting)
                if (position, seconds) != shown:
                    shown = position, seconds
                    await report(position, seconds)
                pause = max(_REPORT_SECONDS, seconds / _REPORT_PART)
                continue
            await asyncio.wait((waiting.admitted,), timeout=min(left, pause or left))
            pause = 0.0

    def _shown(self, waiting: _Waiting) -> tuple[int, float]:
        """Position and expected wait of a waiting call, as they are reported."""
        now = asyncio.get_running_loop().time()
        ticket = waiting.permit.ticket
        if now - self._ordered_at > _ORDER_SECONDS or ticket not in self._positions:
            self._positions, self._ordered_at = self._fair.order(), now
        position = self._positions.get(ticket, 1)
        permit = waiting.permit
        seconds = self._expected(permit.reserved, permit.prompt_bytes, position - 1)
        return position, round(max(0.1, seconds * self._bucket.processes), 1)

    async def _serve_queue(self) -> None:
        """Admit the calls that wait, as their amounts flow in, until none waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._serve()
            if (head := self._fair.next()) is None:
                break
            pause = self._paused_until - loop.time()
            if pause <= 0:
                await self._bucket.ask(self._waiting[head].permit.reserved)
                self._serve()
                if (head := self._fair.next()) is None:
                    break
                pause = max(
                    self._bucket.ready_in(self._waiting[head].permit.reserved),
                    self._paused_until - loop.time(),
                )
            asked_at = loop.time()
            self._head_changed.clear()
            timer = loop.call_later(max(_LEAST_PAUSE, pause), self._head_changed.set)
            try:
                await self._head_changed.wait()
            finally:
                timer.cancel()
            await asyncio.sleep(asked_at + _LEAST_PAUSE - loop.time())
        self._positions = {}

    def _serve(self) -> None:
        """Admit from the head of the queue while there is enough."""
        while (head := self._fair.next()) is not None:
            waiting = self._waiting[head]
            if not self._take(waiting.permit.reserved):
                return
            self._fair.remove(head)
            del self._waiting[head]
            self._admit(waiting.permit)
            if not waiting.admitted.done():  # else its caller is just being cancelled
                waiting.admitted.set_result(None)
