"""What a run is given, the same for every platform."""

from collections.abc import Iterable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from seawall.plan.inputs.workload import Workload

__all__ = ["Job"]


class Job(Struct, frozen=True):
    """A workload, its arrivals in pieces, and how to look at them.

    width, bins: of the arrays over time. kept: a row for each request, or none.
    """

    workload: Workload
    pieces: Iterable[NDArray[np.float64]]
    seed: int
    width: float
    bins: int
    kept: NDArray[np.float64]

    @property
    def model_at(self) -> int:
        """Which stage is the model's call; if none is, as many as there are."""
        stages = self.workload.service.stages
        return next((at for at, stage in enumerate(stages) if stage.model), len(stages))

    @property
    def store_calls(self) -> tuple[int, int]:
        """Calls of the store until the model has answered, and after."""
        stages, until = self.workload.service.stages, self.model_at + 1
        early = sum(stage.store_calls for stage in stages[:until])
        return early, sum(stage.store_calls for stage in stages[until:])
