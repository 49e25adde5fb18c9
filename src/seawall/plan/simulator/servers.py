"""A run on servers with one queue."""

import numpy as np

from seawall.plan.inputs.distributions import encode
from seawall.plan.inputs.platforms import Servers
from seawall.plan.simulator.job import SERVICES, Job, empty_histogram, histogram, level, numbers
from seawall.plan.simulator.kernels import servers as kernel
from seawall.plan.simulator.kernels.primitives import HEAP_ROOM
from seawall.plan.simulator.result import Result, Samples, Usage

__all__ = ["run_servers"]


def run_servers(job: Job, platform: Servers) -> Result:
    """Run a job; see `simulate`. Clients neither retry nor time out."""
    workload, width, bins, samples = job.workload, job.width, job.bins, job.samples
    rows, tables = encode([stage.seconds for stage in workload.service.stages])
    limit = -1 if platform.queue is None else platform.queue
    state = numbers(job.seed, SERVICES)
    free = np.full(platform.slots + HEAP_ROOM, np.inf)
    free[: platform.slots] = 0.0
    heap_items = np.zeros(platform.slots + HEAP_ROOM, dtype=np.int64)
    starts = np.zeros(max(1, limit))
    series = np.zeros((4, bins), dtype=np.int64)
    waits, latencies = empty_histogram(), empty_histogram()
    totals, counts = np.zeros(4), np.zeros(3, dtype=np.int64)
    number = 0
    for piece in job.pieces:
        kernel.serve(
            piece, number, state, rows, tables, free, heap_items, starts, limit,
            float(platform.max_wait_seconds), width, series, waits, latencies, totals, counts,
            samples,
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
        "capacity": nothing + platform.slots,
        "ready": nothing + platform.slots,
    }
    served = int(counts[kernel.SERVED])
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
        mean_capacity=float(platform.slots),
        latency=histogram(latencies, totals[kernel.LATENCY]),
        first_token=histogram(empty_histogram(), 0.0),
        wait=histogram(waits, totals[kernel.WAIT]),
        usage=Usage(invocations=served),
        peak={
            "in_service": int(busy.max()),
            "capacity": platform.slots,
            "queued": int(max(0.0, seconds["queued"].max())),
        },
        seconds=seconds,
        samples=Samples(
            arrival=samples[:, 0],
            first_token=np.full(len(samples), -1.0),
            latency=np.maximum(samples[:, 1], 0.0),
            outcome=(samples[:, 1] < 0).astype(np.int8),
            cold=np.zeros(len(samples), dtype=np.bool_),
        ),
    )
