"""Admission gate: bounds the turns in flight in this process; tasks wait in its queue."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from seawall.admission.queue import CLASSES, AdmissionQueue, Reason, Refusal, StartPacer, Ticket
from seawall.errors import Overloaded
from seawall.settings import AdmissionSettings
from seawall.timers import Deadline, TimingWheel, next_measurement

if TYPE_CHECKING:
    from seawall.admission.limit import AdaptiveLimit

__all__ = ["OVERLOADED_DETAIL", "AdmissionGate", "open_gate", "sample_load"]

OVERLOADED_DETAIL = "There is no room for another turn now; nothing was done for this one."
_TICK_SECONDS = 0.05
_LOG_SECONDS = 1.0
_IDLE_SECONDS = 0.9  # before the next sample, while there are no turns
_IDLE_LAG = 0.1  # of the target; more than that is watched until it has passed
_REPORT_SECONDS = 1.0
_BRISK = 20.0  # starts in a second, from which on it is foreseeable who starts in the next one

_log = logging.getLogger("seawall.admission")


Report = Callable[[int, float], Awaitable[None]]
"""Receives the position of a waiting turn, from 1, and its expected wait in seconds."""

_Decision = Refusal | Literal["report"] | None
"""What wakes a waiting turn: a refusal, that its standing is to be reported, or, None, a slot."""


class AdmissionGate:
    """Admission control for the turns of this process.

    Attributes:
        settings: The configuration.
        refused: The number of refused turns, by reason.
    """

    def __init__(
        self, settings: AdmissionSettings, *, memory_bound: Callable[[], int] = lambda: 0
    ) -> None:
        """Create a gate without turns.

        Args:
            settings: The configuration.
            memory_bound: Returns the bytes that the process may use, 0 if that is not known;
                called with the first sample.
        """
        self.settings = settings
        self._queue = AdmissionQueue(settings)
        self._memory_bound = memory_bound
        self._limit: AdaptiveLimit | None = None
        self._waiters: dict[Ticket, asyncio.Future[_Decision]] = {}
        self._reporting: dict[Ticket, None] = {}
        self._standings: dict[Ticket, tuple[int, float]] = {}
        self._reported_at: float | None = None  # None while no reports are to be made
        self._granted = 0  # slots, to turns that waited, since then
        self._wheel = TimingWheel(_TICK_SECONDS)
        self._pacer = StartPacer(settings.loop_target_seconds)
        self._queue.allowance = self._allowed = self._pacer.allowance
        self._in_pass = False
        self._pass_started_at = 0.0
        self._awaiting_identity = 0
        self._arrival: asyncio.Future[None] | None = None
        self._unlogged = 0
        self.refused: dict[Reason, int] = {"full": 0, "late": 0, "waited": 0, "displaced": 0}

    @property
    def in_flight(self) -> int:
        """Turns that have a slot."""
        return self._queue.in_flight

    @property
    def limit(self) -> int:
        """Turns that may have a slot."""
        return self._queue.limit

    @property
    def lag(self) -> float:
        """Smoothed lateness of the event loop, in seconds; 0 without `sample_load`."""
        return self._limit.lag if self._limit is not None else 0.0

    @property
    def queued(self) -> int:
        """Turns that wait in the queue."""
        return self._queue.queued

    @property
    def waited(self) -> float:
        """Seconds for which turns have to wait in the queue; 0 if none waits."""
        return self._queue.waited if self._queue.queued else 0.0

    @property
    def queued_by_priority(self) -> dict[str, int]:
        """Turns that wait in the queue, by priority class."""
        return {name: self._queue.queued_in(rank) for rank, name in enumerate(CLASSES)}

    @property
    def busy(self) -> bool:
        """Whether a new turn would have to wait for a slot."""
        return self._queue.busy

    def refusal(self, claimed: Callable[[], str | None]) -> float | None:
        """Pre-admission check: whether a turn that arrives now would be refused.

        To be called before any work is done for the turn. A refusal is counted.

        Args:
            claimed: Returns the tenant that the credential claims, unverified; None if there is
                none. It only decides whether verification is worth its cost, so a false claim
                gains one verification. Called only if it matters.

        Returns:
            The value of `Retry-After`, in seconds; None if the turn would not be refused.
        """
        if not self._queue.busy:
            return None
        self._queue.rate = self._pacer.rate(at=time.monotonic())
        at = asyncio.get_running_loop().time()
        if self._queue.has_room_for_all(at=at):
            return None
        refusal = self._queue.refusal_for_all()
        if refusal is None:
            refusal = self._queue.refusal(claimed(), at=at)
        return None if refusal is None else self._count(refusal)

    def check(self, claimed: Callable[[], str | None] = lambda: None) -> None:
        """Raise if `refusal` refuses.

        Args:
            claimed: As for `refusal`.

        Raises:
            Overloaded: There is no room.
        """
        if (seconds := self.refusal(claimed)) is not None:
            raise Overloaded(OVERLOADED_DETAIL, retry_after=seconds)

    def slot(
        self, tenant: str, *, background: bool, deadline: float, report: Report | None = None
    ) -> "_Slot":
        """A slot for one turn: an async context manager, entered when the turn is admitted.

        Args:
            tenant: The verified tenant.
            background: Whether the turn runs in the background, one priority class lower.
            deadline: The turn's deadline, in seconds on the event loop's clock.
            report: Called while the turn waits, once that takes a second or longer.

        Raises:
            Overloaded: There is no slot, or none in time.
        """
        return _Slot(self, tenant, background, deadline, report)

    @contextmanager
    def awaiting_identity(self) -> Generator[None, None, None]:
        """Bound the turns that wait for an identity provider, before they have a slot.

        Raises:
            Overloaded: As many wait already as may run and wait together.
        """
        if self._awaiting_identity >= self.settings.in_flight + self.settings.queued:
            raise self._overloaded(Refusal("full", 1.0))
        self._awaiting_identity += 1
        try:
            yield
        finally:
            self._awaiting_identity -= 1

    def sample(self, *, at: float, lag: float, memory: int) -> None:
        """Adapt the limit to a measurement; see `AdaptiveLimit.sample`."""
        queue = self._queue
        if self._limit is None:
            # Imported here because a host that takes no samples does not need it.
            from seawall.admission.limit import AdaptiveLimit  # noqa: PLC0415

            self._limit = AdaptiveLimit(self.settings, memory_bound=self._memory_bound())
        queue.limit = self._limit.sample(
            at=at,
            lag=lag,
            memory=memory,
            in_flight=queue.in_flight,
            peak=queue.peak,
            started=queue.started,
        )
        queue.peak, queue.started = queue.in_flight, 0
        self._advance(at)

    @property
    def idle(self) -> bool:
        """Whether there are no turns, and the event loop has not been late of late."""
        queue = self._queue
        late = self.lag > _IDLE_LAG * self.settings.lag_seconds
        return not (queue.in_flight or queue.queued or late)

    async def wait_arrival(self, seconds: float) -> None:
        """Wait for the next turn that asks for a slot, but no longer than `seconds`."""
        loop = asyncio.get_running_loop()
        self._arrival = loop.create_future()
        timer = loop.call_later(seconds, self._announce_arrival)
        try:
            await self._arrival
        finally:
            timer.cancel()
            self._arrival = None

    def _announce_arrival(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def request(self, tenant: str, background: bool, deadline: float) -> Ticket:
        """Ask for a slot; the ticket is active, or is to be waited for; see `slot`."""
        if self._arrival is not None:
            self._announce_arrival()
        at = asyncio.get_running_loop().time()
        self._queue.rate = self._pacer.rate(at=time.monotonic())
        ticket, displaced = self._queue.admit(
            tenant, background=background, at=at, deadline=deadline
        )
        if displaced is not None:
            self._notify(displaced, self._queue.displaced())
        if isinstance(ticket, Refusal):
            raise self._overloaded(ticket)
        self._start_pass()
        return ticket

    def release(self, ticket: Ticket, *, succeeded: bool) -> None:
        """Release a slot; `succeeded` if the turn was answered."""
        at = asyncio.get_running_loop().time()
        self._queue.release(ticket, at=at, succeeded=succeeded)
        if self._queue.queued:
            self._advance(at)

    def _start_pass(self) -> None:
        """Start to time a pass of the event loop, if a turn has started in it."""
        if not self._in_pass and self._queue.allowance < self._allowed:
            self._in_pass = True
            self._pass_started_at = time.monotonic()
            asyncio.get_running_loop().call_soon(self._end_pass)

    def _end_pass(self) -> None:
        """Account for a pass of the event loop, and start the turns of the next one."""
        queue, pacing = self._queue, self._pacer
        now = time.monotonic()
        pacing.record_pass(
            now - self._pass_started_at,
            started=self._allowed - queue.allowance,
            limited=queue.allowance <= 0,
            at=now,
        )
        queue.allowance = self._allowed = pacing.allowance
        self._in_pass = False
        self._advance(asyncio.get_running_loop().time())

    async def wait(self, ticket: Ticket, report: Report | None) -> None:
        """Wait until the ticket is active; see `slot`."""
        loop = asyncio.get_running_loop()
        self._waiters[ticket] = loop.create_future()
        try:
            async with Deadline(self._wheel, ticket.latest):
                if report is None:
                    refusal = await self._waiters[ticket]
                else:
                    refusal = await self._wait_reporting(ticket, report)
        except BaseException as error:
            waiter = self._waiters[ticket]
            if self._queue.is_waiting(ticket):
                self._queue.abandon(ticket, at=loop.time())
            elif waiter.done() and not waiter.cancelled() and waiter.result() is None:
                # The slot was granted at the same moment: pass it on.
                self._queue.forfeit(ticket)
            self._advance(loop.time())
            if isinstance(error, TimeoutError):
                raise self._overloaded(self._queue.late()) from None
            raise
        finally:
            del self._waiters[ticket]
        if isinstance(refusal, Refusal):
            raise self._overloaded(refusal)

    async def _wait_reporting(self, ticket: Ticket, report: Report) -> _Decision:
        """Wait for a decision; report meanwhile, at once if the wait will be long."""
        if self._reported_at is None:
            loop = asyncio.get_running_loop()
            self._reported_at, self._granted = loop.time(), 0
            loop.call_later(_REPORT_SECONDS, self._wake_to_report)
        self._reporting[ticket] = None
        shown = 0
        try:
            position, seconds = self._queue.standing(ticket)
            if seconds >= _REPORT_SECONDS:
                shown = position
                await report(position, round(seconds, 1))
            while (decision := await self._waiters[ticket]) == "report":
                position, seconds = self._standings.get(ticket, (shown, 0.0))
                if position != shown:
                    shown = position
                    await report(position, round(max(0.1, seconds), 1))
            return decision
        finally:
            del self._reporting[ticket]

    def _wake_to_report(self) -> None:
        """Wake the turns that have been waiting for a while; again in a second, while any wait.

        While many start in a second, those that are next are left alone: they would hear of a
        wait that is over, and in a crowd they are most of all.
        """
        if not self._reporting or self._reported_at is None:
            self._reported_at, self._standings = None, {}
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        pace = self._granted / max(_REPORT_SECONDS, now - self._reported_at)
        self._reported_at, self._granted = now, 0
        self._standings = self._queue.standings()
        if pace >= _BRISK:
            self._standings = {
                ticket: (position, max(seconds, position / pace))
                for ticket, (position, seconds) in self._standings.items()
                if position > pace * _REPORT_SECONDS
            }
        since = now - _REPORT_SECONDS
        for ticket in self._reporting:
            waiter = self._waiters[ticket]
            if ticket in self._standings and ticket.at <= since and not waiter.done():
                self._waiters[ticket] = loop.create_future()  # for the next decision
                waiter.set_result("report")
        loop.call_later(_REPORT_SECONDS, self._wake_to_report)

    def _advance(self, at: float) -> None:
        """Notify the waiting turns that have been admitted or refused."""
        while (decided := self._queue.next(at=at)) is not None:
            ticket, refusal = decided
            if not self._notify(ticket, refusal):
                if refusal is None:
                    self._queue.forfeit(ticket)
            elif refusal is None:
                self._granted += 1
        self._start_pass()

    def _notify(self, ticket: Ticket, refusal: Refusal | None) -> bool:
        """Wake a waiting turn; whether it is still waiting."""
        waiter = self._waiters[ticket]
        if waiter.done():
            return False
        waiter.set_result(refusal)
        return True

    def _overloaded(self, refusal: Refusal) -> Overloaded:
        return Overloaded(OVERLOADED_DETAIL, retry_after=self._count(refusal))

    def _count(self, refusal: Refusal) -> float:
        """Count a refusal; when to retry, in seconds, with jitter."""
        self.refused[refusal.reason] += 1
        self._unlogged += 1
        if self._unlogged == 1:
            asyncio.get_running_loop().call_later(_LOG_SECONDS, self._log_refused)
        return round(refusal.retry_after * (1.0 + random.random()), 1)  # noqa: S311 - no secret

    def _log_refused(self) -> None:
        """Log one line for all refusals of a second."""
        refused, self._unlogged = self._unlogged, 0
        _log.warning(
            "admission refused %d turns; in flight: %d, limit: %d, queued: %d",
            refused,
            self.in_flight,
            self.limit,
            self.queued,
        )


class _Slot:
    """See `AdmissionGate.slot`; a class, because `contextlib` would cost three times as much."""

    __slots__ = ("_background", "_deadline", "_gate", "_report", "_tenant", "_ticket")

    def __init__(
        self,
        gate: AdmissionGate,
        tenant: str,
        background: bool,
        deadline: float,
        report: Report | None,
    ) -> None:
        self._gate = gate
        self._tenant = tenant
        self._background = background
        self._deadline = deadline
        self._report = report

    async def __aenter__(self) -> None:
        ticket = self._ticket = self._gate.request(self._tenant, self._background, self._deadline)
        if not ticket.active:
            await self._gate.wait(ticket, self._report)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gate.release(self._ticket, succeeded=kind is None)


def open_gate(settings: AdmissionSettings, *, processes: int) -> AdmissionGate:
    """Create the gate of one process.

    Args:
        settings: The configuration.
        processes: Processes that share the machine's memory equally; 0 for one a processor.
    """
    return AdmissionGate(settings, memory_bound=partial(_memory_bound, settings, processes))


def _memory_bound(settings: AdmissionSettings, processes: int) -> int:
    from seawall.admission.memory import memory_bound  # noqa: PLC0415 - only with samples

    if settings.memory_mb:
        return settings.memory_mb << 20
    return memory_bound() // (processes or len(os.sched_getaffinity(0)))


async def sample_load(gate: AdmissionGate) -> None:
    """Measure event loop lag and memory ten times a second, until cancelled.

    Without turns it does so once a second; the next turn has it measure at once. Without it, the
    limit does not adapt.
    """
    from seawall.admission.memory import resident_bytes  # noqa: PLC0415 - only with samples

    clock = asyncio.get_running_loop().time
    while True:
        if gate.idle:
            await gate.wait_arrival(_IDLE_SECONDS)
        due = next_measurement(clock())
        await asyncio.sleep(due - clock())
        now = clock()
        gate.sample(at=now, lag=max(0.0, now - due), memory=resident_bytes())
