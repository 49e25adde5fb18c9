"""What a run on Lambda functions starts from: rules, distributions, and arrays to work in."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.distributions import Distribution, constant, encode, mean_of
from seawall.plan.inputs.platforms import Lambda
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.job import Job
from seawall.plan.simulator.kernels.environments import arrays as kernel
from seawall.plan.simulator.stream import JITTERS, SERVICES, STARTS, numbers

__all__ = ["initial_environments", "params_of", "start_of", "with_room"]

Floats = NDArray[np.float64]
_FULL_PROCESSOR_MB = 1_769.0


def start_of(workload: Workload, platform: Lambda) -> Distribution:
    """How long a new environment takes until it serves, the sandbox aside."""
    service = workload.service
    if platform.snapstart:
        if service.restore is not None:
            return service.restore
        return constant(mean_of(service.start) / 5.0)
    return service.start


def params_of(job: Job, platform: Lambda) -> tuple[kernel.EnvironmentParams, Floats, Floats]:
    """The rules of a run, and its distributions."""
    workload, seed = job.workload, job.seed
    service, clients = workload.service, workload.clients
    stages = service.stages
    before = job.model_at
    share = min(1.0, platform.memory_mb / _FULL_PROCESSOR_MB)
    shifts = [stage.cpu_ms / 1e3 * (1.0 / share - 1.0) for stage in stages]
    cold = service.cold_request
    start = start_of(workload, platform)
    # The sandbox comes first; where both are constant, or one is, their sum is exact.
    sandbox = platform.sandbox
    late = 0.0
    if start.kind == "constant" and not platform.snapstart and start.a > platform.start_limit:
        late = platform.start_limit  # it ran into the limit, and starts again from the beginning
    if sandbox.kind == "constant":
        start_row, shift = start, sandbox.a + late
    else:
        start_row, shift = sandbox, (start.a if start.kind == "constant" else 0.0) + late
    rows, tables = encode(
        [stage.seconds for stage in stages]
        + [service.first_token, start_row, cold or constant(0.0)],
        [*shifts, 0.0, shift],
    )
    count = len(stages)
    params = kernel.EnvironmentParams(
        services=numbers(seed, SERVICES),
        starts=numbers(seed, STARTS),
        jitters=numbers(seed, JITTERS),
        stages=count,
        before=before,
        row_first=count,
        row_start=count + 1,
        row_cold=count + 2 if cold is not None else -1,
        limit=platform.limit,
        start_rate=float(min(platform.start_rate, 1e12)),
        start_burst=float(min(platform.start_burst, 1e12)),
        invoke_rate=platform.invocations_per_concurrency * platform.limit,
        idle=float(platform.idle_seconds),
        lifetime=float(platform.lifetime),
        timeout=float(platform.timeout),
        start_billed=True,
        newest_first=platform.reuse == "newest",
        retries=workload.clients.retries,
        retry_timeouts=clients.retry_timeouts,
        backoff=float(clients.backoff),
        backoff_cap=float(clients.backoff_cap),
        patience=float(clients.patience),
        width=job.width,
        horizon=float(workload.arrivals.horizon),
    )
    return params, rows, tables


def initial_environments(job: Job, platform: Lambda) -> kernel.Crowd:
    """Nobody there yet, and room for all who may come."""
    # Nobody needs more environments than there are attempts.
    room = int(min(platform.limit, job.workload.most_attempts)) + 1
    count = np.zeros(12, dtype=np.int64)
    count[kernel.FREE_SLOTS] = room
    count[kernel.OLDEST] = count[kernel.NEWEST] = -1
    limit = platform.invocations_per_concurrency * platform.limit
    start = min(platform.start_burst, 1e12)

    def whole(size: int) -> NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    return kernel.Crowd(
        tally=count,
        clock=np.array([start, 0.0, limit if math.isfinite(limit) else 0.0, 0.0]),
        born=np.zeros(room),
        number=np.full(room, -1, dtype=np.int64),
        since=np.full(room, -1.0),
        later=whole(room),
        earlier=whole(room),
        slots=np.arange(room, dtype=np.int64),
        ends=np.zeros(room),
        ending=whole(room),
        newest=np.zeros(2 * room if platform.reuse == "newest" else 1),
        ranked=whole(2 * room if platform.reuse == "newest" else 1),
        again=np.zeros(0),
        ticket=whole(0),
        request=whole(0),
        tries=whole(0),
        first=np.zeros(0),
        tickets=whole(0),
    )


def with_room(crowd: kernel.Crowd, more: int) -> kernel.Crowd:
    """Room for as many to come again as may in the next piece."""
    have = len(crowd.again)
    if crowd.tally[kernel.TICKETS] >= more + 1:
        return crowd
    size = max(2 * have, have + more + 1_024)

    def grown(array: NDArray[Any]) -> NDArray[Any]:
        wider = np.zeros(size, dtype=array.dtype)
        wider[:have] = array
        return wider

    names = ("again", "ticket", "request", "tries", "first", "tickets")
    crowd = crowd._replace(**{name: grown(getattr(crowd, name)) for name in names})
    free = crowd.tally[kernel.TICKETS]
    crowd.tickets[free : free + size - have] = np.arange(have, size)
    crowd.tally[kernel.TICKETS] += size - have
    return crowd
