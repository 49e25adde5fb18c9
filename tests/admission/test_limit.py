"""Adaptive limit, fed with measurements; time is an argument."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from seawall.admission.limit import AdaptiveLimit
from seawall.settings import AdmissionSettings

SETTINGS = AdmissionSettings(in_flight=1_000, min_in_flight=50, lag_seconds=0.1)
MB = 1 << 20


class Clock(Struct):
    """Samples a limit ten times a second."""

    limit: AdaptiveLimit
    now: float = 100.0

    def run(
        self,
        seconds: float,
        *,
        lag: float = 0.0,
        in_flight: int = 0,
        started: int = 10,
        memory: int = 0,
    ) -> int:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.limit.sample(
                at=self.now,
                lag=lag,
                memory=memory,
                in_flight=in_flight,
                peak=in_flight,
                started=started,
            )
        return self.limit.limit


def test_a_server_that_keeps_up_stays_at_its_maximum() -> None:
    assert Clock(AdaptiveLimit(SETTINGS)).run(60, lag=0.05, in_flight=1_000) == 1_000


def test_a_burst_of_opening_work_is_no_overload() -> None:
    clock = Clock(AdaptiveLimit(SETTINGS))
    assert clock.run(4.0, lag=1.0, in_flight=900) == 1_000
    assert clock.run(5, lag=0.0, in_flight=900) == 1_000


def test_a_single_long_pause_is_no_overload() -> None:
    limit = AdaptiveLimit(SETTINGS)
    clock = Clock(limit)
    clock.run(5, in_flight=900)
    clock.now += 30.0
    limit.sample(at=clock.now, lag=30.0, memory=0, in_flight=900, peak=900, started=900)
    assert clock.run(10, in_flight=900) == 1_000


def test_standing_lag_lowers_the_limit_below_the_turns_in_flight() -> None:
    clock = Clock(AdaptiveLimit(SETTINGS))
    assert clock.run(6.4, lag=0.4, in_flight=400) == 340
    assert clock.run(5, lag=0.4, in_flight=400) == 340  # the step has not had its effect yet
    assert clock.run(1, lag=0.4, in_flight=340) == 289
    assert clock.run(60, lag=0.4, in_flight=51) == 50  # the floor


def test_lag_without_new_turns_does_not_change_the_limit() -> None:
    clock = Clock(AdaptiveLimit(SETTINGS))
    assert clock.run(60, lag=1.0, in_flight=900, started=0) == 1_000


def test_lag_with_few_turns_in_flight_does_not_lower_the_limit() -> None:
    """Another process uses the processor in a quiet hour; the next burst finds the same server."""
    clock = Clock(AdaptiveLimit(SETTINGS))
    assert clock.run(60, lag=1.0, in_flight=50, started=1) == 1_000


def test_the_limit_grows_while_it_is_used_and_the_loop_is_on_time() -> None:
    clock = Clock(AdaptiveLimit(SETTINGS))
    clock.run(6.4, lag=0.4, in_flight=400)
    clock.run(3, in_flight=340)
    grown = clock.run(10, in_flight=600)
    assert 340 + 150 < grown < 340 + 300
    assert clock.run(15, in_flight=100) == grown  # not used: nothing is learned


def test_an_idle_limit_returns_to_its_configured_value() -> None:
    clock = Clock(AdaptiveLimit(SETTINGS))
    clock.run(60, lag=0.4, in_flight=51)
    assert clock.limit.limit == 50
    assert clock.run(15, in_flight=5) == 50
    assert clock.run(60, in_flight=5) == 1_000


def test_growing_memory_near_its_bound_lowers_the_limit_at_once() -> None:
    clock = Clock(AdaptiveLimit(SETTINGS, memory_bound=1_000 * MB))
    assert clock.run(1, in_flight=600, memory=700 * MB) == 1_000
    assert clock.run(0.1, in_flight=600, memory=910 * MB) == 510
    assert clock.run(10, in_flight=500, memory=912 * MB) == 510
    assert clock.run(0.1, in_flight=500, memory=925 * MB) == 425
    assert clock.run(10, in_flight=425, memory=850 * MB) == 425  # nor does it grow
    assert clock.run(10, in_flight=425, memory=500 * MB) > 425


def test_without_a_target_lag_does_not_lower_the_limit() -> None:
    settings = AdmissionSettings(in_flight=1_000, lag_seconds=0)
    assert Clock(AdaptiveLimit(settings)).run(60, lag=9.0, in_flight=900) == 1_000


@given(
    st.lists(
        st.tuples(
            st.floats(0, 60), st.floats(0, 100), st.integers(0, 2_000), st.integers(0, 2_000)
        ),
        max_size=100,
    ),
    st.integers(1, 500),
    st.integers(1, 500),
)
def test_never_above_the_ceiling_or_below_the_floor(
    samples: list[tuple[float, float, int, int]], ceiling: int, floor: int
) -> None:
    settings = AdmissionSettings(in_flight=ceiling, min_in_flight=floor, lag_seconds=0.1)
    limit = AdaptiveLimit(settings, memory_bound=1_000)
    at = 0.0
    for step, lag, memory, in_flight in samples:
        at += step
        now = limit.sample(
            at=at, lag=lag, memory=memory, in_flight=in_flight, peak=in_flight, started=1
        )
        assert min(floor, ceiling) <= now <= ceiling
