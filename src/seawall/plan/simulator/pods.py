"""A run on pods, or on Lambda's managed instances, which are much like them."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.distributions import constant
from seawall.plan.inputs.platforms import Eks, Managed, Nodes
from seawall.plan.simulator.fleet import Fleet
from seawall.plan.simulator.hpa import HpaSettings
from seawall.plan.simulator.job import Job
from seawall.plan.simulator.keda import KedaSettings
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.kernels.pods.loop import work
from seawall.plan.simulator.pod_state import initial_pods, params_of, slots_of, with_room
from seawall.plan.simulator.result import Result, Usage
from seawall.plan.simulator.scalers import Scaler, scaler_of
from seawall.plan.simulator.tally import empty_histogram, first_tokens, histogram, level, samples_of

__all__ = ["run_eks", "run_managed"]

Floats = NDArray[np.float64]
State = tuple[kernel.Pods, kernel.Requests, kernel.PodStats, kernel.PodParams]


def run_eks(job: Job, platform: Eks) -> Result:
    """Simulate; see `simulate`."""
    scaler = platform.scaler
    most = platform.pods if scaler is None else max(scaler.maximum, platform.pods)
    room = slots_of(platform, job.workload)
    return _run(job, platform, scaler, most=most, kind="eks", room=room)


def run_managed(job: Job, platform: Managed) -> Result:
    """Simulate; see `simulate`. An environment is as a pod without a queue, on its own node."""
    like = Eks(
        pods=platform.minimum,
        cores=platform.vcpus if platform.runtime == "processes" else 1.0,
        queue=0,
        balance="least",
        warm_up=constant(0.0),
        endpoint_lag=0.0,
        prestop=0.0,
        grace=900.0,
        nodes=Nodes(pods_each=1, launch=platform.launch, pull=constant(0.0)),
    )
    room = slots_of(platform, job.workload)
    return _run(job, like, platform, most=platform.maximum, kind="lambda-managed", room=room)


def _run(
    job: Job,
    platform: Eks,
    settings: HpaSettings | KedaSettings | Managed | None,
    *,
    most: int,
    kind: str,
    room: int,
) -> Result:
    params, rows, tables = params_of(job, platform, room)
    # Room for those that drain while others start: a deployment, or nodes that are taken.
    places = 2 * most + math.ceil(platform.surge * most) + 8
    pods, requests = initial_pods(places, params, job.workload)
    stats = kernel.PodStats(
        series=np.zeros((12, job.bins), dtype=np.int64),
        slowest=np.zeros(job.bins),
        first_sum=np.zeros(job.bins),
        latencies=empty_histogram(),
        firsts=empty_histogram(),
        waits=empty_histogram(),
        counts=np.zeros(9, dtype=np.int64),
        totals=np.zeros(5),
        kept=job.kept,
    )
    state = (pods, requests, stats, params)
    horizon = job.workload.arrivals.horizon
    fleet = Fleet(platform, job.workload.service.start, state, seed=job.seed, horizon=horizon)
    scaler = scaler_of(fleet, settings, params, stats)
    _drive(job, state, (rows, tables), fleet, scaler)
    return _result(job, stats, pods, fleet, kind)


def _drive(
    job: Job, state: State, draws: tuple[Floats, Floats], fleet: Fleet, scaler: Scaler | None
) -> None:
    pods, requests, stats, params = state
    following = iter(job.pieces)
    piece, last, at, number = next(following), False, 0, 0
    while True:
        requests = with_room(requests, len(piece))
        fleet.use(requests)
        until = fleet.next_time
        at = work(pods, requests, stats, params, *draws, piece, at, number, until, last)
        if at == len(piece) and not last:
            number += len(piece)
            at = 0
            more = next(following, None)
            piece, last = (np.empty(0), True) if more is None else (more, False)
            continue
        idle = requests.tally[kernel.USED] == 0 and requests.tally[kernel.RETRYING] == 0
        if last and idle and until > job.workload.arrivals.horizon:
            return
        now, what = fleet.act()
        if scaler is not None:
            scaler.evaluate(now, what)


def _steps(changes: list[tuple[float, int]], width: float, bins: int) -> Floats:
    """What the changes add up to, at the end of each bin."""
    found = np.zeros(bins, dtype=np.int64)
    for at, change in changes:
        found[min(int(at / width), bins - 1)] += change
    return level(found)


def _result(job: Job, stats: kernel.PodStats, pods: kernel.Pods, fleet: Fleet, kind: str) -> Result:
    workload, width, seed = job.workload, job.width, job.seed
    series, counts, totals = stats.series, stats.counts, stats.totals
    bins = series.shape[1]
    early, late = job.store_calls
    capacity = _steps(fleet.pod_changes, width, bins)
    per = workload.service.connections
    started_pods = np.zeros(bins)
    for at, change in fleet.pod_changes:
        if change > 0 and at > 0:
            started_pods[min(int(at / width), bins - 1)] += 1
    horizon = workload.arrivals.horizon
    opened = series[kernel.CONNECTED].astype(float)
    seconds = {
        "arrived": series[kernel.ARRIVED].astype(float),
        "started": series[kernel.STARTED].astype(float),
        "ended": series[kernel.ENDED].astype(float),
        "cold_starts": started_pods,
        "throttled": series[kernel.TURNED_AWAY].astype(float),
        "refused": series[kernel.REFUSED].astype(float),
        "timed_out": series[kernel.LEFT].astype(float),
        "failed": series[kernel.FAILED].astype(float),
        "in_service": level(series[kernel.STARTED] - series[kernel.ENDED]),
        "queued": level(series[kernel.QUEUE_CHANGE]),
        "capacity": capacity,
        "ready": _steps(fleet.ready_changes, width, bins),
        "provisioned": np.zeros(bins),
        "spilled": np.zeros(bins),
        "nodes": _steps(fleet.node_pool.changes, width, bins),
        "new_connections": opened + per * started_pods,
        "open_connections": np.cumsum(opened) + per * capacity,
        "model_calls": level(series[kernel.CALLS_BEGIN] - series[kernel.CALLS_END]),
        "store_calls": (early * series[kernel.STARTED] + late * series[kernel.ENDED]).astype(float),
    } | first_tokens(series[kernel.ARRIVED], stats.first_sum, stats.slowest)
    pod_seconds = fleet.pod_seconds()
    usage = Usage(
        invocations=int(counts[kernel.ATTEMPTS] - counts[kernel.THROTTLES]),
        pod_seconds=pod_seconds,
        node_seconds=fleet.node_pool.seconds(horizon),
        cpu_seconds=float(pods.used.sum()),
        node_starts=fleet.node_pool.launched,
        pod_starts=fleet.starts,
    )
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
        cold_starts=0,
        on_provisioned=0,
        mean_busy=float(totals[kernel.BUSY_TIME]) / horizon,
        mean_capacity=pod_seconds / horizon,
        latency=histogram(stats.latencies, totals[kernel.LATENCY]),
        first_token=histogram(stats.firsts, totals[kernel.FIRST]),
        wait=histogram(stats.waits, totals[kernel.WAITED]),
        usage=usage,
        peak={
            "in_service": int(seconds["in_service"].max()),
            "capacity": int(capacity.max()),
            "model_calls": int(seconds["model_calls"].max()),
            "open_connections": int(seconds["open_connections"].max()),
            "queued": int(seconds["queued"].max()),
            "in_one_pod": int(counts[kernel.PEAK_POD]),
        },
        seconds=seconds,
        samples=samples_of(stats.kept),
    )
