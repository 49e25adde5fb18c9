"""How many examples heavy properties take: few in `make test`, many in `make test-long`."""

import hypothesis

__all__ = ["examples"]


def examples(short: int, long: int) -> hypothesis.settings:
    """Settings of a property whose examples take long; use it as a decorator.

    Args:
        short: Examples in `make test`.
        long: Examples in `make test-long`, the profile `long`.
    """
    is_long = hypothesis.settings.get_current_profile_name() == "long"
    return hypothesis.settings(max_examples=long if is_long else short, deadline=None)
