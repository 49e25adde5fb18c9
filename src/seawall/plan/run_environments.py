"""A run on Lambda functions: pieces of arrivals, and what provisions environments between."""

import math
from collections.abc import Iterable

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from seawall.plan.distributions import Distribution, constant, encode
from seawall.plan.kernels import environments as kernel
from seawall.plan.platforms import Lambda
from seawall.plan.provisioning import Provisioning
from seawall.plan.result import Result, Usage
from seawall.plan.stream import JITTERS, SERVICES, STARTS, numbers
from seawall.plan.tally import bin_width, empty_histogram, first_tokens, histogram, level, samples_of
from seawall.plan.workload import Workload

__all__ = ["run_lambda"]

Floats = NDArray[np.float64]
_FULL_PROCESSOR_MB = 1_769.0


def start_of(workload: Workload, platform: Lambda) -> Distribution:
    """How long a new environment takes until it serves, the sandbox aside."""
    service = workload.service
    if platform.snapstart:
        if service.restore is not None:
            return service.restore
        whole = service.start
        return structs.replace(whole, kind="constant", a=whole.a / 5.0) if (
            whole.kind == "constant"
        ) else constant(0.2)
    return service.start


def run_lambda(
    workload: Workload,
    platform: Lambda,
    pieces: Iterable[Floats],
    *,
    seed: int,
    wanted_bin: float,
    kept: Floats,
) -> Result:
    """Simulate; see `simulate`."""
    width, bins = bin_width(workload, wanted_bin)
    law, rows, tables = _law(workload, platform, seed, width)
    crowd = _crowd(platform, workload)
    books = kernel.Books(
        series=np.zeros((12, bins), dtype=np.int64),
        slowest=np.zeros(bins),
        first_sum=np.zeros(bins),
        latencies=empty_histogram(),
        firsts=empty_histogram(),
        counts=np.zeros(11, dtype=np.int64),
        totals=np.zeros(8),
        kept=kept,
    )
    provisioning = Provisioning(platform, workload.arrivals.horizon)
    crowd.count[kernel.PROVISIONED] = platform.provisioned
    number = 0
    following = iter(pieces)
    piece = next(following)
    last = False
    at = 0
    while True:
        crowd = _with_room(crowd, len(piece))
        until = provisioning.next_time
        at = kernel.invoke(
            crowd, books, law, rows, tables, piece, at, number, until, last
        )
        if at < len(piece) or last:
            if last and at == len(piece) and until == math.inf:
                break
            if last and until > workload.arrivals.horizon:
                provisioning.stop()
                continue
            provisioning.act(crowd.count, books)
        else:
            number += len(piece)
            at = 0
            more = next(following, None)
            piece, last = (np.empty(0), True) if more is None else (more, False)
    kernel.finish(crowd, books, law)
    return _result(workload, platform, books, provisioning, seed, width)


def _law(
    workload: Workload, platform: Lambda, seed: int, width: float
) -> tuple[kernel.Law, Floats, Floats]:
    service, clients = workload.service, workload.clients
    stages = service.stages
    before = next((at for at, stage in enumerate(stages) if stage.model), len(stages))
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
    law = kernel.Law(
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
        width=width,
        horizon=float(workload.arrivals.horizon),
    )
    return law, rows, tables


def _crowd(platform: Lambda, workload: Workload) -> kernel.Crowd:
    # Nobody needs more environments than there are requests.
    room = int(min(platform.limit, workload.expected_requests * 1.5 + 10_000)) + 1
    count = np.zeros(12, dtype=np.int64)
    count[kernel.FREE_SLOTS] = room
    count[kernel.OLDEST] = count[kernel.NEWEST] = -1
    limit = platform.invocations_per_concurrency * platform.limit
    start = min(platform.start_burst, 1e12)
    whole = lambda size: np.zeros(size, dtype=np.int64)  # noqa: E731
    return kernel.Crowd(
        count=count,
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


def _with_room(crowd: kernel.Crowd, more: int) -> kernel.Crowd:
    """Room for as many to come again as may in the next piece."""
    have = len(crowd.again)
    if crowd.count[kernel.TICKETS] >= more + 1:
        return crowd
    size = max(2 * have, have + more + 1_024)

    def grown(array: NDArray[np.generic]) -> NDArray[np.generic]:
        wider = np.zeros(size, dtype=array.dtype)
        wider[:have] = array
        return wider

    names = ("again", "ticket", "request", "tries", "first", "tickets")
    crowd = crowd._replace(**{name: grown(getattr(crowd, name)) for name in names})
    free = crowd.count[kernel.TICKETS]
    crowd.tickets[free : free + size - have] = np.arange(have, size)
    crowd.count[kernel.TICKETS] += size - have
    return crowd


def _result(
    workload: Workload,
    platform: Lambda,
    books: kernel.Books,
    provisioning: Provisioning,
    seed: int,
    width: float,
) -> Result:
    series, counts, totals = books.series, books.counts, books.totals
    stages = workload.service.stages
    model = next((at for at, stage in enumerate(stages) if stage.model), len(stages))
    early = sum(stage.store_calls for stage in stages[: model + 1])
    late = sum(stage.store_calls for stage in stages[model + 1 :])
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
    } | first_tokens(series[kernel.ARRIVED], books.first_sum, books.slowest)
    started = int(counts[kernel.ATTEMPTS] - counts[kernel.THROTTLES])
    provisioned_seconds = provisioning.seconds()
    usage = Usage(
        invocations=started,
        billed_seconds=float(totals[kernel.BILLED]),
        billed_start_seconds=float(totals[kernel.BILLED_START]),
        provisioned_seconds=provisioned_seconds,
        provisioned_billed_seconds=float(totals[kernel.BILLED_PROVISIONED]),
        restores=int(counts[kernel.COLD_STARTS]) if platform.snapstart else 0,
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
        latency=histogram(books.latencies, totals[kernel.LATENCY]),
        first_token=histogram(books.firsts, totals[kernel.FIRST]),
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
        samples=samples_of(books.kept),
    )
