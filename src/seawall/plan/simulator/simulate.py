"""Simulation of a workload on a platform."""

import math
from collections.abc import Iterable

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from seawall.errors import ConfigError
from seawall.plan.inputs.platforms import Eks, Lambda, Managed, Platform, Servers
from seawall.plan.inputs.workload import Workload
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
    """Simulate every request of a workload on a platform.

    Args:
        workload: Arrivals, service and clients.
        platform: That serves them.
        seed: The same seed gives the same result, and the same requests with the same durations on
            every platform.
        bin_seconds: Of the arrays over time; wider where there would be more than 200,000 bins.
        keep: Whether every request is in `Result.samples`; memory grows with their number then.

    Raises:
        ConfigError: A value is invalid; the field is named.
    """
    if not (math.isfinite(bin_seconds) and bin_seconds > 0):
        raise ConfigError(f"bin_seconds: {bin_seconds} is not a time")
    # Numba takes a fifth of a second to import: not for programs that only describe a workload.
    from seawall.plan.simulator.buffering import buffered  # noqa: PLC0415
    from seawall.plan.simulator.environments import run_lambda  # noqa: PLC0415
    from seawall.plan.simulator.functions import run_functions  # noqa: PLC0415
    from seawall.plan.simulator.job import Job, arrivals_in_pieces, bin_width  # noqa: PLC0415
    from seawall.plan.simulator.pods import run_eks, run_managed  # noqa: PLC0415
    from seawall.plan.simulator.servers import run_servers  # noqa: PLC0415

    pieces: Iterable[NDArray[np.float64]] = arrivals_in_pieces(workload.arrivals, seed)
    samples = np.empty((0, 5))
    if keep:
        all_pieces = list(pieces)
        samples = np.zeros((sum(len(piece) for piece in all_pieces), 5))
        pieces = all_pieces
    width, bins = bin_width(workload, bin_seconds)
    job = Job(workload, pieces, seed, width, bins, samples)
    match platform:
        case Lambda(functions=1):
            run = run_lambda(job, platform)
        case Lambda():
            run = run_functions(job, platform)
        case Eks():
            run = run_eks(job, platform)
        case Managed():
            run = run_managed(job, platform)
        case Servers():
            run = run_servers(job, platform)
    if isinstance(platform, Lambda | Managed) and not platform.streams:
        run = buffered(run)
    return run if keep else structs.replace(run, samples=None)
