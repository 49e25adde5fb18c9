"""How many examples heavy properties take: few in `make test`, many in `make test-long`."""

import hypothesis

__all__ = ["examples", "number_of_examples"]


def number_of_examples(short: int, long: int) -> int:
    """The number that the profile asks for.

    Args:
        short: Examples in `make test`.
        long: Examples in `make test-long`, the profile `long`.
    """
    return long if hypothesis.settings.get_current_profile_name() == "long" else short


def examples(short: int, long: int) -> hypothesis.settings:
    """Settings of a property whose examples take long, as a decorator; see `number_of_examples`."""
    return hypothesis.settings(max_examples=number_of_examples(short, long), deadline=None)
