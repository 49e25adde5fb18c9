"""What is fuzzed: in each module `one_input`, which raises where an invariant does not hold."""

__all__ = ["ensure"]


def ensure(holds: object, said: str) -> None:
    """Raise where an invariant does not hold.

    Raises:
        AssertionError: it does not; `said` is what is wrong.
    """
    if not holds:
        raise AssertionError(said)
