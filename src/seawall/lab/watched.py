"""A surge, and what servers on this machine use meanwhile."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from seawall.lab.processes import consumption
from seawall.lab.surge.outcome import Progress, SurgeResult
from seawall.lab.surge.process import drive_in_subprocess
from seawall.lab.surge.scenario import Scenario

__all__ = ["ProcessUsage", "UsageSample", "drive_watched"]

_SAMPLE_SECONDS = 0.1


class UsageSample(Struct, array_like=True, frozen=True):
    """At `at` seconds: CPU seconds since the beginning, memory now."""

    at: float
    cpu_seconds: float
    resident_bytes: int


class ProcessUsage(Struct, frozen=True):
    """Of processes with their children, over a surge; the first sample is from before it."""

    samples: list[UsageSample]

    @property
    def cpu_seconds(self) -> float:
        """Used in all."""
        return self.samples[-1].cpu_seconds

    @property
    def peak_bytes(self) -> int:
        """The most memory."""
        return max(each.resident_bytes for each in self.samples)

    @property
    def grown_bytes(self) -> int:
        """How much more that was than before."""
        return self.peak_bytes - self.samples[0].resident_bytes


async def drive_watched(
    scenario: Scenario,
    pids: Sequence[int],
    progress: Callable[[Progress], None] = lambda _: None,
    *,
    every: float = _SAMPLE_SECONDS,
) -> tuple[SurgeResult, ProcessUsage]:
    """Drive a scenario from another process; `pids`: whom to watch, with their children.

    Raises:
        SeawallError: the driver did not come to a result.
    """
    began = time.monotonic()
    before = sum(consumption(pid).cpu_seconds for pid in pids)

    def look() -> UsageSample:
        now = [consumption(pid) for pid in pids]
        return UsageSample(
            round(time.monotonic() - began, 2),
            round(sum(each.cpu_seconds for each in now) - before, 4),
            sum(each.resident_bytes for each in now),
        )

    samples = [look()]

    async def sample() -> None:
        while True:
            await asyncio.sleep(every)
            samples.append(look())

    sampling = asyncio.create_task(sample())
    try:
        result = await drive_in_subprocess(scenario, progress)
    finally:
        sampling.cancel()
        with suppress(asyncio.CancelledError):
            await sampling
    samples.append(look())
    return result, ProcessUsage(samples)
