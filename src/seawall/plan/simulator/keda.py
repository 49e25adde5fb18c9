"""KEDA: from none to one pod and back by itself, the rest through an autoscaler.

Source: https://keda.sh/docs/latest/reference/scaledobject-spec/ (polling every 30 s, cool-down of
300 s) and https://keda.sh/docs/latest/concepts/scaling-deployments/.
"""

import math

from msgspec import Struct

from seawall.plan.simulator.hpa import DEFAULT_DOWN, DEFAULT_UP, Hpa, HpaSettings, Rules

__all__ = ["Keda", "KedaSettings"]


class KedaSettings(Struct, frozen=True, kw_only=True):
    """A ScaledObject on the number of requests in flight.

    target: requests in flight for each pod. polling, cooldown: seconds. up, down: of its HPA.
    """

    minimum: int = 0
    maximum: int = 100
    target: float = 100.0
    polling: float = 30.0
    cooldown: float = 300.0
    sync: float = 15.0
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN


class Keda:
    """One scaled object and what it remembers."""

    def __init__(self, settings: KedaSettings) -> None:
        self._settings = settings
        self._active_at = 0.0
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
        """At each polling: wakes the first pod, or ends the last after the cool-down."""
        if total > 0:
            self._active_at = now
            return max(1, current)
        if (
            self._settings.minimum == 0
            and current > 0
            and now - self._active_at >= self._settings.cooldown
        ):
            return 0
        return current

    def step(self, now: float, current: int, total: float) -> int:
        """At each sync of its autoscaler, which sees a total for all: an AverageValue.

        ceil(total / target), unless that is within the tolerance of 0.1.
        """
        if current == 0:
            return 0
        ratio = total / (self._settings.target * current)
        desired = math.ceil(total / self._settings.target) if abs(1.0 - ratio) > 0.1 else current
        return self._hpa.settle(now, current, max(1, desired))
