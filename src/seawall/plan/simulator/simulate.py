"""One run of a workload on a platform."""

import math
from collections.abc import Iterable

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.platforms import Eks, Lambda, Managed, Platform, Servers
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.job import Job
from seawall.plan.simulator.result import Result

__all__ = ["simulate"]


def simulate(
    workload: Workload,
    platform: Platform,
    *,
    seed: int = 1,
    bin_seconds: float = 1.0,
    keep: bool = False,
) -> Result:
    """Every request of the workload, one by one, on the platform.

    The same seed gives the same result, and the same requests with the same durations on every
    platform. bin_seconds: of the arrays over time; more where there would be over 200,000. keep:
    every request is in `Result.samples`; memory grows with them then, and only then.

    Raises ConfigError, naming the field.
    """
    if not (math.isfinite(bin_seconds) and bin_seconds > 0):
        raise ConfigError(f"bin_seconds: {bin_seconds} is not a time")
    # Numba takes a fifth of a second to import: not for those who only describe a workload.
    from seawall.plan.simulator.environments import run_lambda  # noqa: PLC0415
    from seawall.plan.simulator.pods import run_eks, run_managed  # noqa: PLC0415
    from seawall.plan.simulator.servers import run_servers  # noqa: PLC0415
    from seawall.plan.simulator.stream import arrivals_in_pieces  # noqa: PLC0415
    from seawall.plan.simulator.tally import bin_width  # noqa: PLC0415

    pieces: Iterable[NDArray[np.float64]] = arrivals_in_pieces(workload.arrivals, seed)
    kept = np.empty((0, 5))
    if keep:
        all_pieces = list(pieces)
        kept = np.zeros((sum(len(piece) for piece in all_pieces), 5))
        pieces = all_pieces
    width, bins = bin_width(workload, bin_seconds)
    job = Job(workload, pieces, seed, width, bins, kept)
    match platform:
        case Lambda():
            run = run_lambda(job, platform)
        case Eks():
            run = run_eks(job, platform)
        case Managed():
            run = run_managed(job, platform)
        case Servers():
            run = run_servers(job, platform)
    return run if keep else structs.replace(run, samples=None)
