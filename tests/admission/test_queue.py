"""The admission queue as a pure object: times are arguments, nothing waits."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.admission.queue import AdmissionLimits, AdmissionQueue, Refusal


def _full(in_flight: int = 2, queued: int = 2, wait: float = 10.0) -> AdmissionQueue:
    queue = AdmissionQueue(AdmissionLimits(in_flight, queued, wait))
    for _ in range(in_flight):
        assert queue.enter(at=0.0, deadline=60.0) == ("run", 0)
    return queue


def test_a_free_place_is_given_at_once() -> None:
    queue = _full()
    assert (queue.in_flight, queue.queued) == (2, 0)


def test_places_go_to_those_who_wait_in_the_order_of_their_coming() -> None:
    queue = _full()
    _, first = queue.enter(at=0.0, deadline=60.0)
    _, second = queue.enter(at=0.0, deadline=60.0)
    assert queue.release(at=1.0) == first
    assert queue.release(at=1.0) == second
    assert queue.release(at=1.0) is None
    assert queue.in_flight == 1


def test_a_full_queue_refuses_at_once() -> None:
    queue = _full()
    queue.enter(at=0.0, deadline=60.0)
    queue.enter(at=0.0, deadline=60.0)
    decision, _ = queue.enter(at=0.0, deadline=60.0)
    assert isinstance(decision, Refusal)
    assert decision.retry_after >= 1.0


def test_who_cannot_make_the_deadline_is_not_made_to_wait() -> None:
    queue = _full(in_flight=1, queued=100)
    queue.observe(4.0)  # turns take four seconds, so the next place is four seconds away
    assert isinstance(queue.enter(at=0.0, deadline=3.9)[0], Refusal)
    assert queue.enter(at=0.0, deadline=4.1)[0] == "wait"
    assert isinstance(queue.enter(at=0.0, deadline=7.9)[0], Refusal)  # one is ahead now


def test_a_wait_longer_than_the_limit_is_refused_with_the_expected_wait() -> None:
    queue = _full(in_flight=1, queued=100, wait=10.0)
    queue.observe(6.0)
    assert queue.enter(at=0.0, deadline=99.0)[0] == "wait"
    assert queue.enter(at=0.0, deadline=99.0)[0] == Refusal(12.0)


def test_whose_time_has_passed_is_not_given_a_place() -> None:
    queue = _full(in_flight=1, queued=10, wait=5.0)
    queue.enter(at=0.0, deadline=60.0)
    _, late = queue.enter(at=1.0, deadline=60.0)
    assert queue.release(at=5.5) == late


@given(
    st.lists(st.sampled_from(["enter", "release", "give up"]), max_size=200),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_never_more_in_flight_or_queued_than_allowed(
    steps: list[str], in_flight: int, queued: int
) -> None:
    queue = AdmissionQueue(AdmissionLimits(in_flight, queued, 100.0))
    running, waiting = 0, list[int]()
    for at, step in enumerate(steps):
        if step == "enter":
            decision, ticket = queue.enter(at=at, deadline=at + 1e9)
            if decision == "run":
                assert not waiting, "a newcomer must not pass those who wait"
                running += 1
            elif decision == "wait":
                waiting.append(ticket)
        elif step == "release" and running:
            successor = queue.release(at=at)
            if successor is None:
                running -= 1
            else:
                assert successor in waiting
                waiting.remove(successor)
        elif step == "give up" and waiting:
            queue.give_up(waiting.pop(0))
        assert queue.in_flight == running <= in_flight
        assert queue.queued == len(waiting) <= queued
