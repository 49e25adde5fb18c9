"""Decisions of the model's quota on requests in pods."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled
from seawall.plan.simulator.kernels.durations import model_call, other_stages
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.calls import close_call, next_call
from seawall.plan.simulator.kernels.pods import arrays as k
from seawall.plan.simulator.kernels.pods.arrays import PodParams, Pods, PodStats, Requests
from seawall.plan.simulator.kernels.pods.attempts import retry_or_fail
from seawall.plan.simulator.kernels.pods.service import give_up
from seawall.plan.simulator.kernels.primitives import bin_index, push

__all__ = ["decide_call"]

Floats = NDArray[np.float64]


@compiled
def _begin_call(
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    rows: Floats,
    tables: Floats,
    slot: int,
    now: float,
    slower: float,
) -> None:
    """A model call begins, and takes `slower` times as long as drawn."""
    request = requests.request[slot]
    seconds, token = model_call(
        params.services, rows, tables, params.before, params.row_first, request
    )
    after = other_stages(params.services, rows, tables, params.before + 1, params.stages, request)
    bins = stats.series.shape[1]
    answered = now + seconds * slower
    stats.series[k.CALLS_BEGIN, bin_index(now, params.width, bins)] += 1
    stats.series[k.CALLS_END, bin_index(answered, params.width, bins)] += 1
    requests.pause[slot] = now + token * slower
    requests.phase[slot] = k.WAITING
    count = requests.tally
    count[k.IN_WAIT] = push(
        requests.wakes, requests.waking, count[k.IN_WAIT], answered + after, slot
    )


@compiled
def decide_call(
    pods: Pods,
    requests: Requests,
    stats: PodStats,
    params: PodParams,
    quota: Quota,
    rows: Floats,
    tables: Floats,
    now: float,
) -> None:
    """The next event of the model's quota: a call may begin, or its request ends without it."""
    call = next_call(quota, now)
    if call < 0:
        return
    slot: Any = np.uint32(quota.items[m.OWNER, call])
    if quota.items[m.VERDICT, call] == m.GRANTED:
        slower = quota.endpoints[quota.items[m.ENDPOINT, call], m.SLOWER]
        _begin_call(requests, stats, params, rows, tables, slot, now, slower)
        return
    close_call(quota, call)
    if requests.gone[slot] == 0:
        retry_or_fail(
            requests,
            stats,
            params,
            requests.request[slot],
            requests.tries[slot],
            requests.first[slot],
            now,
            1,
        )
    give_up(pods, requests, stats, params, quota, rows, tables, slot, now)
