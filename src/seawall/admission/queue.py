"""Admission queue: decides which turns start, wait or are refused. Pure; time is passed in.

Slots are shared among priority classes, and among the tenants of a class, by start-time fair
queueing (Goyal, Vin and Cheng, SIGCOMM 1996) in the form that serves many at once, SFQ(D) (Jin,
Chase and Kaur, SIGMETRICS 2004): each tenant has a tag, a virtual time at which its next turn may
start; the smallest tag is served, and advances by cost / weight. A tenant that returns starts at
the present virtual time, so that no tenant saves up. The cost of a turn is the time that it
occupies its slot: a typical time is charged at its start, the difference at its end. So slots are
shared, not starts, and tenants with long answers get no more than others.

Classes (high, normal, low, lowest) are shared the same way, with weights 512, 64, 8 and 1 and a
cost of 1: while a class and the next one wait, eight of nine slots go to the higher. A lower class
is never starved: it gets its share of the slots and of the queue, however many others arrive.
"""

import math
from collections import OrderedDict, deque
from itertools import starmap
from operator import attrgetter, itemgetter
from typing import Literal

from msgspec import Struct

from seawall.settings import AdmissionSettings, TenantSettings

__all__ = [
    "CLASSES",
    "AdmissionQueue",
    "FairQueue",
    "Flow",
    "Reason",
    "RecentMedian",
    "Refusal",
    "StartPacer",
    "Ticket",
]

CLASSES = ("high", "normal", "low", "lowest")
_CLASS_WEIGHTS = (512.0, 64.0, 8.0, 1.0)
_MANY_FLOWS = 1_024

_tag = attrgetter("tag")
_first = itemgetter(0)


class Ticket:
    """A turn that was admitted, until its end.

    Attributes:
        at: When it arrived, then when it got its slot, in seconds.
        charged: Seconds that its tenant was charged at its start.
        flow: The turns of its tenant in its class.
        latest: Until when a slot is of use to it.
        active: Whether it has a slot.
    """

    __slots__ = ("active", "at", "charged", "flow", "latest")

    def __init__(self, flow: "Flow", at: float, latest: float) -> None:
        self.flow = flow
        self.at = at
        self.latest = latest
        self.charged = 0.0
        self.active = False


class Flow:
    """The turns of one tenant in one class."""

    __slots__ = ("active", "cost", "level", "tag", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, weight: float, level: "_PriorityClass") -> None:
        self.tenant = tenant
        self.weight = weight
        self.level = level
        self.tag = 0.0
        self.cost = 1.0  # that was last charged
        self.active = 0
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()

    @property
    def rank(self) -> int:
        """The rank of its class; 0 is the highest."""
        return self.level.rank


class _PriorityClass:
    """A priority class. backlogged: its flows with waiting turns; weights: their sum."""

    __slots__ = (
        "backlogged",
        "flows",
        "greediest",
        "rank",
        "tag",
        "virtual",
        "waiting",
        "weight",
        "weights",
    )

    def __init__(self, rank: int, weight: float) -> None:
        self.rank = rank
        self.weight = weight
        self.tag = 0.0
        self.virtual = 0.0
        self.waiting = 0
        self.weights = 0.0
        self.flows: dict[str, Flow] = {}
        self.backlogged: dict[Flow, None] = {}
        self.greediest: Flow | None = None  # None where it has to be determined


class FairQueue:
    """The turns that wait. Finding the next one takes time in proportion to the waiting tenants."""

    def __init__(self) -> None:
        self._levels = tuple(starmap(_PriorityClass, enumerate(_CLASS_WEIGHTS)))
        self._virtual = 0.0
        self.waiting = 0

    def flow(self, tenant: str, weight: float, rank: int) -> Flow:
        """The tenant's turns in a class; kept while there are any."""
        level = self._levels[rank]
        flow = level.flows.get(tenant)
        if flow is None:
            flow = level.flows[tenant] = Flow(tenant, weight, level)
        return flow

    def waiting_in(self, rank: int) -> int:
        """Turns of a class that wait."""
        return self._levels[rank].waiting

    def charge(self, ticket: Ticket, seconds: float) -> None:
        """The ticket gets a slot; its tenant is charged so many seconds."""
        flow = ticket.flow
        level = flow.level
        if not level.waiting:
            level.tag = max(level.tag, self._virtual)
        self._virtual = max(self._virtual, level.tag)
        level.tag += 1.0 / level.weight
        if not flow.waiting:
            flow.tag = max(flow.tag, level.virtual)
        level.virtual = max(level.virtual, flow.tag)
        flow.tag += seconds / flow.weight
        flow.cost = seconds
        flow.active += 1
        ticket.charged = seconds
        ticket.active = True

    def finish(self, ticket: Ticket, seconds: float) -> None:
        """The ticket's slot was occupied for so many seconds."""
        flow = ticket.flow
        flow.active -= 1
        flow.tag += (seconds - ticket.charged) / flow.weight
        self.forget(flow)

    def forget(self, flow: Flow) -> None:
        """Remove a tenant without turns, once its tag is not ahead of the others'.

        With a great many tenants it is removed in any case, to bound memory.
        """
        level = flow.level
        if flow.active or flow.waiting:
            return
        if flow.tag <= level.virtual or len(level.flows) > _MANY_FLOWS:
            level.flows.pop(flow.tenant, None)

    def push(self, ticket: Ticket) -> None:
        """The ticket waits, behind the others of its tenant."""
        flow = ticket.flow
        level = flow.level
        if not level.waiting:
            level.tag = max(level.tag, self._virtual)
        if not flow.waiting:
            flow.tag = max(flow.tag, level.virtual)
            level.backlogged[flow] = None
            level.weights += flow.weight
        flow.waiting[ticket] = None
        level.waiting += 1
        self.waiting += 1
        greediest = level.greediest
        if greediest is not None and _greed(flow) > _greed(greediest):
            level.greediest = flow

    def next(self) -> Ticket | None:
        """The ticket that is next, still waiting; None if none waits."""
        if not self.waiting:
            return None
        level = min((each for each in self._levels if each.waiting), key=_tag)
        return next(iter(min(level.backlogged, key=_tag).waiting))

    def order(self) -> dict[Ticket, int]:
        """Positions from 1 of all that wait, about as they would get their slots if none came."""
        starts: list[tuple[float, Ticket]] = []
        for level in self._levels:
            tagged = [
                (flow.tag + index * flow.cost / flow.weight, ticket)
                for flow in level.backlogged
                for index, ticket in enumerate(flow.waiting)
            ]
            tagged.sort(key=_first)
            starts += [
                (level.tag + index / level.weight, ticket)
                for index, (_, ticket) in enumerate(tagged)
            ]
        starts.sort(key=_first)  # which keeps the order of equals: higher classes first
        return {ticket: index for index, (_, ticket) in enumerate(starts, 1)}

    def remove(self, ticket: Ticket) -> None:
        """The ticket no longer waits."""
        flow = ticket.flow
        level = flow.level
        del flow.waiting[ticket]
        level.waiting -= 1
        self.waiting -= 1
        if level.greediest is flow:
            level.greediest = None
        if not flow.waiting:
            del level.backlogged[flow]
            level.weights = level.weights - flow.weight if level.backlogged else 0.0

    def ahead(self, tenant: str, weight: float, rank: int) -> float:
        """About how many slots are granted until a new turn of the tenant gets one."""
        level = self._levels[rank]
        flow = level.flows.get(tenant)
        own = len(flow.waiting) if flow is not None else 0
        weights = level.weights if own else level.weights + weight
        classes = sum(each.weight for each in self._levels if each.waiting or each is level)
        share = weight / weights * level.weight / classes
        return min((own + 1) / share, self.waiting + 1.0)

    @property
    def displacement_impossible(self) -> bool:
        """Whether no new turn could displace another: no tenant has two waiting."""
        levels = [each for each in self._levels if each.waiting]
        return self.waiting <= 1 or (len(levels) == 1 and len(_greediest(levels[0]).waiting) <= 1)

    def displaced_by(self, tenant: str, weight: float, rank: int) -> Ticket | None:
        """The waiting ticket that a new turn of the tenant may displace, if any.

        It is the newest of the tenant, or of another class, that has more of the queue than its
        share even after it has lost one turn and the other has gained one.
        """
        level = self._levels[rank]
        worst = max(self._levels, key=_crowding)
        if (
            worst is not level
            and (worst.waiting - 1) / worst.weight >= (level.waiting + 1) / level.weight
        ):
            return next(reversed(_greediest(worst).waiting))
        if not level.waiting:
            return None
        flow = level.flows.get(tenant)
        own = len(flow.waiting) if flow is not None else 0
        greediest = _greediest(level)
        if (len(greediest.waiting) - 1) / greediest.weight >= (own + 1) / weight:
            return next(reversed(greediest.waiting))
        return None


def _greed(flow: Flow) -> float:
    return len(flow.waiting) / flow.weight


def _crowding(level: _PriorityClass) -> float:
    return level.waiting / level.weight


def _greediest(level: _PriorityClass) -> Flow:
    if level.greediest is None:
        level.greediest = max(level.backlogged, key=_greed)
    return level.greediest


Reason = Literal["full", "late", "waited", "displaced"]
_DEFAULT = TenantSettings()
_MAX_RETRY_SECONDS = 60.0  # an estimate made in the first rush is soon out of date
_LOOP_SECONDS = 1.0
_WINDOW = 127
_UPDATE_EVERY = 16
_FORGET_MEDIAN_SECONDS = 30.0
# Of the start pacer.
_FIRST_ALLOWANCE = 8
_MAX_ALLOWANCE = 64
_SHORTEST_PASS = 1e-5
_LONGEST_PASS = 0.25  # a pass counts for no more: a suspended process is no measurement
_KNOWN_AFTER_SECONDS = 3.0
_FORGET_SECONDS = 5.0
_SMOOTHING_SECONDS = 1.0


class Refusal(Struct, frozen=True):
    """A turn was refused.

    Attributes:
        reason: "full", no room even to wait; "late", it cannot be done by its deadline; "waited",
            no slot in time; "displaced", by a tenant with less than its share of the queue.
        retry_after: The expected wait for a slot, 1 to 60 seconds.
    """

    reason: Reason
    retry_after: float


class AdmissionQueue:
    """A bounded, deadline-aware queue that shares slots fairly among tenants.

    A turn whose remaining time is less than a typical turn of its class takes is refused, or taken
    from the queue, instead of being started and cut off. So is a turn whose expected wait is longer
    than it may wait. That limit depends on the queue: a queue that was empty within the last half
    of `wait_seconds` contains a burst, which it can serve; one that has been standing for longer
    only adds latency, and turns may then wait for `overload_wait_seconds` only. That is the
    controlled delay of Maurer, Fail at Scale, ACM Queue 13(8), 2015, after CoDel. Its companion
    there, last in first out, is left out: with waits that short it gains nothing, and would refuse
    the turns that have waited longest.

    A turn waits for two things: a slot, and the event loop (see `StartPacer`). If slots are free,
    as many turns may wait for the loop alone beyond `queued`, each for at least a second:
    `wait_seconds` of 0 means that no turn waits for a slot, not that a burst is refused.

    Every ticket ends exactly once: by `release` or `forfeit` if it got a slot, by `next` if that
    came too late, by `abandon`, or when `admit` displaces it.

    Attributes:
        limit: Turns that may be in flight. Set from outside.
        allowance: Turns that may start until it is set again. Set from outside.
        rate: Turns that start in a second while others wait; 0 if unknown. Set from outside.
        in_flight: Turns that have a slot.
        peak: The most turns in flight since it was reset from outside.
        started: Turns that got a slot since it was reset from outside.
        waited: Seconds for which the turn waited that got a slot last, of those that had to.
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
        self._slot_seconds = 0.0  # moving average of the time that a turn occupies a slot
        self._empty_at = 0.0  # when the queue was last empty
        self.limit = settings.in_flight
        self.allowance = math.inf
        self.rate = 0.0
        self.in_flight = 0
        self.peak = 0
        self.started = 0
        self.waited = 0.0

    @property
    def queued(self) -> int:
        """Turns that wait for a slot."""
        return self._fair.waiting

    def queued_in(self, rank: int) -> int:
        """Turns of a class that wait for a slot."""
        return self._fair.waiting_in(rank)

    @property
    def busy(self) -> bool:
        """Whether a new turn would have to wait."""
        return self.in_flight >= self.limit or self.allowance <= 0 or self._fair.waiting > 0

    @property
    def _full(self) -> bool:
        """Whether no more turns may wait. Those for which there is a slot are not counted."""
        return self._fair.waiting >= self._settings.queued + max(0, self.limit - self.in_flight)

    def standing(self, ticket: Ticket) -> tuple[int, float]:
        """About which position, from 1, a ticket that has just arrived has, and its wait."""
        flow = ticket.flow
        ahead = self._fair.ahead(flow.tenant, flow.weight, flow.rank)  # with itself
        return max(1, int(ahead)), self._wait(ahead)

    def standings(self) -> dict[Ticket, tuple[int, float]]:
        """Position, from 1, and expected wait in seconds of all that wait."""
        order = self._fair.order()
        return {ticket: (position, self._wait(position)) for ticket, position in order.items()}

    def refusal_for_all(self) -> Refusal | None:
        """The refusal of every turn, if none could be admitted, whatever its tenant."""
        if self._full and self._fair.displacement_impossible and self.busy:
            return self._refuse("full")
        return None

    def has_room_for_all(self, *, at: float) -> bool:
        """Whether any interactive turn without a deadline may wait or start, whatever its tenant.

        None waits for longer than behind all that wait now.
        """
        return not self._full and self._wait(self._fair.waiting + 1.0) <= self._allowed_wait(at)

    def refusal(self, tenant: str | None, *, at: float) -> Refusal | None:
        """The refusal that an interactive turn without a deadline would get now, if any.

        Changes nothing.

        Args:
            tenant: The tenant; None if it is not known.
            at: Now, in seconds.
        """
        if not self.busy:
            return None
        if tenant is None:
            return self._refuse("full") if self._full else None
        return self._decide(tenant, self._tenants.get(tenant, self._default), at, at + 1e9)

    def admit(
        self, tenant: str, *, background: bool, at: float, deadline: float
    ) -> tuple[Ticket | Refusal, Ticket | None]:
        """Decide on an arriving turn.

        Args:
            tenant: Its tenant.
            background: Whether it runs in the background, one class lower.
            at: Now, in seconds.
            deadline: Its deadline, on the same clock.

        Returns:
            A ticket that is active or waits, or a refusal; and the waiting ticket that is
            displaced, if any.
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
        """The next ticket that got a slot, or that waited too long, with its refusal."""
        ticket = self._fair.next()
        if ticket is None:
            return None
        if ticket.latest <= at:
            self._remove(ticket, at)
            return ticket, self._refuse("waited")
        if self.in_flight >= self.limit or self.allowance <= 0:
            return None
        self._fair.remove(ticket)
        self._note_empty(at)
        self.waited = at - ticket.at
        ticket.at = at
        self._begin(ticket, self._medians[ticket.flow.rank].seconds(at=at))
        return ticket, None

    def release(self, ticket: Ticket, *, at: float, succeeded: bool) -> None:
        """An active turn has ended; `succeeded` if it was answered."""
        self.in_flight -= 1
        occupied = at - ticket.at
        self._fair.finish(ticket, occupied)
        self._slot_seconds += (occupied - self._slot_seconds) * (
            0.05 if self._slot_seconds else 1.0
        )
        if succeeded:
            self._medians[ticket.flow.rank].record(occupied, at=at)

    def forfeit(self, ticket: Ticket) -> None:
        """A turn does not need the slot that it was granted."""
        self.in_flight -= 1
        self._fair.finish(ticket, 0.0)

    def is_waiting(self, ticket: Ticket) -> bool:
        """Whether the ticket is in the queue."""
        return ticket in ticket.flow.waiting

    def abandon(self, ticket: Ticket, *, at: float) -> None:
        """A waiting turn was cancelled, or its time is over."""
        self._remove(ticket, at)

    def late(self) -> Refusal:
        """The refusal of a ticket whose time is over."""
        return self._refuse("waited")

    def displaced(self) -> Refusal:
        """The refusal of a ticket that was displaced."""
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
        """Seconds until so many turns have started.

        Slots become free at the rate in_flight / seconds in a slot (Little's law). A turn waits
        for a slot only once all of them are taken.
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
        return Refusal(reason, min(max(1.0, wait), _MAX_RETRY_SECONDS))

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


class RecentMedian:
    """The median of the last 127 durations, updated with every sixteenth.

    It is forgotten after 30 seconds without a new one: otherwise an estimate that causes every
    turn to be refused would never be corrected.
    """

    __slots__ = ("_last", "_left", "_median", "_noted_at")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self._left = 0
        self._median = 0.0
        self._noted_at = 0.0

    def record(self, seconds: float, *, at: float) -> None:
        """Add the duration of a turn; `at` is now, in seconds."""
        self._last.append(seconds)
        self._noted_at = at
        self._left -= 1
        if self._left <= 0:
            self._left = _UPDATE_EVERY
            self._median = sorted(self._last)[len(self._last) // 2]

    def seconds(self, *, at: float) -> float:
        """The median, in seconds; 0 if it is not known."""
        if at - self._noted_at > _FORGET_MEDIAN_SECONDS:
            self._last.clear()
            self._left, self._median = 0, 0.0
        return self._median


class StartPacer:
    """Paces the start of turns: how many may start during one pass of the event loop.

    A turn's opening is most of its work. If more turns start than the processor can open, every
    pass of the loop continues all of them and takes seconds, and a new arrival waits as long for a
    mere refusal. So a pass that took longer than its target halves the number, and one that did
    not adds one (Chiu and Jain, Computer Networks 17, 1989). This never leaves the loop idle:
    while turns wait, one pass follows the other.
    """

    def __init__(self, seconds: float) -> None:
        """Start with a small number.

        Args:
            seconds: The target duration of a pass.
        """
        self._seconds = seconds
        self._allowance = _FIRST_ALLOWANCE
        self._rate = 0.0
        self._limited_seconds = 0.0
        self._limited_at = 0.0

    @property
    def allowance(self) -> int:
        """Turns that may start during the next pass."""
        return self._allowance

    def rate(self, *, at: float) -> float:
        """Smoothed rate of turns that start while others wait, per second; 0 if not known.

        It is not known in the first seconds, in which a burst arrives, nor some seconds after
        turns last had to wait. `at` is now, as for `record_pass`.
        """
        known = self._limited_seconds >= _KNOWN_AFTER_SECONDS
        return self._rate if known and at - self._limited_at <= _FORGET_SECONDS else 0.0

    def record_pass(self, took: float, *, started: float, limited: bool, at: float) -> None:
        """Account for a pass of the event loop.

        Args:
            took: How long it took, in seconds.
            started: Turns that started in it.
            limited: Whether more turns would have started.
            at: Now, in seconds on any monotonic clock.
        """
        if took > self._seconds:
            self._allowance = max(1, self._allowance // 2)
        else:
            self._allowance = min(_MAX_ALLOWANCE, self._allowance + 1)
        if limited:
            if at - took - self._limited_at > _FORGET_SECONDS:
                self._rate = self._limited_seconds = 0.0
            self._limited_at = at
            took = max(took, _SHORTEST_PASS)
            weight = min(took, _LONGEST_PASS)
            self._limited_seconds += weight
            counts = 1.0 - math.exp(-weight / _SMOOTHING_SECONDS)
            self._rate += (started / took - self._rate) * counts
