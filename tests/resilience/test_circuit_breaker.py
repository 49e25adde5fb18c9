"""Circuit breaker: opens by failure rate, probes, closes or stays open for longer."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.resilience import CircuitBreaker


def a_breaker(**changed: float) -> CircuitBreaker:
    settings = {
        "failure_rate": 0.5,
        "window_seconds": 10.0,
        "min_calls": 4,
        "open_seconds": 5.0,
        "probes": 2,
    } | changed
    return CircuitBreaker(
        failure_rate=settings["failure_rate"],
        window_seconds=settings["window_seconds"],
        min_calls=int(settings["min_calls"]),
        open_seconds=settings["open_seconds"],
        probes=int(settings["probes"]),
    )


def call(breaker: CircuitBreaker, *, failed: bool, at: float) -> None:
    ticket = breaker.acquire(at=at)
    assert ticket is not None
    breaker.record(ticket, failed=failed, at=at)


def opened(at: float = 0.0) -> CircuitBreaker:
    breaker = a_breaker()
    for _ in range(4):
        call(breaker, failed=True, at=at)
    return breaker


def test_too_few_calls_do_not_open_it() -> None:
    breaker = a_breaker()
    for _ in range(3):
        call(breaker, failed=True, at=0.0)
    assert breaker.state(at=0.0) == "closed"


def test_it_opens_when_half_of_the_calls_fail() -> None:
    breaker = a_breaker()
    for failed in (False, False, True, True):
        call(breaker, failed=failed, at=1.0)
    assert breaker.state(at=1.0) == "open"
    assert breaker.acquire(at=5.9) is None
    assert breaker.retry_after(at=5.0) == 1.0


def test_old_failures_expire() -> None:
    breaker = a_breaker()
    for at in (0.0, 0.1, 0.2):
        call(breaker, failed=True, at=at)
    call(breaker, failed=True, at=20.0)
    assert breaker.state(at=20.0) == "closed"


def test_concurrent_probes_are_bounded() -> None:
    breaker = opened()
    assert breaker.state(at=5.0) == "half-open"
    assert breaker.acquire(at=5.0) is not None
    second = breaker.acquire(at=5.0)
    assert second is not None
    assert breaker.acquire(at=5.0) is None
    breaker.discard(second)  # its caller went away: the probe is free again
    assert breaker.acquire(at=5.1) is not None


def test_successful_probes_close_it() -> None:
    breaker = opened()
    call(breaker, failed=False, at=5.0)
    assert breaker.state(at=5.0) == "half-open"
    call(breaker, failed=False, at=5.1)
    assert breaker.state(at=5.1) == "closed"


def test_a_failed_probe_doubles_the_open_time_up_to_a_bound() -> None:
    breaker = opened()
    at, stays = 0.0, []
    for _ in range(7):
        stays.append(breaker.retry_after(at=at))
        at += stays[-1]
        call(breaker, failed=True, at=at)
    assert stays == [5.0, 10.0, 20.0, 20.0, 20.0, 20.0, 20.0]


def test_calls_that_began_in_another_state_do_not_count() -> None:
    breaker = a_breaker()
    early = [breaker.acquire(at=0.0) for _ in range(10)]
    for ticket in early[:4]:
        assert ticket is not None
        breaker.record(ticket, failed=True, at=1.0)
    assert breaker.state(at=1.0) == "open"
    probe = breaker.acquire(at=6.0)
    assert probe is not None
    for ticket in early[4:]:
        assert ticket is not None
        assert breaker.record(ticket, failed=True, at=6.0) is None
        breaker.discard(ticket)
    assert breaker.state(at=6.0) == "half-open"
    breaker.record(probe, failed=False, at=6.1)
    call(breaker, failed=False, at=6.2)
    assert breaker.state(at=6.2) == "closed"


@given(st.lists(st.tuples(st.sampled_from(["enter", "ok", "bad", "left"]), st.floats(0, 3))))
def test_there_are_never_more_probes_than_allowed(steps: list[tuple[str, float]]) -> None:
    breaker, at = a_breaker(), 0.0
    running: list[tuple[int, bool]] = []  # ticket, and whether it is a probe
    for action, passed in steps:
        at += passed
        if action == "enter":
            probing = breaker.state(at=at) == "half-open"
            ticket = breaker.acquire(at=at)
            assert (ticket is None) <= (breaker.state(at=at) != "closed")
            if ticket is not None:
                running.append((ticket, probing))
        elif running:
            ticket, _ = running.pop(0)
            if action == "left":
                breaker.discard(ticket)
            else:
                breaker.record(ticket, failed=action == "bad", at=at)
        now = {ticket for ticket, _ in running}
        newest = max(now, default=0)
        assert sum(probe and ticket == newest for ticket, probe in running) <= 2
