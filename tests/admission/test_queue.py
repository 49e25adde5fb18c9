"""Admission queue as a pure object: time is an argument."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.admission.queue import AdmissionQueue, Refusal, Ticket
from seawall.settings import AdmissionSettings, TenantSettings
from tests.properties import examples

FOREVER = 1e9


def queue_of(in_flight: int = 2, queued: int = 2, **more: Any) -> AdmissionQueue:
    return AdmissionQueue(AdmissionSettings(in_flight=in_flight, queued=queued, **more))


def admit(
    queue: AdmissionQueue,
    tenant: str = "acme",
    *,
    at: float = 0.0,
    deadline: float = FOREVER,
    background: bool = False,
) -> Ticket | Refusal:
    decision, displaced = queue.admit(tenant, background=background, at=at, deadline=deadline)
    assert displaced is None
    return decision


def ticket(queue: AdmissionQueue, tenant: str = "acme", **more: Any) -> Ticket:
    decision = admit(queue, tenant, **more)
    assert isinstance(decision, Ticket), decision
    return decision


def refusal(queue: AdmissionQueue, tenant: str = "acme", **more: Any) -> Refusal:
    decision = admit(queue, tenant, **more)
    assert isinstance(decision, Refusal), decision
    return decision


def granted(queue: AdmissionQueue, at: float) -> Ticket:
    decided = queue.next(at=at)
    assert decided is not None
    assert decided[1] is None
    return decided[0]


def pass_through(queue: AdmissionQueue, *, seconds: float, at: float, count: int = 1) -> None:
    """Turns that take so long, so that the queue knows; the last one ends at `at`."""
    for _ in range(count):
        queue.release(ticket(queue, at=at - seconds), at=at, succeeded=True)


def test_a_free_slot_is_granted_at_once() -> None:
    queue = queue_of()
    assert [ticket(queue).active for _ in range(2)] == [True, True]
    assert (queue.in_flight, queue.queued, queue.busy) == (2, 0, True)


def test_a_tenant_gets_slots_in_the_order_of_arrival() -> None:
    queue = queue_of()
    active = [ticket(queue) for _ in range(2)]
    first, second = ticket(queue), ticket(queue)
    assert queue.next(at=1.0) is None
    for each, expected in zip(active, (first, second), strict=True):
        queue.release(each, at=1.0, succeeded=True)
        assert granted(queue, 1.0) is expected
    assert queue.next(at=1.0) is None


def test_the_wait_of_the_turn_that_started_last_is_known() -> None:
    queue = queue_of(in_flight=1)
    active = ticket(queue, at=1.0)
    assert queue.waited == 0.0
    waiting = ticket(queue, at=2.0)
    queue.release(active, at=2.75, succeeded=True)
    assert granted(queue, 2.75) is waiting
    assert queue.waited == 0.75


def test_a_full_queue_refuses_at_once() -> None:
    queue = queue_of()
    for _ in range(4):
        ticket(queue)
    full = refusal(queue)
    assert (full.reason, full.retry_after >= 1.0) == ("full", True)
    assert queue.refusal("acme", at=0.0) == full
    assert queue.refusal(None, at=0.0) == full


def test_unknown_tenants_are_not_refused_while_slots_are_free() -> None:
    queue = queue_of()
    assert queue.refusal("acme", at=0.0) is None
    ticket(queue)
    assert queue.refusal("unknown", at=0.0) is None


def test_a_turn_that_cannot_meet_its_deadline_does_not_wait() -> None:
    queue = queue_of(in_flight=1, queued=100)
    pass_through(queue, seconds=4.0, at=0.0)
    ticket(queue)
    assert refusal(queue, deadline=7.9).reason == "late"  # a slot in 4 s, and 4 s for the turn
    waiting = ticket(queue, deadline=8.1)
    assert waiting.latest == pytest.approx(4.1)
    assert refusal(queue, deadline=11.9).reason == "late"  # one is ahead now


def test_a_turn_with_less_time_than_a_typical_turn_takes_is_refused() -> None:
    queue = queue_of(in_flight=5)
    pass_through(queue, seconds=4.0, at=0.0)
    assert refusal(queue, deadline=3.9).reason == "late"
    assert ticket(queue, deadline=4.0).active
    # No turn can disprove such an estimate, so it expires soon.
    assert ticket(queue, at=31.0, deadline=31.5).active


def test_a_turn_whose_expected_wait_exceeds_the_limit_is_refused() -> None:
    queue = queue_of(in_flight=1, queued=100)
    pass_through(queue, seconds=6.0, at=0.0)
    ticket(queue)
    ticket(queue)
    assert refusal(queue) == Refusal("full", 12.0)


def test_a_turn_that_waited_too_long_is_refused() -> None:
    queue = queue_of(in_flight=1, queued=10, wait_seconds=5.0)
    active = ticket(queue)
    early, late = ticket(queue), ticket(queue, at=1.0)
    queue.release(active, at=5.5, succeeded=True)
    decided = queue.next(at=5.5)
    assert decided is not None
    assert decided[0] is early
    assert isinstance(decided[1], Refusal)
    assert granted(queue, 5.5) is late


def test_a_queue_that_stands_grants_less_time() -> None:
    queue = queue_of(in_flight=1, queued=10, wait_seconds=5.0, overload_wait_seconds=0.5)
    pass_through(queue, seconds=0.1, at=0.0, count=20)
    active = ticket(queue)
    assert ticket(queue, at=0.0).latest == 5.0
    assert ticket(queue, at=2.4).latest == pytest.approx(7.4)
    assert ticket(queue, at=2.6).latest == pytest.approx(
        3.1
    )  # the queue has not been empty since 0
    queue.release(active, at=20.0, succeeded=True)
    while queue.next(at=20.0) is not None:
        pass
    assert queue.queued == 0
    queue.limit = 0
    assert ticket(queue, at=20.0).latest == 25.0  # it was empty: a new burst


def test_a_lower_limit_makes_more_turns_wait_at_once() -> None:
    queue = queue_of(in_flight=4, queued=10)
    active = [ticket(queue) for _ in range(4)]
    waiting = [ticket(queue) for _ in range(3)]
    queue.limit = 2
    for each in active[:2]:
        queue.release(each, at=0.0, succeeded=True)
        assert queue.next(at=0.0) is None
    queue.limit = 4
    assert [granted(queue, 0.0) for _ in range(2)] == waiting[:2]
    assert queue.next(at=0.0) is None


def test_in_a_full_queue_the_newest_turn_of_the_largest_tenant_is_displaced() -> None:
    queue = queue_of(in_flight=1, queued=4)
    ticket(queue, "big")
    big = [ticket(queue, "big") for _ in range(4)]
    assert refusal(queue, "big").reason == "full"
    assert queue.refusal("small", at=0.0) is None
    small, displaced = queue.admit("small", background=False, at=0.0, deadline=FOREVER)
    assert isinstance(small, Ticket)
    assert displaced is big[-1]
    second, displaced = queue.admit("small", background=False, at=0.0, deadline=FOREVER)
    assert isinstance(second, Ticket)
    assert displaced is big[-2]
    assert refusal(queue, "small").reason == "full"  # each has its half
    assert queue.queued == 4


def test_weights_count_in_the_queue_too() -> None:
    tenants = {"heavy": TenantSettings(weight=3.0)}
    queue = queue_of(in_flight=1, queued=8, tenants=tenants)
    ticket(queue, "light")
    for _ in range(8):
        ticket(queue, "light")
    won = 0
    while isinstance(queue.admit("heavy", background=False, at=0.0, deadline=FOREVER)[0], Ticket):
        won += 1
    assert won == 6


def test_background_turns_are_displaced_first_but_do_not_starve() -> None:
    queue = queue_of(in_flight=1, queued=40, wait_seconds=FOREVER)
    active = ticket(queue)
    background = [ticket(queue, "calm", background=True) for _ in range(20)]
    interactive = [ticket(queue) for _ in range(20)]
    pushed = queue.admit("acme", background=False, at=0.0, deadline=FOREVER)[1]
    assert pushed is background[-1]
    order = []
    for _ in range(20):
        queue.release(active, at=0.0, succeeded=True)
        active = granted(queue, 0.0)
        order.append("i" if active in interactive else "b")
    assert order.count("b") in (2, 3)  # one of nine
    assert order[:9].count("b") == 1


def test_a_tenants_priority_is_a_class() -> None:
    tenants = {
        "gold": TenantSettings(priority="high"),
        "free": TenantSettings(priority="low"),
    }
    queue = queue_of(in_flight=1, queued=90, wait_seconds=FOREVER, tenants=tenants)
    active = ticket(queue)
    for tenant in ("free", "other", "gold"):
        for _ in range(30):
            ticket(queue, tenant)
    assert [queue.queued_in(rank) for rank in range(4)] == [30, 30, 30, 0]
    first = Counter[str]()
    for _ in range(30):
        queue.release(active, at=0.0, succeeded=True)
        active = granted(queue, 0.0)
        first[active.flow.tenant] += 1
    assert first["gold"] >= 25
    assert first["other"] >= 2
    assert first["free"] >= 1


def test_all_are_refused_only_if_no_turn_could_displace_another() -> None:
    queue = queue_of(in_flight=1, queued=2)
    ticket(queue, "one")
    ticket(queue, "one")
    assert queue.refusal_for_all() is None
    other = ticket(queue, "two")
    assert queue.refusal_for_all() is not None
    queue.abandon(other, at=0.0)
    ticket(queue, "one")
    assert queue.refusal_for_all() is None  # one of the two may have to go


def test_refused_tenants_are_not_stored() -> None:
    queue = queue_of(in_flight=1, queued=1)
    ticket(queue)
    ticket(queue)
    for number in range(100):
        queue.refusal(f"made-up-{number}", at=0.0)
    assert len(queue._fair._levels[1].flows) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["enter", "enter", "enter", "release", "release", "give up", "limit", "wait"]
        ),
        st.integers(0, 7),
        st.booleans(),
        st.floats(0.0, 3.0),
    ),
    max_size=150,
)


@examples(66, 1_000)
@given(STEPS, st.integers(1, 6), st.integers(0, 6))
def test_every_turn_ends_once_and_no_slot_is_idle_while_a_turn_waits(  # noqa: C901 - a machine
    steps: list[tuple[str, int, bool, float]], in_flight: int, queued: int
) -> None:
    tenants = {"0": TenantSettings(weight=4.0), "1": TenantSettings(priority="high")}
    queue = queue_of(in_flight=in_flight, queued=queued, wait_seconds=4.0, tenants=tenants)
    active, waiting = list[Ticket](), list[Ticket]()
    ends = Counter[int]()
    tickets = list[Ticket]()
    at = 0.0

    def drain() -> None:
        while (decided := queue.next(at=at)) is not None:
            each, refused = decided
            waiting.remove(each)
            if refused is None:
                assert each.latest > at
                active.append(each)
            else:
                ends[id(each)] += 1

    for step, number, flag, seconds in steps:
        if step == "enter":
            decision, displaced = queue.admit(
                str(number % 4), background=flag, at=at, deadline=at + 2 * seconds
            )
            if displaced is not None:
                assert isinstance(decision, Ticket)
                waiting.remove(displaced)
                ends[id(displaced)] += 1
            if isinstance(decision, Ticket):
                tickets.append(decision)
                (active if decision.active else waiting).append(decision)
        elif step == "release" and active:
            each = active.pop(number % len(active))
            ends[id(each)] += 1
            queue.release(each, at=at, succeeded=flag)
        elif step == "give up" and waiting:
            each = waiting.pop(number % len(waiting))
            ends[id(each)] += 1
            queue.abandon(each, at=at)
        elif step == "limit":
            queue.limit = 1 + number % in_flight
        elif step == "wait":
            at += seconds
        before = len(active)
        drain()
        assert len(active) <= max(before, queue.limit)  # never more than the limit are let in
        assert len(active) <= in_flight
        assert not (waiting and queue.in_flight < queue.limit)
        assert (queue.in_flight, queue.queued) == (len(active), len(waiting))
        assert all(queue.is_waiting(each) for each in waiting)
        assert queue.queued <= queued
        if queue.has_room_for_all(at=at):
            names = ("0", "1", "2", "3", "new", None)
            assert not any(queue.refusal(tenant, at=at) for tenant in names)
    at += 100.0
    for each in active:
        ends[id(each)] += 1
        queue.release(each, at=at, succeeded=True)
    active.clear()
    drain()
    for each in active:
        ends[id(each)] += 1
        queue.release(each, at=at, succeeded=True)
    assert (queue.in_flight, queue.queued) == (0, 0)
    assert all(ends[id(each)] == 1 for each in tickets)


def test_the_expected_wait_counts_all_slots_though_few_are_taken() -> None:
    """1,000 slots, each occupied for 10 s, are 100 a second: the 500th beyond waits for 5 s."""
    queue = queue_of(in_flight=1_000, queued=1_000, wait_seconds=6.0)
    pass_through(queue, seconds=10.0, at=0.0)
    queue.allowance = 8
    for _ in range(1_500):
        ticket(queue, at=10.0, deadline=1_000.0)
    assert (queue.in_flight, queue.queued) == (8, 1_492)
    for _ in range(200):
        if isinstance(queue.admit("acme", background=False, at=10.0, deadline=1_000.0)[0], Refusal):
            break
    assert 1_590 <= queue.in_flight + queue.queued <= 1_610  # 600 beyond would wait for 6 s


def test_long_background_turns_do_not_cause_refusals_of_short_turns() -> None:
    queue = queue_of(in_flight=200)
    at = 0.0
    for _ in range(300):
        at += 1.0
        long = ticket(queue, at=at - 150.0, background=True)
        queue.release(long, at=at, succeeded=True)
    quick = ticket(queue, at=at, deadline=at + 120.0)
    queue.release(quick, at=at + 2.0, succeeded=True)
    assert refusal(queue, at=at, deadline=at + 120.0, background=True).reason == "late"
