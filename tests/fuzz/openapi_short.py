"""Schemathesis hooks of the short form: the checks, and fewer values of a wrong type.

Every place of every body, and every parameter, is given its first value of a wrong type, and one
in three of the others: others at the next place, so that each type is tried at many. The long form
has them all.
"""

from collections.abc import Iterator
from itertools import count
from typing import Any

import schemathesis
from schemathesis.generation.meta import CoveragePhaseData, CoverageScenario

from tests.fuzz import openapi_checks

__all__ = ["openapi_checks"]

_EVERY = 3
# Values so far, by place; places are numbered in the order in which they come.
_tried: dict[tuple[object, ...], Iterator[int]] = {}
_numbers: dict[tuple[object, ...], int] = {}


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Whether to send a request."""
    made = case.meta.phase.data if case.meta is not None else None
    if not isinstance(made, CoveragePhaseData) or made.scenario != CoverageScenario.INCORRECT_TYPE:
        return True
    place = (case.operation.label, made.parameter_location, made.parameter, made.location)
    number = _numbers.setdefault(place, len(_numbers))
    before = next(_tried.setdefault(place, count()))
    return before == 0 or (before + number) % _EVERY == 0
