"""The short form of heavy tests, in `make test`, and the long one, in `make test-long`.

A property takes few or many examples. Of a matrix of cases a sample or all are tried: the others
have the mark `long`, which `tests/conftest.py` leaves out without the profile `long`.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import hypothesis
import pytest

__all__ = ["examples", "halved", "number_of_examples", "rotated", "sampled"]


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


def sampled(cases: Iterable[Any], every: int) -> list[Any]:
    """Parameters of a test: all of them in `make test-long`, some in `make test`.

    Args:
        cases: The parameters: a value each, or a tuple of several.
        every: One in so many, the first among them, is tried in `make test`.
    """
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[pytest.mark.long] if number % every else [],
        )
        for number, case in enumerate(cases)
    ]


def rotated(cases: Sequence[Any]) -> list[Any]:
    """Parameters (case, part): each case with one part in `make test`, with all in the long form.

    A part is `items[part :: len(cases)]`, so that `make test` tries every item in one of the cases.

    Args:
        cases: What is combined with as many parts of the items.
    """
    count = len(cases)
    pairs = [(case, (at + more) % count) for at, case in enumerate(cases) for more in range(count)]
    return sampled(pairs, count)


def halved(*values: Sequence[Any]) -> list[Any]:
    """Parameters of a test: all combinations in `make test-long`, half of them in `make test`.

    In that half each two values of different parameters still meet; of four parameters, each three.

    Args:
        values: Those of each parameter, of three or more; at least two each.
    """
    return [
        pytest.param(
            *(value for _, value in chosen),
            marks=[pytest.mark.long] if sum(at for at, _ in chosen) % 2 else [],
        )
        for chosen in itertools.product(*(tuple(enumerate(each)) for each in values))
    ]
