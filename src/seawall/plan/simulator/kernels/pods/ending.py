"""Pods that are gone with what is in them, and what pods used until now."""

from seawall.plan.simulator.kernels.compiled import compiled
from seawall.plan.simulator.kernels.pods.arrays import (
    BUSY_TIME,
    DEAD,
    ENDED,
    FREE,
    QUEUED,
    WAITING,
    PodParams,
    Pods,
    PodStats,
    Requests,
)
from seawall.plan.simulator.kernels.pods.giving_up import retry_or_fail
from seawall.plan.simulator.kernels.pods.processor import advance, schedule_burst
from seawall.plan.simulator.kernels.pods.service import release, unqueue
from seawall.plan.simulator.kernels.recording import place

__all__ = ["kill", "settle"]


@compiled
def settle(pods: Pods, params: PodParams, now: float) -> None:
    """Bring what pods used of their processors up to now, to be read."""
    for pod in range(pods.busy.shape[0]):
        advance(pods, params, pod, now)


@compiled
def kill(
    pods: Pods, requests: Requests, stats: PodStats, params: PodParams, pod: int, now: float
) -> int:
    """The pod is gone, and everything in it fails; how many."""
    advance(pods, params, pod, now)
    failed = 0
    for slot in range(requests.phase.shape[0]):
        if requests.pod[slot] != pod:
            continue
        phase = requests.phase[slot]
        if phase in (FREE, DEAD):
            continue
        if phase == QUEUED:
            unqueue(pods, requests, stats, params, slot, now)
        else:
            stats.series[ENDED, place(now, params.width, stats.series.shape[1])] += 1
            stats.totals[BUSY_TIME] += now - requests.since[slot]
        if requests.gone[slot] == 0:
            failed += 1
            retry_or_fail(
                requests,
                stats,
                params,
                requests.request[slot],
                requests.tries[slot],
                requests.first[slot],
                now,
                3,
            )
        if phase == WAITING:
            requests.phase[slot] = DEAD
        else:
            release(requests, slot)
    pods.busy[pod] = 0
    pods.bursts[pod] = 0
    pods.most[pod] = 0
    schedule_burst(pods, params, pod)
    return failed
