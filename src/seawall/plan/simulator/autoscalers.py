"""Autoscalers of Kubernetes: the arithmetic of the HPA and of KEDA, without clock or cluster.

Sources: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/, the API
autoscaling/v2, and kubernetes/pkg/controller/podautoscaler at v1.33, whose test tables ours repeat;
https://keda.sh/docs/latest/reference/scaledobject-spec/ (polling every 30 s, cool-down of 300 s),
https://keda.sh/docs/latest/concepts/scaling-deployments/.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from seawall.plan.inputs.platforms import HpaSettings, KedaSettings, Rules

__all__ = ["Events", "Hpa", "Keda", "PodMetrics", "desired_replicas", "limited", "stabilised"]

Events = Sequence[tuple[float, int]]


class PodMetrics(Struct, frozen=True):
    """The metrics of the pods. Pods that failed or are being deleted are not counted.

    Attributes:
        usage: Sum over the measured pods: for `cpu` in shares of a pod's request, else in units of
            the metric.
        measured: Pods with metrics.
        unready: Pods whose usage does not count yet.
        missing: Pods without metrics.
    """

    usage: float
    measured: int
    unready: int = 0
    missing: int = 0


def _ratio(usage: float, pods: int, target: float, *, percent: bool) -> float:
    """The ratio of usage to target; percentages are whole numbers, as in Kubernetes."""
    if percent:
        return math.floor(100.0 * usage / pods + 1e-6) / target
    return usage / pods / target


def desired_replicas(
    current: int, seen: PodMetrics, target: float, *, percent: bool, tolerance: float = 0.1
) -> int:
    """The recommended number of pods: ceil(pods * usage / target).

    No change within the tolerance. When scaling up, missing and unready pods count as unused; when
    scaling down, missing ones as fully used, or at the target. If that reverses the direction, no
    change.

    Args:
        current: Pods.
        seen: Their metrics.
        target: Of the metric, for each pod.
        percent: Whether usage is a share of the request, and the target in per cent.
        tolerance: Of the ratio of usage to target.
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
    """Stabilise a recommendation: the current number, limited by earlier recommendations.

    Args:
        current: Pods.
        desired: The new recommendation.
        earlier: Times and recommendations.
        now: Seconds.
        windows: For scaling up and down, in seconds: up to the least recommended within the one,
            down to the most recommended within the other.
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
    """Limit a change of the number of pods by policies and bounds.

    Args:
        current: Pods.
        desired: Pods.
        bounds: Minimum and maximum.
        rules: For scaling up and down.
        events: Earlier changes up and down: times and numbers of pods.
        now: Seconds.
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
    """One horizontal pod autoscaler, with its earlier recommendations and changes."""

    def __init__(self, settings: HpaSettings) -> None:
        self._settings = settings
        self._earlier: list[tuple[float, int]] = []
        self._ups: list[tuple[float, int]] = []
        self._downs: list[tuple[float, int]] = []

    def step(self, now: float, current: int, seen: PodMetrics) -> int:
        """The number of pods after an evaluation at `now` seconds."""
        settings = self._settings
        if current == 0 and settings.minimum > 0:
            return 0  # autoscaling is disabled
        desired = desired_replicas(
            current,
            seen,
            settings.target,
            percent=settings.metric == "cpu",
            tolerance=settings.tolerance,
        )
        return self.apply_limits(now, current, desired)

    def apply_limits(self, now: float, current: int, desired: int) -> int:
        """The number of pods after stabilisation, policies and bounds."""
        settings = self._settings
        if current > settings.maximum or current < settings.minimum:
            return self._record(now, current, max(settings.minimum, min(current, settings.maximum)))
        up, down = settings.up, settings.down
        wanted = stabilised(current, desired, self._earlier, now, (up.window, down.window))
        longest = max(up.window, down.window)
        self._earlier = [each for each in self._earlier if each[0] > now - longest]
        self._earlier.append((now, desired))
        bounds = (settings.minimum, settings.maximum)
        wanted = max(bounds[0], min(wanted, bounds[1]))
        new = limited(current, wanted, bounds, (up, down), (self._ups, self._downs), now=now)
        return self._record(now, current, new)

    def _record(self, now: float, current: int, new: int) -> int:
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


class Keda:
    """One KEDA scaled object: scales from and to none, the rest by an autoscaler.

    Source: RequestScale of kedacore/keda, pkg/scaling/executor.
    """

    def __init__(self, settings: KedaSettings) -> None:
        self._settings = settings
        self._active_at = -math.inf  # never
        self._hpa = Hpa(
            HpaSettings(
                minimum=max(1, settings.minimum),
                maximum=settings.maximum,
                metric="in-flight",
                target=settings.target,
                up=settings.up,
                down=settings.down,
            )
        )

    def poll(self, now: float, current: int, total: float) -> int:
        """The number of pods after a poll.

        With requests, from none to the minimum, at least one. Without, the last end after the
        cool-down, or at once if there never were any.
        """
        minimum = self._settings.minimum
        if total > 0:
            self._active_at = now
            return current or max(1, minimum)
        if current < minimum:
            return minimum
        if minimum == 0 and current > 0 and now - self._active_at >= self._settings.cooldown:
            return 0
        return current

    def step(self, now: float, current: int, total: float) -> int:
        """Evaluate the autoscaler on the total of all pods (an AverageValue).

        The number is ceil(total / target), unless that is within the tolerance of 0.1.
        """
        if current == 0:
            return 0
        ratio = total / (self._settings.target * current)
        desired = math.ceil(total / self._settings.target) if abs(1.0 - ratio) > 0.1 else current
        return self._hpa.apply_limits(now, current, max(1, desired))
