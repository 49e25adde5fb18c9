"""Fuzz targets: each module has `one_input(data)`, which raises on a violation, and `SEEDS`."""

__all__ = ["ensure"]


def ensure(condition: object, message: str) -> None:
    """Check an invariant.

    Raises:
        AssertionError: The condition is false; the text is `message`.
    """
    if not condition:
        raise AssertionError(message)
