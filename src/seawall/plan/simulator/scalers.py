"""Scalers of a fleet: each evaluates its metrics at scheduled times and sets the number of pods."""

import math
from typing import Protocol

import numpy as np

from seawall.plan.inputs.platforms import (
    HpaSettings,
    KedaSettings,
    Managed,
    RequestScaling,
    ServiceTracking,
)
from seawall.plan.simulator.autoscalers import Hpa, Keda, PodMetrics
from seawall.plan.simulator.fleet import Fleet
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.kernels.pods.loop import advance_all

__all__ = ["CpuMeter", "ManagedScaler", "Scaler", "scaler_of"]


class CpuMeter:
    """Processor use of each pod since the last reading."""

    def __init__(self, fleet: Fleet, params: kernel.PodParams) -> None:
        self._fleet, self._params = fleet, params
        self._before = np.zeros(len(fleet.pods_state.used))
        self._at = 0.0

    def read(self, now: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The share of its processors that each pod used, by index."""
        advance_all(self._fleet.pods_state, self._params, now)
        used = self._fleet.pods_state.used.copy()
        passed = max(now - self._at, 1e-9)
        share = (used - self._before) / passed / self._params.cores
        self._before, self._at = used, now
        return share


class Scaler(Protocol):
    """A scaler; it handles its own events and ignores others."""

    def evaluate(self, now: float, kind: str) -> None:
        """Evaluate at a scheduled event. kind: that of the event."""


class HpaScaler:
    """A horizontal pod autoscaler."""

    def __init__(self, fleet: Fleet, settings: HpaSettings, params: kernel.PodParams) -> None:
        self._fleet, self._settings = fleet, settings
        self._hpa = Hpa(settings)
        self._meter = CpuMeter(fleet, params)
        fleet.schedule(settings.sync, "hpa")

    def evaluate(self, now: float, kind: str) -> None:
        """Evaluate at each sync. Metrics cover the time since the last one.

        Pods of phase Pending are unready for every metric, others without one are missing
        (groupPods of kubernetes/pkg/controller/podautoscaler/replica_calculator.go).
        """
        if kind != "hpa":
            return
        settings, fleet = self._settings, self._fleet
        serving = [pod for pod in fleet.live if pod.phase in ("starting", "ready")]
        usage, measured, unready, missing = 0.0, 0, 0, 0
        by_processor = settings.metric != "in-flight"
        shares = self._meter.read(now) if by_processor else np.empty(0)
        busy = fleet.pods_state.busy + fleet.pods_state.waiting
        for pod in serving:
            if not by_processor:
                if pod.phase == "ready":
                    usage, measured = usage + float(busy[pod.index]), measured + 1
                elif now < pod.node.has_image:
                    unready += 1  # its phase is Pending
                else:
                    missing += 1
            elif pod.phase == "starting" or (
                now - pod.started < settings.cpu_initialization
                and now - pod.ready_at < settings.sync
                and pod.started > 0
            ):
                unready += 1
            else:
                usage, measured = usage + float(shares[pod.index]), measured + 1
        wanted = self._hpa.step(now, fleet.wanted, PodMetrics(usage, measured, unready, missing))
        if wanted != fleet.wanted:
            fleet.scale(wanted, now)
        fleet.schedule(now + settings.sync, "hpa")


class KedaScaler:
    """KEDA on requests in flight, plus those refused since the last poll."""

    def __init__(self, fleet: Fleet, settings: KedaSettings, stats: kernel.PodStats) -> None:
        self._fleet, self._settings, self._stats = fleet, settings, stats
        self._keda = Keda(settings)
        self._refused = 0
        fleet.schedule(settings.polling, "keda")
        fleet.schedule(settings.sync, "keda-hpa")

    def evaluate(self, now: float, kind: str) -> None:
        """Evaluate at each poll, and at each sync of the autoscaler."""
        if kind not in ("keda", "keda-hpa"):
            return
        fleet = self._fleet
        total = float(fleet.pods_state.busy.sum() + fleet.pods_state.waiting.sum())
        if kind == "keda":
            refused = int(self._stats.counts[kernel.THROTTLES])
            total += refused - self._refused
            self._refused = refused
            wanted = self._keda.poll(now, fleet.wanted, total)
            fleet.schedule(now + self._settings.polling, "keda")
        else:
            wanted = self._keda.step(now, fleet.wanted, total)
            fleet.schedule(now + self._settings.sync, "keda-hpa")
        if wanted != fleet.wanted:
            fleet.scale(wanted, now)


class ServiceScaler:
    """Target tracking of the requests of each task in a minute."""

    def __init__(self, fleet: Fleet, settings: ServiceTracking, stats: kernel.PodStats) -> None:
        self._fleet, self._settings, self._stats = fleet, settings, stats
        self._seen = self._above = self._below = 0
        self._quiet_until = 0.0
        fleet.schedule(60.0, "service")

    def evaluate(self, now: float, kind: str) -> None:
        """Evaluate the alarms once a minute."""
        if kind != "service":
            return
        settings, fleet = self._settings, self._fleet
        attempts = int(self._stats.counts[kernel.ATTEMPTS])
        each = (attempts - self._seen) / max(1, fleet.wanted)
        self._seen = attempts
        self._above = self._above + 1 if each > settings.target else 0
        self._below = self._below + 1 if each < 0.9 * settings.target else 0
        fitting = math.ceil(each * fleet.wanted / settings.target)
        fitting = max(settings.minimum, min(settings.maximum, fitting))
        out = self._above >= settings.out_minutes and fitting > fleet.wanted
        back = self._below >= settings.in_minutes and fitting < fleet.wanted
        if (out or back) and now >= self._quiet_until:
            self._quiet_until = now + settings.cooldown
            fleet.scale(fitting, now)
        fleet.schedule(now + 60.0, "service")


class RequestScaler:
    """Cloud Run's scaler."""

    def __init__(self, fleet: Fleet, settings: RequestScaling, params: kernel.PodParams) -> None:
        self._fleet, self._settings, self._params = fleet, settings, params
        self._lately: list[tuple[float, float]] = []
        self._enough_since = 0.0
        fleet.schedule(settings.sync, "requests")

    def evaluate(self, now: float, kind: str) -> None:
        """Evaluate at each sync."""
        if kind != "requests":
            return
        settings, fleet = self._settings, self._fleet
        total = float(fleet.pods_state.busy.sum() + fleet.pods_state.waiting.sum())
        self._lately = [each for each in self._lately if each[0] > now - settings.window]
        self._lately.append((now, total))
        mean = sum(each for _, each in self._lately) / len(self._lately)
        wanted = max(math.ceil(mean / settings.target), math.ceil(total / self._params.room))
        wanted = max(settings.minimum, min(settings.maximum, wanted))
        if wanted >= fleet.wanted:
            self._enough_since = now
        elif now - self._enough_since < settings.idle_seconds:
            wanted = fleet.wanted
        if wanted != fleet.wanted:
            fleet.scale(wanted, now)
        fleet.schedule(now + settings.sync, "requests")


class ManagedScaler:
    """The scaler of managed instances: keeps slots and processors at `target`.

    At most twice as many environments within five minutes: «if your traffic more than doubles
    within 5 minutes, you may see throttles» (docs, lambda-managed-instances-scaling).
    """

    def __init__(self, fleet: Fleet, platform: Managed, params: kernel.PodParams) -> None:
        self._fleet, self._platform, self._params = fleet, platform, params
        self._meter = CpuMeter(fleet, params)
        self._history: list[tuple[float, int]] = [(0.0, fleet.wanted)]
        self._enough_since = 0.0
        fleet.schedule(platform.check_seconds, "managed")

    def evaluate(self, now: float, kind: str) -> None:
        """Evaluate at each check."""
        if kind != "managed":
            return
        fleet, platform = self._fleet, self._platform
        busy = float(fleet.pods_state.busy.sum())
        processors = float(self._meter.read(now).sum())
        need = max(busy / self._params.room, processors) / platform.target
        wanted = max(platform.minimum, min(platform.maximum, math.ceil(need - 1e-9)))
        self._history = [each for each in self._history if each[0] > now - 300.0] or [
            self._history[-1]
        ]
        lately = min(count for _, count in self._history)
        if wanted > fleet.wanted:
            wanted = max(fleet.wanted, min(wanted, 2 * lately))
        if wanted >= fleet.wanted:
            self._enough_since = now
        elif now - self._enough_since < platform.idle_seconds:
            wanted = fleet.wanted
        if wanted != fleet.wanted:
            fleet.scale(wanted, now)
        self._history.append((now, wanted))
        fleet.schedule(now + platform.check_seconds, "managed")


def scaler_of(
    fleet: Fleet,
    settings: HpaSettings | KedaSettings | ServiceTracking | RequestScaling | Managed | None,
    params: kernel.PodParams,
    stats: kernel.PodStats,
) -> Scaler | None:
    """The scaler for the settings; None: the number of pods is fixed."""
    match settings:
        case HpaSettings():
            return HpaScaler(fleet, settings, params)
        case KedaSettings():
            return KedaScaler(fleet, settings, stats)
        case ServiceTracking():
            return ServiceScaler(fleet, settings, stats)
        case RequestScaling():
            return RequestScaler(fleet, settings, params)
        case Managed():
            return ManagedScaler(fleet, settings, params)
        case None:
            return None
