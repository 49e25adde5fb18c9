"""Who decides how many pods there are: they look at the fleet, and plan when to look again."""

import math
from typing import Protocol

import numpy as np

from seawall.plan.inputs.platforms import Managed
from seawall.plan.simulator.fleet import Fleet
from seawall.plan.simulator.hpa import Hpa, HpaSettings, PodMetrics
from seawall.plan.simulator.keda import Keda, KedaSettings
from seawall.plan.simulator.kernels.pods import arrays as kernel
from seawall.plan.simulator.kernels.pods.ending import settle

__all__ = ["CpuMeter", "ManagedScaler", "Scaler", "scaler_of"]


class CpuMeter:
    """What each pod used of its processors since it was last read."""

    def __init__(self, fleet: Fleet, params: kernel.PodParams) -> None:
        self._fleet, self._law = fleet, params
        self._before = np.zeros(len(fleet.pods_state.used))
        self._at = 0.0

    def read(self, now: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """By place: the share of its processors that was used."""
        settle(self._fleet.pods_state, self._law, now)
        used = self._fleet.pods_state.used.copy()
        passed = max(now - self._at, 1e-9)
        share = (used - self._before) / passed / self._law.cores
        self._before, self._at = used, now
        return share


class Scaler(Protocol):
    """Looks at its own occasions, and at no others."""

    def evaluate(self, now: float, what: str) -> None:
        """At one of the occasions that it has planned."""


class HpaScaler:
    """A horizontal pod autoscaler."""

    def __init__(self, fleet: Fleet, settings: HpaSettings, params: kernel.PodParams) -> None:
        self._fleet, self._settings = fleet, settings
        self._hpa = Hpa(settings)
        self._meter = CpuMeter(fleet, params)
        fleet.plan(settings.sync, "hpa")

    def evaluate(self, now: float, what: str) -> None:
        """At each sync. Metrics cover the time since the last one."""
        if what != "hpa":
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
                    usage, measured = usage + float(busy[pod.place]), measured + 1
                else:
                    missing += 1
            elif pod.phase == "starting" or (
                now - pod.started < settings.cpu_initialization
                and now - pod.ready_at < settings.sync
                and pod.started > 0
            ):
                unready += 1
            else:
                usage, measured = usage + float(shares[pod.place]), measured + 1
        wanted = self._hpa.step(now, fleet.wanted, PodMetrics(usage, measured, unready, missing))
        if wanted != fleet.wanted:
            fleet.scale(wanted, now)
        fleet.plan(now + settings.sync, "hpa")


class KedaScaler:
    """KEDA on requests in flight, those that were turned away since the last look included."""

    def __init__(self, fleet: Fleet, settings: KedaSettings, stats: kernel.PodStats) -> None:
        self._fleet, self._settings, self._books = fleet, settings, stats
        self._keda = Keda(settings)
        self._refused = 0
        fleet.plan(settings.polling, "keda")
        fleet.plan(settings.sync, "keda-hpa")

    def evaluate(self, now: float, what: str) -> None:
        """At each polling, and each sync of its autoscaler."""
        if what not in ("keda", "keda-hpa"):
            return
        fleet = self._fleet
        total = float(fleet.pods_state.busy.sum() + fleet.pods_state.waiting.sum())
        if what == "keda":
            refused = int(self._books.counts[kernel.THROTTLES])
            total += refused - self._refused
            self._refused = refused
            wanted = self._keda.poll(now, fleet.wanted, total)
            fleet.plan(now + self._settings.polling, "keda")
        else:
            wanted = self._keda.step(now, fleet.wanted, total)
            fleet.plan(now + self._settings.sync, "keda-hpa")
        if wanted != fleet.wanted:
            fleet.scale(wanted, now)


class ManagedScaler:
    """What keeps `target` of the places and processors of managed instances free.

    At most twice as many within five minutes: «if your traffic more than doubles within 5 minutes,
    you may see throttles» (docs, lambda-managed-instances-scaling).
    """

    def __init__(self, fleet: Fleet, platform: Managed, params: kernel.PodParams) -> None:
        self._fleet, self._platform, self._law = fleet, platform, params
        self._meter = CpuMeter(fleet, params)
        self._history: list[tuple[float, int]] = [(0.0, fleet.wanted)]
        self._enough_since = 0.0
        fleet.plan(platform.check_seconds, "managed")

    def evaluate(self, now: float, what: str) -> None:
        """At each check."""
        if what != "managed":
            return
        fleet, platform = self._fleet, self._platform
        busy = float(fleet.pods_state.busy.sum())
        processors = float(self._meter.read(now).sum())
        need = max(busy / self._law.room, processors) / platform.target
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
        fleet.plan(now + platform.check_seconds, "managed")


def scaler_of(
    fleet: Fleet,
    settings: HpaSettings | KedaSettings | Managed | None,
    params: kernel.PodParams,
    stats: kernel.PodStats,
) -> Scaler | None:
    """The scaler that the settings describe; None: the number of pods does not change."""
    match settings:
        case HpaSettings():
            return HpaScaler(fleet, settings, params)
        case KedaSettings():
            return KedaScaler(fleet, settings, stats)
        case Managed():
            return ManagedScaler(fleet, settings, params)
        case None:
            return None
