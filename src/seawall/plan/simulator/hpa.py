"""Kubernetes' horizontal pod autoscaler: its arithmetic, without clock or cluster.

Sources: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/, the API
autoscaling/v2, and kubernetes/pkg/controller/podautoscaler at v1.33, whose test tables ours repeat.
"""

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

__all__ = [
    "DEFAULT_DOWN",
    "DEFAULT_UP",
    "Events",
    "Hpa",
    "HpaSettings",
    "PodMetrics",
    "Policy",
    "Rules",
    "desired_replicas",
    "limited",
    "stabilised",
]


Events = Sequence[tuple[float, int]]


class Policy(Struct, frozen=True):
    """At most `value` pods, or per cent, in any `period` seconds."""

    kind: Literal["pods", "percent"]
    value: float
    period: float


class Rules(Struct, frozen=True):
    """For one direction: what of the policies counts; window: seconds of stabilisation."""

    policies: tuple[Policy, ...]
    window: float = 0.0
    select: Literal["max", "min", "disabled"] = "max"


DEFAULT_UP = Rules((Policy("pods", 4, 15), Policy("percent", 100, 15)))
DEFAULT_DOWN = Rules((Policy("percent", 100, 15),), window=300.0)


class HpaSettings(Struct, frozen=True, kw_only=True):
    """A horizontal pod autoscaler. Defaults are Kubernetes'.

    metric: "cpu": target is per cent of what a pod requests; "in-flight": requests in a pod.
    tolerance: no change while the ratio is so near to 1. sync: seconds between looks.
    cpu_initialization: seconds after its start in which a pod's usage may not count yet.
    """

    minimum: int = 2
    maximum: int = 100
    metric: Literal["cpu", "in-flight"] = "cpu"
    target: float = 70.0
    tolerance: float = 0.1
    sync: float = 15.0
    cpu_initialization: float = 300.0
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN


class PodMetrics(Struct, frozen=True):
    """What the metrics say of the pods.

    usage: summed over the `measured` ones, in requests of a pod for "cpu" (1.0: all that it
    requested), else in units of the metric. unready: whose usage does not count yet. missing: that
    have no metrics. Pods that failed or are being deleted are in none of them.
    """

    usage: float
    measured: int
    unready: int = 0
    missing: int = 0


def _ratio(usage: float, pods: int, target: float, *, percent: bool) -> float:
    """Usage to target; of a percentage, whole per cents, as Kubernetes has them."""
    if percent:
        return math.floor(100.0 * usage / pods + 1e-6) / target
    return usage / pods / target


def desired_replicas(
    current: int, seen: PodMetrics, target: float, *, percent: bool, tolerance: float = 0.1
) -> int:
    """ceil(pods * usage / target), with care for what is not known.

    No change within the tolerance. Scaling up, missing and unready pods count as using nothing;
    scaling down, missing ones as using all they requested, or the target. If that turns the
    direction, no change. percent: usage is a share of what was requested, target in per cent.
    """
    if seen.measured == 0:
        return current
    ratio = _ratio(seen.usage, seen.measured, target, percent=percent)
    rebalance = seen.unready > 0 and ratio > 1.0
    if not rebalance and seen.missing == 0:
        if abs(1.0 - ratio) <= tolerance + 1e-9:
            return current
        return math.ceil(ratio * seen.measured - 1e-9)
    usage, pods = seen.usage, seen.measured
    if ratio < 1.0:
        usage += seen.missing * (1.0 if percent else target)
    if ratio != 1.0:
        pods += seen.missing
    if rebalance:
        pods += seen.unready
    new = _ratio(usage, pods, target, percent=percent)
    if abs(1.0 - new) <= tolerance + 1e-9 or (ratio < 1.0 < new) or (new < 1.0 < ratio):
        return current
    replicas = math.ceil(new * pods - 1e-9)
    if (new < 1.0 and replicas > current) or (new > 1.0 and replicas < current):
        return current
    return replicas


def stabilised(
    current: int,
    desired: int,
    earlier: Sequence[tuple[float, int]],
    now: float,
    windows: tuple[float, float],
) -> int:
    """The current number brought within what was recommended lately.

    earlier: (time, recommendation). windows: up and down, in seconds. Up to the least recommended
    within the one, down to the most recommended within the other.
    """
    low = min([desired, *(each for time, each in earlier if time > now - windows[0])])
    high = max([desired, *(each for time, each in earlier if time > now - windows[1])])
    return min(max(current, low), high)


def _changed(events: Events, now: float, period: float) -> int:
    return sum(change for time, change in events if time > now - period)


def limited(
    current: int,
    desired: int,
    bounds: tuple[int, int],
    rules: tuple[Rules, Rules],
    events: tuple[Events, Events],
    *,
    now: float,
) -> int:
    """No faster than the policies allow, and within the bounds, minimum and maximum.

    rules: up, down. events: earlier changes up and down, (time, by how many pods).
    """
    up, down = rules
    ups, downs = events
    minimum, maximum = bounds
    if desired > current:
        most = current
        if up.select != "disabled":
            limits = []
            for policy in up.policies:
                added = _changed(ups, now, policy.period)
                start = current - added + _changed(downs, now, policy.period)
                grown = start * (1.0 + policy.value / 100.0) - 1e-9
                limits.append(
                    start + int(policy.value) if policy.kind == "pods" else math.ceil(grown)
                )
            most = max(current, (min if up.select == "min" else max)(limits))
        return min(desired, most, maximum)
    if desired < current:
        least = current
        if down.select != "disabled":
            limits = []
            for policy in down.policies:
                start = current + _changed(downs, now, policy.period)
                start -= _changed(ups, now, policy.period)
                shrunk = start * (1.0 - policy.value / 100.0) + 1e-9
                limits.append(
                    start - int(policy.value) if policy.kind == "pods" else math.floor(shrunk)
                )
            # "min" is the least change: the greatest number of pods
            least = min(current, (max if down.select == "min" else min)(limits))
        return max(desired, least, minimum)
    return desired


class Hpa:
    """One autoscaler and what it remembers: recommendations and changes."""

    def __init__(self, settings: HpaSettings) -> None:
        self._settings = settings
        self._earlier: list[tuple[float, int]] = []
        self._ups: list[tuple[float, int]] = []
        self._downs: list[tuple[float, int]] = []

    def step(self, now: float, current: int, seen: PodMetrics) -> int:
        """How many pods there should be now."""
        settings = self._settings
        if current == 0 and settings.minimum > 0:
            return 0  # somebody switched it off
        desired = desired_replicas(
            current,
            seen,
            settings.target,
            percent=settings.metric == "cpu",
            tolerance=settings.tolerance,
        )
        return self.settle(now, current, desired)

    def settle(self, now: float, current: int, desired: int) -> int:
        """From what is recommended to what is done."""
        settings = self._settings
        if current > settings.maximum or current < settings.minimum:
            return self._done(now, current, max(settings.minimum, min(current, settings.maximum)))
        up, down = settings.up, settings.down
        wanted = stabilised(current, desired, self._earlier, now, (up.window, down.window))
        longest = max(up.window, down.window)
        self._earlier = [each for each in self._earlier if each[0] > now - longest]
        self._earlier.append((now, desired))
        bounds = (settings.minimum, settings.maximum)
        wanted = max(bounds[0], min(wanted, bounds[1]))
        new = limited(current, wanted, bounds, (up, down), (self._ups, self._downs), now=now)
        return self._done(now, current, new)

    def _done(self, now: float, current: int, new: int) -> int:
        periods = [
            policy.period
            for rules in (self._settings.up, self._settings.down)
            for policy in rules.policies
        ]
        since = now - max(periods, default=0.0)
        self._ups = [each for each in self._ups if each[0] > since]
        self._downs = [each for each in self._downs if each[0] > since]
        if new > current:
            self._ups.append((now, new - current))
        elif new < current:
            self._downs.append((now, current - new))
        return new
