"""Retry budget and backoff."""

from hypothesis import given
from hypothesis import strategies as st

from seawall.resilience import RetryBudget, full_jitter


def test_spend_and_deposit() -> None:
    budget = RetryBudget(capacity=28.0, refill_per_second=0.0)
    assert budget.spend(14.0, at=0.0)
    assert budget.spend(14.0, at=0.0)
    assert not budget.spend(14.0, at=1e9)
    budget.deposit(14.0, at=1e9)
    assert budget.spend(14.0, at=1e9)


def test_refilled_by_time_up_to_the_capacity() -> None:
    budget = RetryBudget(capacity=10.0, refill_per_second=2.0)
    assert budget.spend(10.0, at=100.0)
    assert budget.tokens(at=102.0) == 4.0
    assert budget.tokens(at=101.0) == 4.0  # a clock that goes back gives nothing
    assert budget.tokens(at=1_000.0) == 10.0


events = st.lists(
    st.tuples(st.sampled_from(["spend", "give"]), st.floats(0, 20), st.floats(0, 10)), max_size=60
)


@given(events)
def test_never_overdrawn(steps: list[tuple[str, float, float]]) -> None:
    budget = RetryBudget(capacity=50.0, refill_per_second=3.0)
    now = spent = given_back = 0.0
    for what, amount, later in steps:
        now += later
        if what == "give":
            budget.deposit(amount, at=now)
            given_back += amount
        elif budget.spend(amount, at=now):
            spent += amount
        assert 0.0 <= budget.tokens(at=now) <= 50.0
    assert spent <= 50.0 + given_back + 3.0 * now + 1e-6


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_up_to_its_cap(attempt: int, chance: float) -> None:
    pause = full_jitter(attempt, base=0.05, cap=5.0, chance=chance)
    assert 0.0 <= pause < 5.0
    widest = full_jitter(attempt, base=0.05, cap=5.0, chance=1.0)
    assert widest == min(5.0, 0.05 * 2 ** min(attempt - 1, 60))
    assert pause <= widest
