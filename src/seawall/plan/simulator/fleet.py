"""The pods of a deployment over time: start, readiness, draining and end."""

import heapq
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from seawall.plan.inputs.distributions import Distribution, encode
from seawall.plan.inputs.platforms import Eks
from seawall.plan.simulator.kernels.model.arrays import Quota
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.kernels.pods.loop import kill
from seawall.plan.simulator.kernels.randomness import draw
from seawall.plan.simulator.nodes import Node, NodePool

__all__ = ["Fleet", "Pod", "Sampler"]

Phase = Literal["starting", "ready", "draining", "gone"]
_NOTICE = 120.0


class Pod(Struct):
    """A pod: its index in the arrays, its node and its phase."""

    index: int
    node: Node
    started: float
    ready_at: float
    phase: Phase = "starting"
    replaces: bool = False
    listed: bool = False


class Sampler:
    """Draws values of distributions, one after the other, from a seed."""

    def __init__(self, seed: int, distributions: Sequence[Distribution]) -> None:
        self._rows, self._tables = encode(distributions)
        self._random = np.random.default_rng(seed)

    def draw(self, row: int) -> float:
        """One value of the distribution with this index."""
        u = min(max(self._random.random(), 1e-12), 1.0 - 1e-12)
        return float(draw(self._rows, self._tables, row, u))

    def skip(self, count: int) -> None:
        """Discard values."""
        self._random.random(count)

    def exponential(self, mean: float) -> float:
        """One exponentially distributed value."""
        return float(self._random.exponential(mean))


class Fleet:
    """The pods of a deployment, driven by events: call `run_next` at `next_time`.

    Args:
        platform: Its settings.
        start: Initialisation of a pod's process, seconds.
        state: The arrays of the compiled loop.
        seed: Of all random times.
        horizon: Seconds simulated.
    """

    def __init__(
        self,
        platform: Eks,
        start: Distribution,
        state: tuple[kernel.Pods, kernel.Requests, kernel.PodStats, kernel.PodParams, Quota],
        *,
        seed: int,
        horizon: float,
    ) -> None:
        self.pods_state, self._requests, self._stats, self._params, self._quota = state
        self._platform = platform
        self._horizon = horizon
        nodes = platform.nodes
        self._sampler = Sampler(seed, [nodes.launch, nodes.pull, start, platform.warm_up])
        self.node_pool = NodePool(nodes, platform.pods)
        self.live: list[Pod] = []
        self._free = list(range(len(self.pods_state.busy) - 1, -1, -1))
        self._events: list[tuple[float, int, str, Pod | Node | None]] = []
        self._serial = 0
        self.wanted = platform.pods
        self.starts = 0
        self.pod_changes: list[tuple[float, int]] = []
        self.ready_changes: list[tuple[float, int]] = []
        self._ended: list[tuple[float, float]] = []
        self._old: list[Pod] = []
        self._changed = True
        for node in self.node_pool.assign_first(platform.pods):
            pod = Pod(self._free.pop(), node, 0.0, 0.0)
            self.live.append(pod)
            self.pod_changes.append((0.0, 1))
            self._ready(pod, 0.0)
        self._sampler.skip(4 * platform.pods)  # as many as for pods that start later
        self._publish()
        for at in platform.deploys:
            self.schedule(at, "deploy")
        for node in list(self.node_pool.nodes):
            self._schedule_interruption(node)

    @property
    def next_time(self) -> float:
        """The time of the next event; infinite: none."""
        return self._events[0][0] if self._events else math.inf

    def schedule(self, at: float, kind: str, target: Pod | Node | None = None) -> None:
        """Schedule an event. Without a target, its kind is returned by `run_next`."""
        self._serial += 1
        heapq.heappush(self._events, (at, self._serial, kind, target))

    def run_next(self) -> tuple[float, str]:
        """Handle the next event; returns its time and kind."""
        now, _, kind, target = heapq.heappop(self._events)
        if isinstance(target, Pod):
            self._handle_pod(now, kind, target)
        elif isinstance(target, Node):
            self._handle_node(now, kind, target)
        elif kind == "deploy":
            self._old = [pod for pod in self.live if pod.phase in ("starting", "ready")]
            for _ in range(max(1, math.ceil(self._platform.surge * len(self._old)))):
                self._replace(now)
        self._publish()
        return now, kind

    def _handle_pod(self, now: float, kind: str, pod: Pod) -> None:
        if kind == "ready" and pod.phase == "starting":
            self._ready(pod, now)
            if pod.replaces:
                self._retire_old(now)
        elif kind == "close" and pod.phase != "gone":
            self.pods_state.closed[pod.index] = 1
        elif kind == "unlisted" and pod.phase == "draining":
            pod.listed = False
            self._changed = True
            self._check_drained(pod, now)
        elif kind in ("drained?", "kill") and pod.phase == "draining":
            if kind == "kill":
                kill(
                    self.pods_state, self._requests, self._stats, self._params, self._quota,
                    pod.index, now,
                )  # fmt: skip
                self._remove(pod, now)
            else:
                self._check_drained(pod, now)

    def _handle_node(self, now: float, kind: str, node: Node) -> None:
        if node.gone:
            return
        if kind == "interrupted":
            node.taken = True
            for pod in [each for each in self.live if each.node is node]:
                if pod.phase in ("starting", "ready"):
                    self.drain(pod, now, grace=_NOTICE - 1.0)
            self.schedule(now + _NOTICE, "taken", node)
            self.scale(self.wanted, now)
        elif kind == "taken" or (kind == "empty?" and node.pods == 0):
            self.node_pool.remove(node, now)

    def scale(self, wanted: int, now: float) -> None:
        """Set the number of pods that start or serve: start more, or drain the newest."""
        self.wanted = wanted
        serving = [pod for pod in self.live if pod.phase in ("starting", "ready")]
        for _ in range(wanted - len(serving)):
            self._start_pod(now)
        if len(serving) > wanted:
            order = sorted(serving, key=lambda pod: (pod.phase == "ready", -pod.started))
            for pod in order[: len(serving) - wanted]:
                self.drain(pod, now, grace=self._platform.grace)
        self._publish()

    def _start_pod(self, now: float, *, replaces: bool = False) -> Pod:
        if not self._free:
            raise AssertionError("more pods than the arrays have room for")
        before = self.node_pool.launched
        node = self.node_pool.assign(now, self._sampler.draw(0), self._sampler.draw(1))
        if self.node_pool.launched > before:
            self._schedule_interruption(node)
        ready = max(now, node.has_image) + self._sampler.draw(2) + self._sampler.draw(3)
        pod = Pod(self._free.pop(), node, now, ready, replaces=replaces)
        self.live.append(pod)
        self.pod_changes.append((now, 1))
        self.schedule(ready, "ready", pod)
        self.starts += 1
        return pod

    def _schedule_interruption(self, node: Node) -> None:
        """Schedule the interruption of a spot node."""
        hourly = self._platform.nodes.spot_interruptions
        if hourly > 0:
            at = node.ready + self._sampler.exponential(3_600.0 / hourly)
            if at < self._horizon:
                self.schedule(at, "interrupted", node)

    def _ready(self, pod: Pod, now: float) -> None:
        pod.phase = "ready"
        pod.listed = True
        self._changed = True
        pod.ready_at = now
        self.pods_state.closed[pod.index] = 0
        self.pods_state.most[pod.index] = 0
        self.ready_changes.append((now, 1))

    def drain(self, pod: Pod, now: float, *, grace: float) -> None:
        """Drain a pod: it ends when it is idle, at the latest after `grace` seconds.

        Until `endpoint_lag` has passed it still gets requests; after `prestop` it refuses them
        (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
        """
        if pod.phase == "starting":
            self._remove(pod, now)
            return
        pod.phase = "draining"
        self.ready_changes.append((now, -1))
        lag, prestop = self._platform.endpoint_lag, self._platform.prestop
        if prestop < lag:
            self.schedule(now + prestop, "close", pod)
        self.schedule(now + lag, "unlisted", pod)
        self.schedule(now + max(lag, grace), "kill", pod)

    def _check_drained(self, pod: Pod, now: float) -> None:
        if self.pods_state.busy[pod.index] + self.pods_state.waiting[pod.index] == 0:
            self._remove(pod, now)
        else:
            self.schedule(now + 0.5, "drained?", pod)

    def _remove(self, pod: Pod, now: float) -> None:
        pod.phase = "gone"
        pod.listed = False
        self._changed = True
        self.live.remove(pod)
        self._free.append(pod.index)
        self._ended.append((pod.started, now))
        self.pod_changes.append((now, -1))
        self.node_pool.release(pod.node)
        self.pods_state.most[pod.index] = 0
        if pod.node.pods == 0:
            self.schedule(now + self._platform.nodes.empty_seconds, "empty?", pod.node)

    def _replace(self, now: float) -> None:
        """Start a pod in place of an old one, if one is left."""
        starting = sum(pod.replaces and pod.phase == "starting" for pod in self.live)
        if len(self._old) > starting:
            self._start_pod(now, replaces=True)

    def _retire_old(self, now: float) -> None:
        self._old = [pod for pod in self._old if pod.phase in ("starting", "ready")]
        if self._old:
            self.drain(self._old.pop(0), now, grace=self._platform.grace)
        self._replace(now)

    def _publish(self) -> None:
        """Update the balancer's list of pods: ready ones, and draining ones still listed."""
        if not self._changed:
            return
        self._changed = False
        listed = [pod.index for pod in self.live if pod.listed]
        self.pods_state.ready[: len(listed)] = listed
        self._requests.tally[kernel.READY] = len(listed)

    def set_requests(self, requests: kernel.Requests) -> None:
        """Replace the arrays of requests, which may have grown."""
        self._requests = requests

    def pod_seconds(self) -> float:
        """Pod-seconds until the horizon."""
        horizon = self._horizon
        alive = sum(max(0.0, horizon - pod.started) for pod in self.live)
        return alive + sum(max(0.0, min(end, horizon) - since) for since, end in self._ended)
