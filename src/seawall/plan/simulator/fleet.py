"""Pods over time: what starts, serves, drains and ends them, between the requests' events."""

import heapq
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from seawall.plan.inputs.distributions import Distribution, encode
from seawall.plan.inputs.platforms import Eks
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.kernels.pods.ending import kill
from seawall.plan.simulator.kernels.randomness import draw
from seawall.plan.simulator.nodes import Machine, NodePool

__all__ = ["Fleet", "Pod", "Sampler"]

Phase = Literal["starting", "ready", "draining", "gone"]
_NOTICE = 120.0


class Pod(Struct):
    """A pod: its place in the arrays, its node, and how far it is."""

    place: int
    machine: Machine
    started: float
    ready_at: float
    phase: Phase = "starting"
    replaces: bool = False
    listed: bool = False


class Sampler:
    """Values of distributions, one after the other, from a seed."""

    def __init__(self, seed: int, distributions: Sequence[Distribution]) -> None:
        self._rows, self._tables = encode(distributions)
        self._random = np.random.default_rng(seed)

    def of(self, row: int) -> float:
        """One value of the distribution in this place."""
        u = min(max(self._random.random(), 1e-12), 1.0 - 1e-12)
        return float(draw(self._rows, self._tables, row, u))

    def skip(self, count: int) -> None:
        """Take so many, and look at none."""
        self._random.random(count)

    def exponential(self, mean: float) -> float:
        """One exponentially distributed time."""
        return float(self._random.exponential(mean))


class Fleet:
    """The pods of a deployment. Something is to be done at `next_time`."""

    def __init__(
        self,
        platform: Eks,
        start: Distribution,
        state: tuple[kernel.Pods, kernel.Requests, kernel.PodStats, kernel.PodParams],
        *,
        seed: int,
        horizon: float,
    ) -> None:
        self.pods_state, self._requests, self._books, self._law = state
        self._platform = platform
        self._horizon = horizon
        nodes = platform.nodes
        self._draws = Sampler(seed, [nodes.launch, nodes.pull, start, platform.warm_up])
        self.node_pool = NodePool(nodes, platform.pods)
        self.live: list[Pod] = []
        self._free = list(range(len(self.pods_state.busy) - 1, -1, -1))
        self._todo: list[tuple[float, int, str, Pod | Machine | None]] = []
        self._serial = 0
        self.wanted = platform.pods
        self.starts = 0
        self.pod_changes: list[tuple[float, int]] = []
        self.ready_changes: list[tuple[float, int]] = []
        self._lives: list[tuple[float, float]] = []
        self._old: list[Pod] = []
        self._unpublished = True
        for machine in self.node_pool.fill(platform.pods):
            pod = Pod(self._free.pop(), machine, 0.0, 0.0)
            self.live.append(pod)
            self.pod_changes.append((0.0, 1))
            self._ready(pod, 0.0)
        self._draws.skip(4 * platform.pods)  # as many as those that start later take
        self._publish()
        for at in platform.deploys:
            self.plan(at, "deploy")
        for machine in list(self.node_pool.machines):
            self._fate(machine)

    @property
    def next_time(self) -> float:
        """When something is to be done, infinite for never."""
        return self._todo[0][0] if self._todo else math.inf

    def plan(self, at: float, what: str, whom: Pod | Machine | None = None) -> None:
        """Have something done at a time."""
        self._serial += 1
        heapq.heappush(self._todo, (at, self._serial, what, whom))

    def act(self) -> tuple[float, str]:
        """Do what is due; the time, and what it was for those who planned something of theirs."""
        now, _, what, whom = heapq.heappop(self._todo)
        if isinstance(whom, Pod):
            self._act_on_pod(now, what, whom)
        elif isinstance(whom, Machine):
            self._act_on_machine(now, what, whom)
        elif what == "deploy":
            self._old = [pod for pod in self.live if pod.phase in ("starting", "ready")]
            for _ in range(max(1, math.ceil(self._platform.surge * len(self._old)))):
                self._replace(now)
        self._publish()
        return now, what

    def _act_on_pod(self, now: float, what: str, pod: Pod) -> None:
        if what == "ready" and pod.phase == "starting":
            self._ready(pod, now)
            if pod.replaces:
                self._retire_old(now)
        elif what == "close" and pod.phase != "gone":
            self.pods_state.closed[pod.place] = 1
        elif what == "unlisted" and pod.phase == "draining":
            pod.listed = False
            self._unpublished = True
            self._check_drained(pod, now)
        elif what in ("drained?", "kill") and pod.phase == "draining":
            if what == "kill":
                kill(self.pods_state, self._requests, self._books, self._law, pod.place, now)
                self._gone(pod, now)
            else:
                self._check_drained(pod, now)

    def _act_on_machine(self, now: float, what: str, machine: Machine) -> None:
        if machine.gone:
            return
        if what == "interrupted":
            machine.taken = True
            for pod in [each for each in self.live if each.machine is machine]:
                if pod.phase in ("starting", "ready"):
                    self.drain(pod, now, grace=_NOTICE - 1.0)
            self.plan(now + _NOTICE, "taken", machine)
            self.scale(self.wanted, now)
        elif what == "taken" or (what == "empty?" and machine.pods == 0):
            self.node_pool.remove(machine, now)

    def scale(self, wanted: int, now: float) -> None:
        """Have so many pods that start or serve: start more, or drain the newest."""
        self.wanted = wanted
        serving = [pod for pod in self.live if pod.phase in ("starting", "ready")]
        for _ in range(wanted - len(serving)):
            self._new(now)
        if len(serving) > wanted:
            order = sorted(serving, key=lambda pod: (pod.phase == "ready", -pod.started))
            for pod in order[: len(serving) - wanted]:
                self.drain(pod, now, grace=self._platform.grace)
        self._publish()

    def _new(self, now: float, *, replaces: bool = False) -> Pod:
        if not self._free:
            raise AssertionError("more pods than places for them")
        before = self.node_pool.launched
        machine = self.node_pool.place(now, self._draws.of(0), self._draws.of(1))
        if self.node_pool.launched > before:
            self._fate(machine)
        ready = max(now, machine.has_image) + self._draws.of(2) + self._draws.of(3)
        pod = Pod(self._free.pop(), machine, now, ready, replaces=replaces)
        self.live.append(pod)
        self.pod_changes.append((now, 1))
        self.plan(ready, "ready", pod)
        self.starts += 1
        return pod

    def _fate(self, machine: Machine) -> None:
        """When the machine will be taken away, if it is one that may be."""
        hourly = self._platform.nodes.spot_interruptions
        if hourly > 0:
            at = machine.ready + self._draws.exponential(3_600.0 / hourly)
            if at < self._horizon:
                self.plan(at, "interrupted", machine)

    def _ready(self, pod: Pod, now: float) -> None:
        pod.phase = "ready"
        pod.listed = True
        self._unpublished = True
        pod.ready_at = now
        self.pods_state.closed[pod.place] = 0
        self.pods_state.most[pod.place] = 0
        self.ready_changes.append((now, 1))

    def drain(self, pod: Pod, now: float, *, grace: float) -> None:
        """No more requests for it; it ends when it is idle, at the latest after the grace.

        Until `endpoint_lag` has passed requests are sent to it still; from `prestop` on it refuses
        them (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
        """
        if pod.phase == "starting":
            self._gone(pod, now)
            return
        pod.phase = "draining"
        self.ready_changes.append((now, -1))
        lag, prestop = self._platform.endpoint_lag, self._platform.prestop
        if prestop < lag:
            self.plan(now + prestop, "close", pod)
        self.plan(now + lag, "unlisted", pod)
        self.plan(now + max(lag, grace), "kill", pod)

    def _check_drained(self, pod: Pod, now: float) -> None:
        if self.pods_state.busy[pod.place] + self.pods_state.waiting[pod.place] == 0:
            self._gone(pod, now)
        else:
            self.plan(now + 0.5, "drained?", pod)

    def _gone(self, pod: Pod, now: float) -> None:
        pod.phase = "gone"
        pod.listed = False
        self._unpublished = True
        self.live.remove(pod)
        self._free.append(pod.place)
        self._lives.append((pod.started, now))
        self.pod_changes.append((now, -1))
        self.node_pool.leave(pod.machine)
        self.pods_state.most[pod.place] = 0
        if pod.machine.pods == 0:
            self.plan(now + self._platform.nodes.empty_seconds, "empty?", pod.machine)

    def _replace(self, now: float) -> None:
        """Start one in place of an old one, if one is left."""
        starting = sum(pod.replaces and pod.phase == "starting" for pod in self.live)
        if len(self._old) > starting:
            self._new(now, replaces=True)

    def _retire_old(self, now: float) -> None:
        self._old = [pod for pod in self._old if pod.phase in ("starting", "ready")]
        if self._old:
            self.drain(self._old.pop(0), now, grace=self._platform.grace)
        self._replace(now)

    def _publish(self) -> None:
        """Say to the balancer who takes requests: ready ones, and those not unlisted yet."""
        if not self._unpublished:
            return
        self._unpublished = False
        listed = [pod.place for pod in self.live if pod.listed]
        self.pods_state.ready[: len(listed)] = listed
        self._requests.tally[kernel.READY] = len(listed)

    def use(self, requests: kernel.Requests) -> None:
        """Where the requests are now: their arrays may have grown."""
        self._requests = requests

    def pod_seconds(self) -> float:
        """Pods, times how long, until the horizon."""
        horizon = self._horizon
        alive = sum(max(0.0, horizon - pod.started) for pod in self.live)
        return alive + sum(max(0.0, min(end, horizon) - since) for since, end in self._lives)

    def drained(self) -> bool:
        """Nothing is left to be done for pods that serve nothing any more."""
        return all(pod.phase in ("ready", "starting") for pod in self.live)
