"""Fuzz targets: each module has `one_input(data)`, which raises on a violation, and `SEEDS`."""

__all__ = ["ensure"]


def ensure(holds: object, said: str) -> None:
    """Raise where an invariant does not hold.

    Raises:
        AssertionError: it does not; `said` is what is wrong.
    """
    if not holds:
        raise AssertionError(said)
