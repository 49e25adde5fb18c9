"""A run on pods, or on Lambda's managed instances, which are much like them."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from seawall.plan.distributions import constant, encode
from seawall.plan.fleet import Fleet
from seawall.plan.hpa import HpaSettings
from seawall.plan.keda import KedaSettings
from seawall.plan.kernels import pods as kernel
from seawall.plan.platforms import Eks, Managed, Nodes
from seawall.plan.result import Result, Usage
from seawall.plan.scalers import Scaler, scaler_of
from seawall.plan.stream import CHOICES, JITTERS, SERVICES, numbers
from seawall.plan.tally import bin_width, empty_histogram, first_tokens, histogram, level, samples_of
from seawall.plan.workload import Workload

__all__ = ["places_of", "run_eks", "run_managed"]

Floats = NDArray[np.float64]
_BALANCES = {"random": kernel.RANDOM, "round-robin": kernel.ROUND_ROBIN, "least": kernel.LEAST}


def places_of(platform: Eks | Managed, workload: Workload) -> int:
    """Requests in service in one pod at most: its limit, or what its memory has room for.

    A process a request, as AWS's Python runtime has it, takes the memory of a whole process.
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


def run_eks(
    workload: Workload,
    platform: Eks,
    pieces: Iterable[Floats],
    *,
    seed: int,
    wanted_bin: float,
    kept: Floats,
) -> Result:
    """Simulate; see `simulate`."""
    most = platform.pods if platform.scaler is None else max(platform.scaler.maximum, platform.pods)
    return _run(
        workload, platform, pieces, seed, wanted_bin, kept, platform.scaler, most, "eks",
        places_of(platform, workload),
    )  # fmt: skip


def run_managed(
    workload: Workload,
    platform: Managed,
    pieces: Iterable[Floats],
    *,
    seed: int,
    wanted_bin: float,
    kept: Floats,
) -> Result:
    """Simulate; see `simulate`. An environment is as a pod without a queue, on its own node."""
    cores = platform.vcpus if platform.runtime == "processes" else 1.0
    like = Eks(
        pods=platform.minimum,
        cores=cores,
        queue=0,
        balance="least",
        warm_up=constant(0.0),
        endpoint_lag=0.0,
        prestop=0.0,
        grace=900.0,
        nodes=Nodes(pods_each=1, launch=platform.launch, pull=constant(0.0)),
    )
    return _run(
        workload, like, pieces, seed, wanted_bin, kept, platform, platform.maximum,
        "lambda-managed", places_of(platform, workload),
    )  # fmt: skip


def _run(
    workload: Workload,
    platform: Eks,
    pieces: Iterable[Floats],
    seed: int,
    wanted_bin: float,
    kept: Floats,
    settings: HpaSettings | KedaSettings | Managed | None,
    most: int,
    kind: str,
    room: int,
) -> Result:
    width, bins = bin_width(workload, wanted_bin)
    law, rows, tables = _law(workload, platform, seed, width, room)
    horizon = workload.arrivals.horizon
    # Room for those that drain while others start: a deployment, or nodes that are taken.
    places = 2 * most + math.ceil(platform.surge * most) + 8
    pods, requests = _state(places, law, workload)
    books = kernel.PodBooks(
        series=np.zeros((12, bins), dtype=np.int64),
        slowest=np.zeros(bins),
        first_sum=np.zeros(bins),
        latencies=empty_histogram(),
        firsts=empty_histogram(),
        waits=empty_histogram(),
        counts=np.zeros(9, dtype=np.int64),
        totals=np.zeros(5),
        kept=kept,
    )
    state = (pods, requests, books, law)
    fleet = Fleet(platform, workload.service.start, state, seed=seed, horizon=horizon)
    scaler = scaler_of(fleet, settings, law, books)
    requests = _drive(state, rows, tables, pieces, fleet, scaler, horizon)
    return _result(workload, books, pods, fleet, kind, seed, width)


def _drive(
    state: tuple[kernel.Pods, kernel.Requests, kernel.PodBooks, kernel.PodLaw],
    rows: Floats,
    tables: Floats,
    pieces: Iterable[Floats],
    fleet: Fleet,
    scaler: Scaler | None,
    horizon: float,
) -> kernel.Requests:
    pods, requests, books, law = state
    following = iter(pieces)
    piece, last, at, number = next(following), False, 0, 0
    while True:
        requests = _with_room(requests, len(piece))
        fleet.use(requests)
        until = fleet.next_time
        at = kernel.work(
            pods, requests, books, law, rows, tables, piece, at, number, until, last
        )
        if at == len(piece) and not last:
            number += len(piece)
            at = 0
            more = next(following, None)
            piece, last = (np.empty(0), True) if more is None else (more, False)
            continue
        idle = requests.count[kernel.USED] == 0 and requests.count[kernel.RETRYING] == 0
        if last and idle and until > horizon:
            return requests
        now, what = fleet.act()
        if scaler is not None:
            scaler.look(now, what)


def _law(
    workload: Workload, platform: Eks, seed: int, width: float, room: int
) -> tuple[kernel.PodLaw, Floats, Floats]:
    service, clients = workload.service, workload.clients
    stages = service.stages
    before = next((at for at, stage in enumerate(stages) if stage.model), len(stages))
    rows, tables = encode(
        [*(stage.seconds for stage in stages), service.first_token],
        [-stage.cpu_ms / 1e3 for stage in stages],
    )
    law = kernel.PodLaw(
        services=numbers(seed, SERVICES),
        jitters=numbers(seed, JITTERS),
        choices=numbers(seed, CHOICES),
        stages=len(stages),
        before=before,
        row_first=len(stages),
        cpu_first=sum(stage.cpu_ms for stage in stages[:before]) / 1e3,
        cpu_last=sum(stage.cpu_ms for stage in stages[before:]) / 1e3,
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
        width=width,
        horizon=float(workload.arrivals.horizon),
    )
    return law, rows, tables


def _state(
    places: int, law: kernel.PodLaw, workload: Workload
) -> tuple[kernel.Pods, kernel.Requests]:
    leaves = 1 << max(1, math.ceil(math.log2(places)))
    each = int(min(law.room, workload.expected_requests * 1.5 + 10_000))
    slots = int(min(places * (law.room + law.queue), workload.expected_requests * 6 + 100_000))

    def whole(size: int) -> NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    tree = np.full(2 * leaves, math.inf)
    pods = kernel.Pods(
        ready=whole(places),
        closed=whole(places),
        busy=whole(places),
        waiting=whole(places),
        most=whole(places),
        bursts=whole(places),
        clock=np.zeros(places),
        seen=np.zeros(places),
        used=np.zeros(places),
        keys=np.zeros((places, each + 1)),
        items=np.zeros((places, each + 1), dtype=np.int64),
        tree=tree,
        oldest=np.full(places, -1, dtype=np.int64),
        newest=np.full(places, -1, dtype=np.int64),
    )
    ring = 4 * slots
    requests = kernel.Requests(
        count=whole(10),
        pod=np.full(slots, -1, dtype=np.int64),
        phase=whole(slots),
        request=whole(slots),
        tries=whole(slots),
        serial=whole(slots),
        gone=whole(slots),
        first=np.zeros(slots),
        since=np.zeros(slots),
        pause=np.zeros(slots),
        later=whole(slots),
        earlier=whole(slots),
        free=np.arange(slots, dtype=np.int64),
        wakes=np.zeros(slots),
        waking=whole(slots),
        ring_times=np.zeros(ring),
        ring_slots=whole(ring),
        ring_serials=whole(ring),
        line_times=np.zeros(ring),
        line_slots=whole(ring),
        line_serials=whole(ring),
        again=np.zeros(0),
        ticket=whole(0),
        again_request=whole(0),
        again_tries=whole(0),
        again_first=np.zeros(0),
        tickets=whole(0),
    )
    return pods, requests


def _with_room(requests: kernel.Requests, more: int) -> kernel.Requests:
    """Room for as many to come again as may: all in the pods, and the next piece."""
    have = len(requests.again)
    needed = int(requests.count[kernel.USED]) + more + 1
    if requests.count[kernel.TICKETS] >= needed:
        return requests
    size = max(2 * have, have + needed + 1_024)

    def grown(array: NDArray[np.generic]) -> NDArray[np.generic]:
        wider = np.zeros(size, dtype=array.dtype)
        wider[:have] = array
        return wider

    names = ("again", "ticket", "again_request", "again_tries", "again_first", "tickets")
    requests = requests._replace(**{name: grown(getattr(requests, name)) for name in names})
    free = requests.count[kernel.TICKETS]
    requests.tickets[free : free + size - have] = np.arange(have, size)
    requests.count[kernel.TICKETS] += size - have
    return requests


def _steps(changes: list[tuple[float, int]], width: float, bins: int) -> Floats:
    """What the changes add up to, at the end of each bin."""
    found = np.zeros(bins, dtype=np.int64)
    for at, change in changes:
        found[min(int(at / width), bins - 1)] += change
    return level(found)


def _result(
    workload: Workload,
    books: kernel.PodBooks,
    pods: kernel.Pods,
    fleet: Fleet,
    kind: str,
    seed: int,
    width: float,
) -> Result:
    series, counts, totals = books.series, books.counts, books.totals
    bins = series.shape[1]
    stages = workload.service.stages
    model = next((at for at, stage in enumerate(stages) if stage.model), len(stages))
    early = sum(stage.store_calls for stage in stages[: model + 1])
    late = sum(stage.store_calls for stage in stages[model + 1 :])
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
        "in_service": np.maximum(level(series[kernel.STARTED] - series[kernel.ENDED]), 0.0),
        "queued": level(series[kernel.QUEUE_CHANGE]),
        "capacity": capacity,
        "ready": _steps(fleet.ready_changes, width, bins),
        "provisioned": np.zeros(bins),
        "spilled": np.zeros(bins),
        "nodes": _steps(fleet.park.changes, width, bins),
        "new_connections": opened + per * started_pods,
        "open_connections": np.cumsum(opened) + per * capacity,
        "model_calls": level(series[kernel.CALLS_BEGIN] - series[kernel.CALLS_END]),
        "store_calls": (early * series[kernel.STARTED] + late * series[kernel.ENDED]).astype(float),
    } | first_tokens(series[kernel.ARRIVED], books.first_sum, books.slowest)
    pod_seconds = fleet.pod_seconds()
    usage = Usage(
        invocations=int(counts[kernel.ATTEMPTS] - counts[kernel.THROTTLES]),
        pod_seconds=pod_seconds,
        node_seconds=fleet.park.seconds(horizon),
        cpu_seconds=float(pods.used.sum()),
        node_starts=fleet.park.launched,
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
        latency=histogram(books.latencies, totals[kernel.LATENCY]),
        first_token=histogram(books.firsts, totals[kernel.FIRST]),
        wait=histogram(books.waits, totals[kernel.WAITED]),
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
        samples=samples_of(books.kept),
    )
