"""A run on pods, or on Lambda Managed Instances, which are simulated as pods."""

import math

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.distributions import constant, encode
from seawall.plan.inputs.platforms import (
    Eks,
    HpaSettings,
    KedaSettings,
    Managed,
    Nodes,
    RequestScaling,
    ServiceTracking,
)
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.fleet import Fleet
from seawall.plan.simulator.job import (
    CHOICES,
    JITTERS,
    SERVICES,
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
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.kernels.pods.loop import run_until
from seawall.plan.simulator.kernels.primitives import HEAP_ROOM
from seawall.plan.simulator.model_quota import is_limited, model_calls, model_series, quota_of
from seawall.plan.simulator.result import Result, Usage
from seawall.plan.simulator.scalers import Scaler, scaler_of

__all__ = [
    "cores_of",
    "run_eks",
    "run_managed",
    "slots_of",
]

Floats = NDArray[np.float64]
_BALANCES = {"random": kernel.RANDOM, "round-robin": kernel.ROUND_ROBIN, "least": kernel.LEAST}


def slots_of(platform: Eks | Managed, workload: Workload) -> int:
    """The maximum of requests in service in one pod or environment: by its limit and its memory.

    With a process for each request, each takes the memory of a whole process.
    """
    service = workload.service
    if isinstance(platform, Eks):
        limit, memory = platform.concurrency, platform.memory_mb
        each = service.memory_kb_in_flight / 1_024.0
    else:
        memory = platform.vcpus * platform.memory_gb_each * 1_024.0
        default = 16 if platform.runtime == "processes" else 64
        limit = int(platform.concurrency or default * platform.vcpus)
        each = service.memory_kb_in_flight / 1_024.0
        if platform.runtime == "processes":
            return max(1, min(limit, int(memory / (service.memory_mb + each))))
    room = (memory - service.memory_mb) / each if each else math.inf
    return max(1, int(min(limit, room)))


def cores_of(platform: Managed) -> float:
    """The processors that the requests of an environment share: one process uses one."""
    return platform.vcpus if platform.runtime == "processes" else 1.0


def _params_of(job: Job, platform: Eks, room: int) -> tuple[kernel.PodParams, Floats, Floats]:
    """The parameters of a run, and its encoded distributions."""
    workload, seed = job.workload, job.seed
    service, clients = workload.service, workload.clients
    stages = service.stages
    before = job.model_at
    rows, tables = encode(
        [*(stage.seconds for stage in stages), service.first_token],
        [-stage.cpu_ms / 1e3 for stage in stages],
    )
    params = kernel.PodParams(
        services=numbers(seed, SERVICES),
        jitters=numbers(seed, JITTERS),
        choices=numbers(seed, CHOICES),
        stages=len(stages),
        before=before,
        row_first=len(stages),
        cpu_first=sum(stage.cpu_ms for stage in stages[:before]) / 1e3,
        cpu_last=sum(stage.cpu_ms for stage in stages[before:]) / 1e3,
        fixed_before=fixed_seconds(rows[:before]),
        fixed_after=fixed_seconds(rows[before + 1 : len(stages)]),
        room=room,
        queue=platform.queue,
        longest=float(platform.queue_seconds),
        cores=float(platform.cores),
        balance=_BALANCES[platform.balance],
        retries=clients.retries,
        retry_timeouts=clients.retry_timeouts,
        backoff=float(clients.backoff),
        backoff_cap=float(clients.backoff_cap),
        patience=float(clients.patience),
        width=job.width,
        horizon=float(workload.arrivals.horizon),
        limited=is_limited(job),
    )
    return params, rows, tables


def _initial_state(
    most: int, params: kernel.PodParams, workload: Workload
) -> tuple[kernel.Pods, kernel.Requests]:
    """The arrays of a run without pods or requests, with room for `most` pods."""
    leaves = 1 << max(1, math.ceil(math.log2(most)))
    each = int(min(params.room, workload.most_attempts))
    slots = int(min(2 * most * (params.room + params.queue) + 1, workload.most_attempts))

    def whole(size: int) -> NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    def indices(size: int) -> NDArray[np.uint32]:
        return np.zeros(size, dtype=np.uint32)

    tree = np.full(2 * leaves, math.inf)
    pods = kernel.Pods(
        ready=indices(most),
        closed=whole(most),
        busy=whole(most),
        waiting=whole(most),
        most=whole(most),
        bursts=whole(most),
        alone_until=np.full(most, -1.0),
        clock=np.zeros(most),
        seen=np.zeros(most),
        used=np.zeros(most),
        keys=np.full((most, each + 1 + HEAP_ROOM), math.inf),
        items=np.zeros((most, each + 1), dtype=np.uint32),
        tree=tree,
        oldest=np.full(most, -1, dtype=np.int64),
        newest=np.full(most, -1, dtype=np.int64),
    )
    ring = 4 * slots
    requests = kernel.Requests(
        tally=whole(10),
        pod=indices(slots),
        phase=whole(slots),
        request=whole(slots),
        tries=whole(slots),
        serial=whole(slots),
        gone=whole(slots),
        stale=whole(slots),
        first=np.zeros(slots),
        since=np.zeros(slots),
        pause=np.zeros(slots),
        later=whole(slots),
        earlier=whole(slots),
        free=np.arange(slots, dtype=np.uint32),
        wakes=np.full(2 * slots + HEAP_ROOM, math.inf),  # one of a slot may be stale
        waking=indices(2 * slots),
        # Written before they are read; clearing these, the largest, was a tenth of a short run.
        ring_times=np.empty(ring),
        ring_slots=np.empty(ring, dtype=np.uint32),
        ring_serials=np.empty(ring, dtype=np.int64),
        line_times=np.empty(ring),
        line_slots=np.empty(ring, dtype=np.uint32),
        line_serials=np.empty(ring, dtype=np.int64),
        retry_times=np.full(HEAP_ROOM, math.inf),
        ticket=whole(0),
        retry_request=whole(0),
        retry_tries=whole(0),
        retry_first=np.zeros(0),
        free_tickets=whole(0),
    )
    return pods, requests


State = tuple[kernel.Pods, kernel.Requests, kernel.PodStats, kernel.PodParams, Quota]


def run_eks(job: Job, platform: Eks) -> Result:
    """Run a job; see `simulate`."""
    scaler = platform.scaler
    most = platform.pods if scaler is None else max(scaler.maximum, platform.pods)
    room = slots_of(platform, job.workload)
    return _run(job, platform, scaler, most=most, kind="eks", room=room)


def run_managed(job: Job, platform: Managed) -> Result:
    """Run a job; see `simulate`. An environment is a pod without a queue on its own node."""
    like = Eks(
        pods=platform.minimum,
        cores=cores_of(platform),
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
    settings: HpaSettings | KedaSettings | ServiceTracking | RequestScaling | Managed | None,
    *,
    most: int,
    kind: str,
    room: int,
) -> Result:
    params, rows, tables = _params_of(job, platform, room)
    # Room for pods that drain while others start, in a deployment or after an interruption.
    room_for = 2 * most + math.ceil(platform.surge * most) + 8
    pods, requests = _initial_state(room_for, params, job.workload)
    stats = kernel.PodStats(
        series=np.zeros((11, job.bins), dtype=np.int64),
        slowest=np.zeros(job.bins),
        first_sum=np.zeros(job.bins),
        latencies=empty_histogram(),
        firsts=empty_histogram(),
        waits=empty_histogram(),
        counts=np.zeros(9, dtype=np.int64),
        totals=np.zeros(5),
        samples=job.samples,
    )
    quota = quota_of(job, len(requests.phase))
    state = (pods, requests, stats, params, quota)
    horizon = job.workload.arrivals.horizon
    fleet = Fleet(platform, job.workload.service.start, state, seed=job.seed, horizon=horizon)
    scaler = scaler_of(fleet, settings, params, stats)
    _drive(job, state, (rows, tables), fleet, scaler)
    return _result(job, state, fleet, kind)


def _drive(
    job: Job, state: State, draws: tuple[Floats, Floats], fleet: Fleet, scaler: Scaler | None
) -> None:
    pods, requests, stats, params, quota = state
    following = iter(job.pieces)
    piece, last, at, number = next(following), False, 0, 0
    while True:
        in_pods = int(requests.tally[kernel.USED])
        requests = with_retry_room(requests, in_pods + len(piece) + 1, kernel.TICKETS)
        fleet.set_requests(requests)
        until = fleet.next_time
        at = run_until(pods, requests, stats, params, quota, *draws, piece, at, number, until, last)
        if at == len(piece) and not last:
            number += len(piece)
            at = 0
            more = next(following, None)
            piece, last = (np.empty(0), True) if more is None else (more, False)
            continue
        idle = requests.tally[kernel.USED] == 0 and requests.tally[kernel.RETRYING] == 0
        if last and idle and until > job.workload.arrivals.horizon:
            return
        now, kind = fleet.run_next()
        if scaler is not None:
            scaler.evaluate(now, kind)


def _steps(changes: list[tuple[float, int]], width: float, bins: int) -> Floats:
    """The sum of changes at the end of each bin."""
    found = np.zeros(bins, dtype=np.int64)
    for at, change in changes:
        found[min(int(at / width), bins - 1)] += change
    return level(found)


def _result(job: Job, state: State, fleet: Fleet, kind: str) -> Result:
    pods, _, stats, _, quota = state
    workload, width, seed = job.workload, job.width, job.seed
    series, counts, totals = stats.series, stats.counts, stats.totals
    bins = series.shape[1]
    capacity = _steps(fleet.pod_changes, width, bins)
    per = workload.service.connections
    started_pods = np.zeros(bins)
    for at, change in fleet.pod_changes:
        if change > 0 and at > 0:
            started_pods[min(int(at / width), bins - 1)] += 1
    horizon = workload.arrivals.horizon
    opened = series[kernel.CONNECTED].astype(float)
    seconds = (
        shared_series(job, stats, kernel)
        | model_series(quota)
        | {
            "cold_starts": started_pods,
            "queued": level(series[kernel.QUEUE_CHANGE]),
            "capacity": capacity,
            "ready": _steps(fleet.ready_changes, width, bins),
            "provisioned": np.zeros(bins),
            "spilled": np.zeros(bins),
            "nodes": _steps(fleet.node_pool.changes, width, bins),
            "new_connections": opened + per * started_pods,
            "open_connections": np.cumsum(opened) + per * capacity,
        }
    )
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
        samples=samples_of(stats.samples),
        model=model_calls(quota),
        **shared_counts(counts, kernel),
    )
