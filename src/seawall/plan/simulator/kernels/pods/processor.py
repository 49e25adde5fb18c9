"""A pod's processor, shared equally by the bursts in it (processor sharing).

A burst is done when the pod's virtual time, which runs at the speed of each burst, has gone as far
as the burst is long.
"""

import math

from seawall.plan.simulator.kernels.compiled import inlined
from seawall.plan.simulator.kernels.heaps import push, set_leaf
from seawall.plan.simulator.kernels.pods.arrays import PodParams, Pods, Requests

__all__ = ["advance", "schedule_burst", "start_burst"]


@inlined
def advance(pods: Pods, params: PodParams, pod: int, now: float) -> None:
    """Bring the pod's virtual time up to now."""
    running = pods.bursts[pod]
    if running > 0:
        passed = now - pods.seen[pod]
        pods.clock[pod] += passed * min(1.0, params.cores / running)
        pods.used[pod] += passed * min(float(running), params.cores)
    pods.seen[pod] = now


@inlined
def schedule_burst(pods: Pods, params: PodParams, pod: int) -> None:
    """Say when the pod's next burst ends."""
    running = pods.bursts[pod]
    end = math.inf
    if running > 0:
        left = max(0.0, pods.keys[pod, 0] - pods.clock[pod])
        end = pods.seen[pod] + left * max(1.0, running / params.cores)
    else:
        pods.clock[pod] = 0.0
    set_leaf(pods.tree, pods.tree.shape[0] >> 1, pod, end)


@inlined
def start_burst(
    pods: Pods, requests: Requests, params: PodParams, slot: int, seconds: float, now: float
) -> None:
    """It wants so much of its pod's processor from now on."""
    pod = requests.pod[slot]
    advance(pods, params, pod, now)
    pods.bursts[pod] = push(
        pods.keys[pod], pods.items[pod], pods.bursts[pod], pods.clock[pod] + seconds, slot
    )
    schedule_burst(pods, params, pod)
