"""A run on places with one queue."""

import numpy as np

from seawall.plan.inputs.distributions import encode
from seawall.plan.inputs.platforms import Servers
from seawall.plan.simulator.job import Job
from seawall.plan.simulator.kernels import servers as kernel
from seawall.plan.simulator.result import Result, Samples, Usage
from seawall.plan.simulator.stream import SERVICES, numbers
from seawall.plan.simulator.tally import empty_histogram, histogram, level

__all__ = ["run_servers"]


def run_servers(job: Job, platform: Servers) -> Result:
    """Simulate; see `simulate`. Refused requests do not come again, and nobody leaves the queue."""
    workload, width, bins, kept = job.workload, job.width, job.bins, job.kept
    rows, tables = encode([stage.seconds for stage in workload.service.stages])
    limit = -1 if platform.queue is None else platform.queue
    state = numbers(job.seed, SERVICES)
    free, who = np.zeros(platform.places), np.zeros(platform.places, dtype=np.int64)
    starts = np.zeros(max(1, limit))
    series = np.zeros((4, bins), dtype=np.int64)
    waits, latencies = empty_histogram(), empty_histogram()
    totals, counts = np.zeros(4), np.zeros(3, dtype=np.int64)
    number = 0
    for piece in job.pieces:
        kernel.serve(
            piece, number, state, rows, tables, free, who, starts, limit,
            float(platform.longest), width, series, waits, latencies, totals, counts, kept,
        )  # fmt: skip
        number += len(piece)
    arrived, started, ended, refused = series
    busy = level(started - ended)
    horizon = workload.arrivals.horizon
    nothing = np.zeros(bins)
    seconds = {
        "arrived": arrived.astype(float),
        "started": started.astype(float),
        "ended": ended.astype(float),
        "throttled": refused.astype(float),
        "refused": refused.astype(float),
        "in_service": busy,
        "queued": level(arrived - refused - started),
        "capacity": nothing + platform.places,
        "ready": nothing + platform.places,
    }
    served = int(counts[kernel.SERVED])
    gone = kept[:, 1] < 0
    samples = Samples(
        arrival=kept[:, 0],
        first_token=np.full(len(kept), -1.0),
        latency=np.maximum(kept[:, 1], 0.0),
        outcome=gone.astype(np.int8),
        cold=np.zeros(len(kept), dtype=np.bool_),
    )
    return Result(
        platform="servers",
        seed=job.seed,
        horizon=horizon,
        bin_seconds=width,
        requests=int(counts[kernel.ARRIVED]),
        attempts=int(counts[kernel.ARRIVED]),
        served=served,
        refused=int(counts[kernel.REFUSED]),
        timed_out=0,
        failed=0,
        throttled=int(counts[kernel.REFUSED]),
        cold_starts=0,
        on_provisioned=0,
        mean_busy=float(totals[kernel.BUSY]) / horizon,
        mean_capacity=float(platform.places),
        latency=histogram(latencies, totals[kernel.LATENCY]),
        first_token=histogram(empty_histogram(), 0.0),
        wait=histogram(waits, totals[kernel.WAIT]),
        usage=Usage(invocations=served),
        peak={
            "in_service": int(busy.max()),
            "capacity": platform.places,
            "queued": int(max(0.0, seconds["queued"].max())),
        },
        seconds=seconds,
        samples=samples,
    )
