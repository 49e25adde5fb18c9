"""What a run on pods starts from: rules, distributions, and arrays to work in."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seawall.plan.inputs.distributions import encode
from seawall.plan.inputs.platforms import Eks, Managed
from seawall.plan.inputs.workload import Workload
from seawall.plan.simulator.job import Job
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.stream import CHOICES, JITTERS, SERVICES, numbers

__all__ = ["initial_pods", "params_of", "slots_of", "with_room"]

Floats = NDArray[np.float64]
_BALANCES = {"random": kernel.RANDOM, "round-robin": kernel.ROUND_ROBIN, "least": kernel.LEAST}


def slots_of(platform: Eks | Managed, workload: Workload) -> int:
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


def params_of(job: Job, platform: Eks, room: int) -> tuple[kernel.PodParams, Floats, Floats]:
    """The rules of a run, and its distributions."""
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
    )
    return params, rows, tables


def initial_pods(
    places: int, params: kernel.PodParams, workload: Workload
) -> tuple[kernel.Pods, kernel.Requests]:
    """No pods yet, nobody in them, and room for all."""
    leaves = 1 << max(1, math.ceil(math.log2(places)))
    each = int(min(params.room, workload.most_attempts))
    slots = int(min(2 * places * (params.room + params.queue) + 1, workload.most_attempts))

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
        tally=whole(10),
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
        # Written before they are read; clearing these, the largest, was a tenth of a short run.
        ring_times=np.empty(ring),
        ring_slots=np.empty(ring, dtype=np.int64),
        ring_serials=np.empty(ring, dtype=np.int64),
        line_times=np.empty(ring),
        line_slots=np.empty(ring, dtype=np.int64),
        line_serials=np.empty(ring, dtype=np.int64),
        again=np.zeros(0),
        ticket=whole(0),
        again_request=whole(0),
        again_tries=whole(0),
        again_first=np.zeros(0),
        tickets=whole(0),
    )
    return pods, requests


def with_room(requests: kernel.Requests, more: int) -> kernel.Requests:
    """Room for as many to come again as may: all in the pods, and the next piece."""
    have = len(requests.again)
    needed = int(requests.tally[kernel.USED]) + more + 1
    if requests.tally[kernel.TICKETS] >= needed:
        return requests
    size = max(2 * have, have + needed + 1_024)

    def grown(array: NDArray[Any]) -> NDArray[Any]:
        wider = np.zeros(size, dtype=array.dtype)
        wider[:have] = array
        return wider

    names = ("again", "ticket", "again_request", "again_tries", "again_first", "tickets")
    requests = requests._replace(**{name: grown(getattr(requests, name)) for name in names})
    free = requests.tally[kernel.TICKETS]
    requests.tickets[free : free + size - have] = np.arange(have, size)
    requests.tally[kernel.TICKETS] += size - have
    return requests
