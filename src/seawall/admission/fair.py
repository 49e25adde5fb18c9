"""Fair queueing: shares slots among priority classes, and among the tenants of a class.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) in the form that serves many at once,
SFQ(D) (Jin, Chase and Kaur, SIGMETRICS 2004): each tenant has a tag, a virtual time at which its
next turn may start; the smallest tag is served, and advances by cost / weight. A tenant that
returns starts at the present virtual time, so that no tenant saves up. The cost of a turn is the
time that it occupies its slot: a typical time is charged at its start, the difference at its end.
So slots are shared, not starts, and tenants with long answers get no more than others.

Classes (high, normal, low, lowest) are shared the same way, with weights 512, 64, 8 and 1 and a
cost of 1: while a class and the next one wait, eight of nine slots go to the higher. A lower class
is never starved: it gets its share of the slots and of the queue, however many others arrive.
"""

from collections import OrderedDict
from itertools import starmap
from operator import attrgetter

__all__ = ["CLASSES", "FairQueue", "Flow", "Ticket"]

CLASSES = ("high", "normal", "low", "lowest")
_CLASS_WEIGHTS = (512.0, 64.0, 8.0, 1.0)
_MANY_FLOWS = 1_024

_tag = attrgetter("tag")


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

    __slots__ = ("active", "level", "tag", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, weight: float, level: "_PriorityClass") -> None:
        self.tenant = tenant
        self.weight = weight
        self.level = level
        self.tag = 0.0
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
        """The ticket waits."""
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
