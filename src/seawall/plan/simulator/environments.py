"""A run on Lambda functions: pieces of arrivals, and what provisions environments between."""

import math

import numpy as np

from seawall.plan.inputs.platforms import Lambda
from seawall.plan.simulator.environment_state import initial_environments, params_of, with_room
from seawall.plan.simulator.job import Job
from seawall.plan.simulator.kernels.environments import arrays as kernel
from seawall.plan.simulator.kernels.environments.attempts import invoke
from seawall.plan.simulator.kernels.environments.lives import finish
from seawall.plan.simulator.provisioning import Provisioning
from seawall.plan.simulator.result import Result, Usage
from seawall.plan.simulator.tally import empty_histogram, first_tokens, histogram, level, samples_of

__all__ = ["run_lambda"]


def run_lambda(job: Job, platform: Lambda) -> Result:
    """Simulate; see `simulate`."""
    params, rows, tables = params_of(job, platform)
    crowd = initial_environments(job, platform)
    bins, horizon = job.bins, job.workload.arrivals.horizon
    stats = kernel.EnvironmentStats(
        series=np.zeros((12, bins), dtype=np.int64),
        slowest=np.zeros(bins),
        first_sum=np.zeros(bins),
        latencies=empty_histogram(),
        firsts=empty_histogram(),
        counts=np.zeros(11, dtype=np.int64),
        totals=np.zeros(8),
        kept=job.kept,
    )
    provisioning = Provisioning(platform, horizon)
    crowd.tally[kernel.PROVISIONED] = platform.provisioned
    number = 0
    following = iter(job.pieces)
    piece = next(following)
    last = False
    at = 0
    while True:
        crowd = with_room(crowd, len(piece))
        until = provisioning.next_time
        at = invoke(crowd, stats, params, rows, tables, piece, at, number, until, last)
        if at < len(piece) or last:
            if last and at == len(piece) and until == math.inf:
                break
            if last and until > horizon:
                provisioning.stop()
                continue
            provisioning.act(crowd.tally)
        else:
            number += len(piece)
            at = 0
            more = next(following, None)
            piece, last = (np.empty(0), True) if more is None else (more, False)
    finish(crowd, stats, params)
    return _result(job, platform, stats, provisioning)


def _result(
    job: Job, platform: Lambda, stats: kernel.EnvironmentStats, provisioning: Provisioning
) -> Result:
    workload, width, seed = job.workload, job.width, job.seed
    series, counts, totals = stats.series, stats.counts, stats.totals
    stages = workload.service.stages
    early, late = job.store_calls
    alive = level(series[kernel.ALIVE_CHANGE])
    busy = level(series[kernel.STARTED] - series[kernel.ENDED])
    provisioned = provisioning.levels(width, series.shape[1])
    per = workload.service.connections
    new = np.diff(provisioned, prepend=0.0).clip(min=0.0) + series[kernel.COLD]
    horizon = workload.arrivals.horizon
    seconds = {
        "arrived": series[kernel.ARRIVED].astype(float),
        "started": series[kernel.STARTED].astype(float),
        "ended": series[kernel.ENDED].astype(float),
        "cold_starts": series[kernel.COLD].astype(float),
        "throttled": series[kernel.THROTTLED].astype(float),
        "refused": series[kernel.REFUSED].astype(float),
        "timed_out": series[kernel.LEFT].astype(float),
        "failed": series[kernel.FAILED].astype(float),
        "in_service": busy,
        "queued": np.zeros(series.shape[1]),
        "capacity": alive + provisioned,
        "ready": alive + provisioned,
        "provisioned": provisioned,
        "spilled": series[kernel.SPILLED].astype(float),
        "nodes": np.zeros(series.shape[1]),
        "new_connections": new * per,
        "open_connections": (alive + provisioned) * per,
        "model_calls": level(series[kernel.CALLS_BEGIN] - series[kernel.CALLS_END]),
        "store_calls": (early * series[kernel.STARTED] + late * series[kernel.ENDED]).astype(float),
    } | first_tokens(series[kernel.ARRIVED], stats.first_sum, stats.slowest)
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
        requests=int(counts[kernel.REQUESTS]),
        attempts=int(counts[kernel.ATTEMPTS]),
        served=int(counts[kernel.SERVED]),
        refused=int(counts[kernel.GAVE_UP]),
        timed_out=int(counts[kernel.TIMED_OUT]),
        failed=int(counts[kernel.CUT_OFF]),
        throttled=int(counts[kernel.THROTTLES]),
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
        samples=samples_of(stats.kept),
    )
