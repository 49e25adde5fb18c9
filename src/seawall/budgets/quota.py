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
from seawall.budgets.account import Account, CallSize, QuotaPermit
from seawall.budgets.provider_view import ProviderView
from seawall.budgets.refill import refills_of
from seawall.budgets.reservation import Rule
from seawall.budgets.shared_bucket import SharedBucket
from seawall.errors import QuotaExhausted
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
_ORDER_SECONDS_PER_CALL = 1e-4  # that waits: to find the order takes a hundredth of that
_RETURN_SECONDS = 1.0
_RANK = 1  # of all calls: their turns were admitted by their class before
_RANK_AGAIN = 0  # of those that the provider refused: they get eight of nine places


class QueueReport(Protocol):
    """Receives where in the queue a call is, at first and as that changes."""

    async def __call__(self, position: int, seconds: float) -> None:
        """Take a position, from 1, and the expected wait in seconds."""
        ...


class _Waiting(Struct, eq=False):
    """A call that waits; `admitted` is False if it lost its place to another tenant."""

    permit: QuotaPermit
    admitted: asyncio.Future[bool]


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
            settings: Its limits, at least one.
            counters: Shared by all processes.
            rule: How the provider counts.
            seconds: Longest wait for the shared counter.
            retry_seconds: How long the counter is not asked after a failure.
            clock: Unix time in seconds.
        """
        self.name = name
        self.refused = self.throttled = 0
        self._queued = settings.queued
        self._bucket = SharedBucket(
            counters,
            f"quota/{name}",
            refills_of(settings),
            processes=settings.pods,
            seconds=seconds,
            retry_seconds=retry_seconds,
            clock=clock,
        )
        self._account = Account(name, settings, rule, self._bucket)
        self.view = ProviderView(name, self._bucket, clock)
        self._fair = FairQueue()
        self._waiting: dict[Ticket, _Waiting] = {}
        self._serving: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._head_changed = asyncio.Event()
        self._surplus_at = -math.inf
        self._positions: dict[Ticket, int] = {}
        self._ordered_at = 0.0

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls that have a permit."""
        return self._account.calls

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
            again: It had a permit before, and the provider refused it: it goes before the others.
            patience: The longest wait, in seconds.

        Raises:
            QuotaExhausted: There is no room before the deadline, or none to wait.
            UpstreamRefused: The call can never be admitted.
        """
        needs = self._account.needs(size)
        rank = _RANK_AGAIN if again else _RANK
        idle = self._serving is None or self._serving.done()
        if idle and self._bucket.recovery_due:
            self._serving = asyncio.create_task(self._recover())
        if not self._waiting and self._account.take(needs):
            return self._admit(self._permit(needs, size, tenant, rank))
        latest = self._latest(needs, size, deadline, (tenant, rank), patience)
        if len(self._waiting) >= self._queued:
            self._displace(tenant, rank)
        permit = self._permit(needs, size, tenant, rank, latest)
        await self._wait(_Waiting(permit, asyncio.Future()), report)
        return permit

    def try_acquire(self, size: CallSize, *, tenant: str = "") -> QuotaPermit | None:
        """Return a permit if that needs no waiting and no other call waits."""
        if self._waiting:
            return None
        needs = self._account.needs(size)
        if not self._account.take(needs):
            return None
        return self._admit(self._permit(needs, size, tenant, _RANK))

    def check(self, size: CallSize, deadline: float, *, tenant: str = "") -> None:
        """Raise if a call that came now would be refused.

        Args:
            size: Of the call.
            deadline: On the event loop's clock.
            tenant: For which it is made.

        Raises:
            QuotaExhausted: There is no room before the deadline, or none to wait.
            UpstreamRefused: The call can never be admitted.
        """
        needs = self._account.needs(size)
        if self._waiting or not self._account.fits(needs):
            self._latest(needs, size, deadline, (tenant, _RANK))

    def cancel(self, permit: QuotaPermit) -> None:
        """Return the whole reservation of a call that was not made."""
        self._end(permit, permit.reserved)

    def settle(self, permit: QuotaPermit, usage: Usage | None) -> None:
        """Return what a call that has ended did not use, or deduct what it used beyond.

        Args:
            permit: Of the call.
            usage: As the provider reports it; None if it is unknown: then the reservation stays.
        """
        self._end(permit, self._account.unused(permit, usage))

    def record_throttled(self, permit: QuotaPermit, retry_after: float | None) -> None:
        """The provider refused a call for which there should have been room: pause all of them.

        What the call reserved is not returned, since the provider does not have it.

        Args:
            permit: Of the call.
            retry_after: Seconds that the provider asks for.
        """
        self.throttled += 1
        self._account.record_throttled(permit, retry_after)
        self._end(permit, {})

    async def close(self) -> None:
        """Wait for pending requests to the counter."""
        if self._serving is not None:
            self._serving.cancel()
        tasks = [each for each in (self._serving, self._returning) if each is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _latest(
        self,
        needs: Mapping[str, int],
        size: CallSize,
        deadline: float,
        place: tuple[str, int],
        patience: float = math.inf,
    ) -> float:
        """Until when a call of a tenant and rank may wait; see `acquire` for what it raises."""
        tenant, rank = place
        wait = self._account.expected(needs, size.prompt_bytes, self._ahead(tenant, rank))
        now = asyncio.get_running_loop().time()
        calls = self._account.call_seconds
        typical = calls.mean + calls.deviation if wait else 0.0
        latest = min(deadline - max(_LEAST_SECONDS, typical), now + patience)
        full = len(self._waiting) >= self._queued
        if now + wait > latest or (full and self._fair.displaced_by(tenant, 1.0, rank) is None):
            raise self._exhausted(wait)
        return latest

    def _ahead(self, tenant: str, rank: int) -> int:
        """About how many calls are admitted before one of a tenant that comes now."""
        return max(0, int(self._fair.ahead(tenant, 1.0, rank)) - 1) if self._waiting else 0

    def _displace(self, tenant: str, rank: int) -> None:
        """Refuse the newest call of the tenant that has most of the full queue."""
        if (ticket := self._fair.displaced_by(tenant, 1.0, rank)) is not None:
            self._fair.remove(ticket)
            self._waiting.pop(ticket).admitted.set_result(False)

    def _permit(
        self, needs: dict[str, int], size: CallSize, tenant: str, rank: int, latest: float = 0.0
    ) -> QuotaPermit:
        ticket = Ticket(self._fair.flow(tenant, 1.0, rank), 0.0, latest)
        return QuotaPermit(needs, size.prompt_bytes, ticket)

    def _admit(self, permit: QuotaPermit) -> QuotaPermit:
        account = self._account
        account.begin(permit)
        self._fair.charge(permit.ticket, permit.reserved[account.shared] / account.shared_limit)
        return permit

    def _end(self, permit: QuotaPermit, back: Mapping[str, int]) -> None:
        account = self._account
        account.end(permit, back)
        kept = permit.reserved[account.shared] - back.get(account.shared, 0)
        self._fair.finish(permit.ticket, max(0, kept) / account.shared_limit)
        if not back:
            return
        self.view.note_returned(back)
        if self._waiting:
            head = self._fair.next()
            self._serve()
            if self._fair.next() is not head:
                self._head_changed.set()
        elif self._bucket.processes > 1 and (self._returning is None or self._returning.done()):
            self._returning = asyncio.create_task(self._return_surplus())

    async def _recover(self) -> None:
        """Ask the counter again after a failure, although no call waits for it."""
        await self._bucket.ask({})
        await self._serve_queue()  # for those that have come meanwhile

    async def _return_surplus(self) -> None:
        """Return what others may wait for, at most once a second."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._surplus_at + _RETURN_SECONDS - clock())
        self._surplus_at = clock()
        if not self._waiting:
            await self._bucket.return_surplus()

    def _exhausted(self, seconds: float) -> QuotaExhausted:
        self.refused += 1
        seconds *= self._bucket.processes
        return QuotaExhausted(
            f"The quota '{self.name}' of the model's account is used up for now.",
            field="model",
            retry_after=min(3_600.0, max(1.0, round(seconds * (1.0 + 0.2 * random.random()), 1))),  # noqa: S311
        )

    async def _wait(self, waiting: _Waiting, report: QueueReport | None) -> None:
        """Wait until the call is admitted.

        Raises:
            QuotaExhausted: It was not in time, or lost its place.
        """
        ticket = waiting.permit.ticket
        self._fair.push(ticket)
        self._waiting[ticket] = waiting
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve_queue())
        elif len(ticket.flow.waiting) == 1 and self._fair.next() is ticket:
            self._head_changed.set()
        try:
            await self._until_admitted(waiting, report)
        except BaseException:
            if ticket in self._waiting:
                self._fair.remove(ticket)
                del self._waiting[ticket]
                self._head_changed.set()
            if ticket.active:  # it was admitted at the same moment
                self.cancel(waiting.permit)
            self._fair.forget(ticket.flow)
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
        if not waiting.admitted.result():
            raise self._exhausted(shown[1])

    def _shown(self, waiting: _Waiting) -> tuple[int, float]:
        """Position and expected wait of a waiting call, as they are reported."""
        now = asyncio.get_running_loop().time()
        ticket, number = waiting.permit.ticket, len(self._waiting)
        if now - self._ordered_at > max(_ORDER_SECONDS, _ORDER_SECONDS_PER_CALL * number):
            self._positions, self._ordered_at = self._fair.order(), now
        position = self._positions.get(ticket)
        if position is None:  # it came since
            flow = ticket.flow
            position = max(1, min(self._ahead(flow.tenant, flow.rank), number))
        permit = waiting.permit
        seconds = self._account.expected(permit.reserved, permit.prompt_bytes, position - 1)
        return position, round(max(0.1, seconds * self._bucket.processes), 1)

    async def _serve_queue(self) -> None:
        """Admit the calls that wait, as their amounts flow in, until none waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._serve()
            if (head := self._fair.next()) is None:
                break
            if not (pause := self._account.pause):
                await self._bucket.ask(self._waiting[head].permit.reserved)
                self._serve()
                if (head := self._fair.next()) is None:
                    break
                ready = self._bucket.ready_in(self._waiting[head].permit.reserved)
                pause = max(ready, self._account.pause)
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
            if not self._account.take(waiting.permit.reserved):
                return
            self._fair.remove(head)
            del self._waiting[head]
            self._admit(waiting.permit)
            waiting.admitted.set_result(True)
