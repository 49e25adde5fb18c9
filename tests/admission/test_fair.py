"""Fair queueing: bounds for any weights and any number of tenants."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.admission.queue import FairQueue, Ticket


def backlog(fair: FairQueue, tenant: str, weight: float, count: int, rank: int = 1) -> None:
    flow = fair.flow(tenant, weight, rank)
    for _ in range(count):
        fair.push(Ticket(flow, 0.0, 1e9))


def serve(fair: FairQueue, seconds: float) -> Ticket:
    ticket = fair.next()
    assert ticket is not None
    fair.remove(ticket)
    fair.charge(ticket, seconds)
    return ticket


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5),
    st.integers(1, 8),
    st.integers(0, 40),
)
def test_slots_are_granted_in_proportion_to_weights(
    weights: list[float], depth: int, before: int
) -> None:
    """SFQ's bound for unit costs: |n/w - m/v| <= 1/w + 1/v, over any time both are backlogged."""
    fair = FairQueue()
    for number, weight in enumerate(weights):
        backlog(fair, str(number), weight, 300)
    active: list[Ticket] = []
    given_to = Counter[str]()
    for step in range(before + 120):
        if step == before:
            given_to.clear()
        if len(active) == depth:
            fair.finish(active.pop(0), 1.0)
        active.append(serve(fair, 1.0))
        given_to[active[-1].flow.tenant] += 1
    for one, weight in enumerate(weights):
        for other, another in enumerate(weights):
            apart = given_to[str(one)] / weight - given_to[str(other)] / another
            assert abs(apart) <= 2 * (1 / weight + 1 / another) + 1e-6


def test_slots_are_shared_not_starts() -> None:
    """Two tenants, one with turns ten times as long: each occupies half of the slots' time."""
    fair = FairQueue()
    takes = {"long": 10.0, "short": 1.0}
    for tenant in takes:
        backlog(fair, tenant, 1.0, 20_000)
    occupied = Counter[str]()
    active: list[tuple[float, Ticket]] = []
    now = 0.0
    while now < 1_000.0:
        while len(active) < 20:
            ticket = serve(fair, 2.0)
            active.append((now + takes[ticket.flow.tenant], ticket))
        active.sort(key=lambda each: each[0])
        now, ticket = active.pop(0)
        fair.finish(ticket, takes[ticket.flow.tenant])
        occupied[ticket.flow.tenant] += round(takes[ticket.flow.tenant])
    assert 0.9 < occupied["long"] / occupied["short"] < 1.1


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 20))
def test_a_new_tenant_does_not_wait_for_an_earlier_crowd(crowd: int, depth: int) -> None:
    fair = FairQueue()
    backlog(fair, "crowd", 1.0, crowd + depth)
    for _ in range(depth):
        serve(fair, 1.0)
    backlog(fair, "new", 1.0, 1)
    assert "new" in [serve(fair, 1.0).flow.tenant for _ in range(2)]


def test_an_absent_tenant_accumulates_no_credit() -> None:
    """A tenant without turns for a long time gets no more than its share afterwards."""
    fair = FairQueue()
    backlog(fair, "there", 1.0, 2_000)
    for _ in range(1_000):
        fair.finish(serve(fair, 1.0), 1.0)
    backlog(fair, "back", 1.0, 100)
    first = Counter(serve(fair, 1.0).flow.tenant for _ in range(40))
    assert abs(first["there"] - first["back"]) <= 2


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), st.integers(1, 5))
def test_no_class_is_starved(ranks: list[int], tenants: int) -> None:
    fair = FairQueue()
    for rank in ranks:
        for number in range(tenants):
            backlog(fair, str(number), 1.0, 700, rank)
    served = Counter(serve(fair, 1.0).flow.level.weight for _ in range(630))
    assert len(served) == len(ranks)
    if len(ranks) > 1:
        high, low = sorted(served, reverse=True)[:2]
        assert abs(served[high] / high - served[low] / low) <= 1 / high + 1 / low


def test_tenants_without_turns_are_forgotten() -> None:
    fair = FairQueue()
    for number in range(3_000):
        backlog(fair, str(number), 1.0, 1)
        fair.finish(serve(fair, 1.0), 0.5)
    assert len(fair._levels[1].flows) <= 1_025


@given(
    pushed=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([0, 1, 2])), min_size=1, max_size=30
    ),
    costs=st.lists(st.floats(0.1, 5.0), min_size=30, max_size=30),
)
def test_the_order_is_that_in_which_they_are_served(
    pushed: list[tuple[str, int]], costs: list[float]
) -> None:
    """Exactly for the head and within a tenant; each ticket has one position."""
    queue = FairQueue()
    tickets = []
    for tenant, rank in pushed:
        ticket = Ticket(queue.flow(tenant, 1.0, rank), 0.0, 1.0)
        queue.push(ticket)
        tickets.append(ticket)
    for cost in costs:
        order = queue.order()
        assert sorted(order.values()) == list(range(1, queue.waiting + 1))
        for flow in {each.flow for each in order}:
            positions = [order[each] for each in flow.waiting]
            assert positions == sorted(positions)
        head = queue.next()
        if head is None:
            break
        assert order[head] == 1
        queue.remove(head)
        queue.charge(head, cost)
