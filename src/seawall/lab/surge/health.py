"""Health of the driver itself, so that an overloaded driver is not mistaken for a slow server."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from seawall.lab.statistics import percentiles

__all__ = ["DriverHealth", "HealthWatch", "saturation_reasons"]

_TICK_SECONDS = 0.05
_WINDOW_SECONDS = 5.0
_BUSY = 0.9
_LATE_MS = 50.0
_LATE_SHARE = 0.1


class DriverHealth(Struct, frozen=True, kw_only=True):
    """Figures of the driver's process.

    Attributes:
        cpu_seconds: Processor time used.
        cpu_share: Share of one processor over the whole run.
        busiest: The same in the busiest five seconds.
        starved: Share of the run in which it was ready to run but had no processor
            (docs.kernel.org/scheduler/sched-stats.html).
        late_ms: How late turns were sent; 99th percentile.
        lag_ms: How late its timers fired; 99th percentile.
        saturated: Reasons why the driver may have been the bottleneck; empty if there are none.
    """

    cpu_seconds: float
    cpu_share: float
    busiest: float
    starved: float
    late_ms: float
    lag_ms: float
    saturated: list[str]


class HealthWatch:
    """Samples its own process every 50 ms while `run` runs."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._run_queue_seconds = _run_queue_seconds()
        self._began = time.monotonic()
        self._window: deque[tuple[float, float]] = deque([(self._began, self._cpu)])
        self._busiest = 0.0
        self._lags: list[float] = []

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            due = time.monotonic() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            now, cpu = time.monotonic(), time.process_time()
            self._lags.append(now - due)
            self._window.append((now, cpu))
            since, before = self._window[0]
            if now - since >= _WINDOW_SECONDS:
                self._busiest = max(self._busiest, (cpu - before) / (now - since))
                self._window.popleft()

    def health(
        self, late: list[float], first_text_ms: float | None, limits: Sequence[str] = ()
    ) -> DriverHealth:
        """The figures since the watch was created.

        Args:
            late: How late each turn was sent, in seconds.
            first_text_ms: Median time to first text that was measured.
            limits: Limits of its own that the driver reached.
        """
        seconds = max(1e-6, time.monotonic() - self._began)
        cpu = time.process_time() - self._cpu
        busiest = max(self._busiest, cpu / max(seconds, _WINDOW_SECONDS))
        starved = (_run_queue_seconds() - self._run_queue_seconds) / seconds
        late_ms = percentiles(late).p99 or 0.0
        lag_ms = percentiles(self._lags).p99 or 0.0
        return DriverHealth(
            cpu_seconds=round(cpu, 3),
            cpu_share=round(cpu / seconds, 3),
            busiest=round(busiest, 3),
            starved=round(starved, 3),
            late_ms=late_ms,
            lag_ms=round(lag_ms, 1),
            saturated=[*saturation_reasons(busiest, late_ms, lag_ms, first_text_ms), *limits],
        )


def saturation_reasons(
    busiest: float, late_ms: float, lag_ms: float, first_text_ms: float | None
) -> list[str]:
    """Reasons why a driver with these figures may have been the bottleneck.

    Lateness counts above 50 ms and above a tenth of the measured time.
    """
    reasons = []
    if busiest > _BUSY:
        reasons.append(f"it used {busiest:.0%} of a processor in its busiest five seconds")
    allowed = max(_LATE_MS, _LATE_SHARE * (first_text_ms or 0.0))
    if late_ms > allowed:
        reasons.append(f"turns were sent up to {late_ms:.0f} ms late (p99)")
    if lag_ms > allowed:
        reasons.append(f"its timers fired up to {lag_ms:.0f} ms late (p99)")
    return reasons


def _run_queue_seconds() -> float:
    """Seconds that this thread waited for a processor; 0 if the kernel does not count them."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
