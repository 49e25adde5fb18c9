"""The durations of a request: of its stages, its model call, and until its first token."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import inlined
from seawall.plan.simulator.kernels.randomness import draw, uniform

__all__ = ["model_call", "other_stages"]

Floats = NDArray[np.float64]


@inlined
def other_stages(
    services: np.uint64, rows: Floats, tables: Floats, first: int, last: int, request: int
) -> float:
    """Seconds of the stages from `first` to before `last`; the n-th has number n of 16."""
    total = 0.0
    for stage in range(first, last):
        u = uniform(services, request * 16 + stage) if rows[stage, 0] != 0.0 else 0.0
        total += draw(rows, tables, stage, u)
    return total


@inlined
def model_call(
    services: np.uint64, rows: Floats, tables: Floats, row: int, row_first: int, request: int
) -> tuple[float, float]:
    """Seconds of the model call, and until its first token, which comes before its end."""
    call = draw(rows, tables, row, uniform(services, request * 16 + row))
    if call <= 0.0:
        return call, 0.0
    token = draw(rows, tables, row_first, uniform(services, request * 16 + 15))
    return call, min(call, token)
