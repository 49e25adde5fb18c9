"""Decisions of the model's quota on requests in pods."""

import numpy as np
from numpy.typing import NDArray

from seawall.plan.simulator.kernels import compiled
from seawall.plan.simulator.kernels.model import arrays as m
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.model.calls import close_call, next_call
from seawall.plan.simulator.kernels.pods.arrays import PodParams, Pods, PodStats, Requests
from seawall.plan.simulator.kernels.pods.attempts import retry_or_fail
from seawall.plan.simulator.kernels.pods.service import durations, give_up, wait

__all__ = ["decide_call"]

Floats = NDArray[np.float64]


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
    slot = quota.items[m.OWNER, call]
    if quota.items[m.VERDICT, call] == m.GRANTED:
        _, seconds, after, token = durations(params, rows, tables, requests.request[slot])
        slower = quota.endpoints[quota.items[m.ENDPOINT, call], m.SLOWER]
        wait(requests, stats, params, slot, now, 0.0, seconds * slower, after, token * slower)
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
