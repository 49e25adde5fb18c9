"""A run on Lambda functions."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.distributions import (
    Distribution,
    constant,
    empirical,
    encode,
    mean_of,
    quantile_of,
    scaled,
)
from seawall.plan.inputs.platforms import Lambda
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.job import (
    JITTERS,
    SERVICES,
    STARTS,
    Job,
    empty_histogram,
    fixed_seconds,
    histogram,
    level,
    numbers,
    samples_of,
    shared_counts,
    shared_series,
    with_retry_room,
)
from seawall.plan.simulator.kernels.environments import arrays as kernel
from seawall.plan.simulator.kernels.environments.attempts import run_until
from seawall.plan.simulator.kernels.environments.lives import finish
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.primitives import HEAP_ROOM
from seawall.plan.simulator.model_quota import is_limited, model_calls, model_series, quota_of
from seawall.plan.simulator.provisioning import Provisioning
from seawall.plan.simulator.result import Result, Usage

__all__ = [
    "run_lambda",
]

Floats = NDArray[np.float64]
_FULL_PROCESSOR_MB = 1_769.0
_QUANTILES = 1_001


def _start_of(workload: Workload, platform: Lambda) -> Distribution:
    """Time from the sandbox of a new environment until it serves.

    Initialisation is processor time, measured on one processor (assumed). It has the processor of
    the function's memory, on demand at least `Service.init_vcpus`; restoring is not processor time.
    """
    service = workload.service
    if platform.snapstart:
        if service.restore is not None:
            return service.restore
        return constant(mean_of(service.start) / 5.0)
    processor = max(platform.memory_mb / _FULL_PROCESSOR_MB, service.init_vcpus)
    start = scaled(service.start, 1.0 / processor) if processor < 1.0 else service.start
    return _restarted(start, platform.start_limit)


def _restarted(start: Distribution, limit: float) -> Distribution:
    """Initialisations that reach the limit start again, within the invocation."""
    if start.kind == "constant":
        return constant(start.a + limit) if start.a > limit else start
    if quantile_of(start, 1.0 - 0.5 / _QUANTILES) <= limit:
        return start
    found = [quantile_of(start, (at + 0.5) / _QUANTILES) for at in range(_QUANTILES)]
    return empirical([each + limit if each > limit else each for each in found])


def _params_of(job: Job, platform: Lambda) -> tuple[kernel.EnvironmentParams, Floats, Floats]:
    """The parameters of a run, and its encoded distributions."""
    workload, seed = job.workload, job.seed
    service, clients = workload.service, workload.clients
    stages = service.stages
    before = job.model_at
    share = min(1.0, platform.memory_mb / _FULL_PROCESSOR_MB)
    shifts = [stage.cpu_ms / 1e3 * (1.0 / share - 1.0) for stage in stages]
    cold = service.cold_request
    start = _start_of(workload, platform)
    # Sandbox plus start; exact where at least one of them is constant.
    sandbox = platform.sandbox
    if sandbox.kind == "constant":
        start_row, shift = start, sandbox.a
    else:
        start_row, shift = sandbox, start.a if start.kind == "constant" else 0.0
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
        fixed_before=fixed_seconds(rows[:before]),
        fixed_after=fixed_seconds(rows[before + 1 : count]),
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
        newest_first=platform.reuse == "newest",
        retries=workload.clients.retries,
        retry_timeouts=clients.retry_timeouts,
        backoff=float(clients.backoff),
        backoff_cap=float(clients.backoff_cap),
        patience=float(clients.patience),
        width=job.width,
        horizon=float(workload.arrivals.horizon),
        limited=is_limited(job),
    )
    return params, rows, tables


def _initial_state(job: Job, platform: Lambda) -> kernel.EnvironmentState:
    """The arrays of a run without environments, with room for as many as there may be."""
    # There are no more environments than attempts.
    room = int(min(platform.limit, job.workload.most_attempts + platform.warm)) + 1
    count = np.zeros(13, dtype=np.int64)
    count[kernel.FREE_SLOTS] = room
    count[kernel.OLDEST] = count[kernel.NEWEST] = -1
    limit = platform.invocations_per_concurrency * platform.limit
    start = min(platform.start_burst, 1e12)

    def whole(size: int) -> NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    return kernel.EnvironmentState(
        tally=count,
        clock=np.array([start, 0.0, limit if math.isfinite(limit) else 0.0, 0.0]),
        born=np.zeros(room),
        number=np.full(room, -1, dtype=np.int64),
        since=np.full(room, -1.0),
        later=whole(room),
        earlier=whole(room),
        slots=np.arange(room, dtype=np.int64),
        ends=np.full(room + HEAP_ROOM, math.inf),
        ending=whole(room),
        newest=np.full((2 * room if platform.reuse == "newest" else 1) + HEAP_ROOM, math.inf),
        ranked=whole(2 * room if platform.reuse == "newest" else 1),
        retry_times=np.full(HEAP_ROOM, math.inf),
        ticket=whole(0),
        retry_request=whole(0),
        retry_tries=whole(0),
        retry_first=np.zeros(0),
        free_tickets=whole(0),
    )


def _warm_up(
    state: kernel.EnvironmentState, stats: kernel.EnvironmentStats, platform: Lambda
) -> None:
    """Add the idle environments of the start, and count them as alive from then on."""
    count = state.tally
    free = int(count[kernel.FREE_SLOTS])
    warm = min(platform.warm, platform.limit - platform.provisioned, free)
    if warm <= 0:
        return
    slots = state.slots[free - warm : free][::-1]
    count[kernel.FREE_SLOTS] -= warm
    ages = (np.arange(warm)[::-1] + 0.5) / warm * min(platform.lifetime, 1e9)
    state.born[slots] = -ages
    state.number[slots] = np.arange(warm)
    state.since[slots] = 0.0
    state.earlier[slots] = np.concatenate(([-1], slots[:-1]))
    state.later[slots] = np.concatenate((slots[1:], [-1]))
    count[kernel.OLDEST], count[kernel.NEWEST] = slots[0], slots[-1]
    count[kernel.ALIVE] = count[kernel.IDLE] = count[kernel.BORN] = warm
    if platform.reuse == "newest":
        state.newest[:warm] = -np.arange(warm)[::-1].astype(float)
        state.ranked[:warm] = slots[::-1]
        count[kernel.SPARE] = warm
    stats.series[kernel.ALIVE_CHANGE, 0] += warm
    stats.totals[kernel.ALIVE_TIME] -= float(ages.sum())  # of before the start


def run_lambda(job: Job, platform: Lambda) -> Result:
    """Run a job; see `simulate`."""
    params, rows, tables = _params_of(job, platform)
    state = _initial_state(job, platform)
    quota = quota_of(job, len(state.slots))
    bins, horizon = job.bins, job.workload.arrivals.horizon
    stats = kernel.EnvironmentStats(
        series=np.zeros((12, bins), dtype=np.int64),
        slowest=np.zeros(bins),
        first_sum=np.zeros(bins),
        latencies=empty_histogram(),
        firsts=empty_histogram(),
        counts=np.zeros(11, dtype=np.int64),
        totals=np.zeros(8),
        samples=job.samples,
    )
    prepared = mean_of(job.workload.service.start)
    prepared /= min(1.0, platform.memory_mb / _FULL_PROCESSOR_MB)
    provisioning = Provisioning(platform, horizon, prepared)
    _warm_up(state, stats, platform)
    state.tally[kernel.PROVISIONED] = platform.provisioned
    number = 0
    following = iter(job.pieces)
    piece = next(following)
    last = False
    at = 0
    while True:
        state = with_retry_room(state, len(piece) + 1, kernel.TICKETS)
        until = provisioning.next_time
        at = run_until(state, stats, params, quota, rows, tables, piece, at, number, until, last)
        if at < len(piece) or last:
            if last and at == len(piece) and until == math.inf:
                break
            if last and until > horizon:
                provisioning.stop()
                continue
            provisioning.run_next(state.tally)
        else:
            number += len(piece)
            at = 0
            more = next(following, None)
            piece, last = (np.empty(0), True) if more is None else (more, False)
    finish(state, stats, params)
    return _result(job, platform, stats, provisioning, quota)


def _result(
    job: Job,
    platform: Lambda,
    stats: kernel.EnvironmentStats,
    provisioning: Provisioning,
    quota: Quota,
) -> Result:
    workload, width, seed = job.workload, job.width, job.seed
    series, counts, totals = stats.series, stats.counts, stats.totals
    stages = workload.service.stages
    alive = level(series[kernel.ALIVE_CHANGE])
    provisioned = provisioning.levels(width, series.shape[1])
    per = workload.service.connections
    new = np.diff(provisioned, prepend=0.0).clip(min=0.0) + series[kernel.COLD]
    horizon = workload.arrivals.horizon
    seconds = (
        shared_series(job, stats, kernel)
        | model_series(quota)
        | {
            "cold_starts": series[kernel.COLD].astype(float),
            "queued": np.zeros(series.shape[1]),
            "capacity": alive + provisioned,
            "ready": alive + provisioned,
            "provisioned": provisioned,
            "spilled": series[kernel.SPILLED].astype(float),
            "nodes": np.zeros(series.shape[1]),
            "new_connections": new * per,
            "open_connections": (alive + provisioned) * per,
        }
    )
    started = int(counts[kernel.ATTEMPTS] - counts[kernel.THROTTLES])
    provisioned_seconds = provisioning.seconds()
    usage = Usage(
        invocations=started,
        billed_seconds=float(totals[kernel.BILLED]),
        billed_start_seconds=float(totals[kernel.BILLED_START]),
        provisioned_seconds=provisioned_seconds,
        provisioned_billed_seconds=float(totals[kernel.BILLED_PROVISIONED]),
        restores=float(counts[kernel.COLD_STARTS]) if platform.snapstart else 0.0,
        environment_seconds=float(totals[kernel.ALIVE_TIME]),
        cpu_seconds=started * sum(stage.cpu_ms for stage in stages) / 1e3,
    )
    kind = "lambda-snapstart" if platform.snapstart else "lambda"
    kind = "lambda-provisioned" if provisioned.any() else kind
    return Result(
        platform=kind,
        seed=seed,
        horizon=horizon,
        bin_seconds=width,
        cold_starts=int(counts[kernel.COLD_STARTS]),
        on_provisioned=int(counts[kernel.ON_PROVISIONED]),
        mean_busy=float(totals[kernel.BUSY_TIME]) / horizon,
        mean_capacity=(float(totals[kernel.ALIVE_TIME]) + provisioned_seconds) / horizon,
        latency=histogram(stats.latencies, totals[kernel.LATENCY]),
        first_token=histogram(stats.firsts, totals[kernel.FIRST]),
        wait=histogram(empty_histogram(), 0.0),
        usage=usage,
        peak={
            "in_service": int(counts[kernel.PEAK_BUSY]),
            "capacity": int(counts[kernel.PEAK_ALIVE] + provisioned.max()),
            "model_calls": int(seconds["model_calls"].max()),
            "open_connections": int(seconds["open_connections"].max()),
            "queued": 0,
            "in_one_pod": 1,
        },
        seconds=seconds,
        samples=samples_of(stats.samples),
        model=model_calls(quota),
        **shared_counts(counts, kernel),
    )
