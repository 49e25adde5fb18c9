"""Who runs, who waits, who is refused: decisions only, without sockets, tasks or clocks."""

import math
from typing import Literal

from msgspec import Struct

from seawall.admission.fair import CLASSES, FairQueue, Ticket
from seawall.admission.settings import AdmissionSettings, TenantSettings
from seawall.admission.typical import RecentMedian

__all__ = ["AdmissionQueue", "Reason", "Refusal"]

Reason = Literal["full", "late", "waited", "displaced"]
_DEFAULT = TenantSettings()
_LATEST_RETURN = 60.0  # seconds: what is expected in the first rush is soon out of date
_LOOP_SECONDS = 1.0


class Refusal(Struct, frozen=True):
    """There is no room. `retry_after` is the expected wait for a place, 1 to 60 seconds.

    reason: "full", no room even to wait; "late", not to be done by its deadline any more;
    "waited", in vain; "displaced", by a tenant that had less than its share of the queue.
    """

    reason: Reason
    retry_after: float


class AdmissionQueue:
    """A bounded queue that serves those who can still make it, fairly (see `fair`).

    A turn whose time left is less than a typical turn of its class takes is refused at once, or
    taken from the queue, rather than started in vain. So is one whose expected wait is longer
    than it may wait, and that depends on the queue: a queue that was empty within half of
    `wait_seconds` holds a burst, which it can serve; one that has been standing for longer only
    adds its length to everybody's latency, and turns may then wait `overload_wait_seconds` only.
    That is the controlled delay of Maurer, Fail at Scale, ACM Queue 13(8), 2015, after CoDel.
    Its companion there, last in first out, is left out: with waits that short it has nothing to
    win, and whoever had waited longest would be refused after all.

    There are two things to wait for: a place, and the event loop (see `pacing`). Where places are
    free, as many turns may wait for the loop alone beyond `queued`, each for a second at least:
    `wait_seconds` of 0 means that nobody waits for a place, not that a burst finds none.

    Every ticket ends exactly once: by `release` or `forfeit` when it got a place, by `next` when that
    came too late, by `abandon`, or as the one whom `admit` pushes out.

    limit: turns that may be in flight; allowance: how many may begin until it is set anew; rate:
    about how many a second begin so while others wait, 0 for unknown. Changed from outside, as
    are the marks most, the most that were in flight, and began, how many got a place.
    """

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._tenants = {
            name: (each.weight, CLASSES.index(each.priority))
            for name, each in settings.tenants.items()
        }
        self._default = (_DEFAULT.weight, CLASSES.index(_DEFAULT.priority))
        self._fair = FairQueue()
        self._medians = tuple(RecentMedian() for _ in CLASSES)
        self._slot_seconds = 0.0  # moving average of how long a turn holds its place
        self._empty_at = 0.0  # when nobody waited last
        self.limit = settings.in_flight
        self.allowance = math.inf
        self.rate = 0.0
        self.in_flight = 0
        self.peak = 0
        self.started = 0

    @property
    def queued(self) -> int:
        """Turns that wait for a place."""
        return self._fair.waiting

    def queued_in(self, rank: int) -> int:
        """Those of a class."""
        return self._fair.waiting_in(rank)

    @property
    def busy(self) -> bool:
        """Whether a newcomer could not be given a place at once."""
        return self._blocked or self._fair.waiting > 0

    @property
    def behind(self) -> bool:
        """Whether turns wait only because too many would begin at once."""
        return self._fair.waiting > 0 and self.in_flight < self.limit

    @property
    def _full(self) -> bool:
        """Whether nobody more may wait. Whoever has a place waiting for it is not counted."""
        return self._fair.waiting >= self._settings.queued + max(0, self.limit - self.in_flight)

    @property
    def _blocked(self) -> bool:
        return self.in_flight >= self.limit or self.allowance <= 0

    def refusal_for_all(self) -> Refusal | None:
        """The refusal of everybody, where nobody could get in, whoever it is."""
        if self._full and self._fair.displacement_impossible and self.busy:
            return self._refuse("full")
        return None

    def refusal(self, tenant: str | None, *, at: float) -> Refusal | None:
        """The refusal that an interactive turn without a deadline would get now, if any.

        tenant: None for somebody of whom nothing is known. Nothing is kept of the question.
        """
        if not self.busy:
            return None
        if tenant is None:
            return self._refuse("full") if self._full else None
        return self._decide(tenant, self._tenants.get(tenant, self._default), at, at + 1e9)

    def admit(
        self, tenant: str, *, background: bool, at: float, deadline: float
    ) -> tuple[Ticket | Refusal, Ticket | None]:
        """Decide on an arrival; its ticket runs or waits. The second is the one it pushes out.

        at, deadline: seconds on one monotonic clock.
        """
        weight, rank = self._tenants.get(tenant, self._default)
        rank += background
        typical = self._medians[rank].seconds(at=at)
        if deadline - at < typical:
            return self._refuse("late"), None
        if not self.busy:
            ticket = Ticket(self._fair.flow(tenant, weight, rank), at, deadline)
            self._begin(ticket, typical)
            return ticket, None
        refusal = self._decide(tenant, (weight, rank), at, deadline - typical)
        if refusal is not None:
            return refusal, None
        displaced = None
        if self._full:
            displaced = self._fair.displaced_by(tenant, weight, rank)
            if displaced is not None:
                self._remove(displaced, at)
        if not self._fair.waiting:
            self._empty_at = at
        latest = min(at + self._allowed_wait(at), deadline - typical)
        ticket = Ticket(self._fair.flow(tenant, weight, rank), at, latest)
        self._fair.push(ticket)
        return ticket, displaced

    def next(self, *, at: float) -> tuple[Ticket, Refusal | None] | None:
        """The next to be told, as long as there are: it has a place, or came too late for one."""
        ticket = self._fair.next()
        if ticket is None:
            return None
        if ticket.latest <= at:
            self._remove(ticket, at)
            return ticket, self._refuse("waited")
        if self._blocked:
            return None
        self._fair.remove(ticket)
        self._note_empty(at)
        ticket.at = at
        self._begin(ticket, self._medians[ticket.flow.rank].seconds(at=at))
        return ticket, None

    def release(self, ticket: Ticket, *, at: float, succeeded: bool) -> None:
        """A turn that ran has ended, and its place is free; `succeeded` when it was answered."""
        self.in_flight -= 1
        occupied = at - ticket.at
        self._fair.finish(ticket, occupied)
        self._slot_seconds += (occupied - self._slot_seconds) * (
            0.05 if self._slot_seconds else 1.0
        )
        if succeeded:
            self._medians[ticket.flow.rank].record(occupied, at=at)

    def forfeit(self, ticket: Ticket) -> None:
        """A turn that was given a place has no use for it."""
        self.in_flight -= 1
        self._fair.finish(ticket, 0.0)

    def is_waiting(self, ticket: Ticket) -> bool:
        """Whether the ticket is in the queue."""
        return ticket in ticket.flow.waiting

    def abandon(self, ticket: Ticket, *, at: float) -> None:
        """A turn that waited went away, or its time is over."""
        self._remove(ticket, at)

    def late(self) -> Refusal:
        """The refusal of a ticket whose time is over."""
        return self._refuse("waited")

    def displaced(self) -> Refusal:
        """The refusal of a ticket that was pushed out."""
        return self._refuse("displaced")

    def _decide(
        self, tenant: str, standing: tuple[float, int], at: float, deadline: float
    ) -> Refusal | None:
        weight, rank = standing
        wait = self._wait(self._fair.ahead(tenant, weight, rank))
        latest = at + self._allowed_wait(at)
        if at + wait > min(latest, deadline):
            return self._refuse("full" if latest <= deadline else "late")
        if self._full and self._fair.displaced_by(tenant, weight, rank) is None:
            return self._refuse("full")
        return None

    def _wait(self, ahead: float) -> float:
        """Seconds until so many have begun: as places come free, in_flight / held (Little).

        Who has to wait for a place does so once all of them are taken.
        """
        slots = max(0.0, ahead + self.in_flight - self.limit)
        wait = slots * self._slot_seconds / max(1, self.limit, self.in_flight)
        return max(wait, ahead / self.rate) if self.rate else wait

    def _allowed_wait(self, at: float) -> float:
        settings = self._settings
        longest = settings.wait_seconds
        if self._fair.waiting < self.limit - self.in_flight:
            longest = max(longest, _LOOP_SECONDS)
        if self._fair.waiting and at - self._empty_at > longest / 2:
            return min(longest, settings.overload_wait_seconds)
        return longest

    def _refuse(self, reason: Reason) -> Refusal:
        wait = self._wait(self._fair.waiting + 1.0)
        return Refusal(reason, min(max(1.0, wait), _LATEST_RETURN))

    def _begin(self, ticket: Ticket, typical: float) -> None:
        self.in_flight += 1
        self.allowance -= 1
        self.started += 1
        self.peak = max(self.peak, self.in_flight)
        self._fair.charge(ticket, typical or 1.0)

    def _remove(self, ticket: Ticket, at: float) -> None:
        self._fair.remove(ticket)
        self._fair.forget(ticket.flow)
        self._note_empty(at)

    def _note_empty(self, at: float) -> None:
        if not self._fair.waiting:
            self._empty_at = at
