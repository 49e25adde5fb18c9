"""From settings to a gate, and what keeps the gate informed."""

import asyncio
import os

from seawall.admission.gate import AdmissionGate
from seawall.admission.memory import memory_bound, resident_bytes
from seawall.admission.settings import AdmissionSettings

__all__ = ["open_gate", "watch"]

_SAMPLE_SECONDS = 0.1


def open_gate(settings: AdmissionSettings, *, processes: int) -> AdmissionGate:
    """The gate of one of so many processes, 0 for one a processor, that share memory alike."""
    bound = settings.memory_mb << 20
    if not bound:
        bound = memory_bound() // (processes or len(os.sched_getaffinity(0)))
    return AdmissionGate(settings, memory_bound=bound)


async def watch(gate: AdmissionGate) -> None:
    """Measure, ten times a second, how late the event loop is and what memory the process has.

    Until cancelled. Where nobody does it the limit stays where it is.
    """
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + _SAMPLE_SECONDS
        await asyncio.sleep(_SAMPLE_SECONDS)
        now = clock()
        gate.sample(at=now, lag=max(0.0, now - due), memory=resident_bytes())
