"""Sizes of pods: requests in service at once, and memory."""

import math

from seawall.plan.inputs.service import Service

__all__ = ["pod_memory", "slots_per_pod"]

_MAX_SLOTS = 1_000
_SLACK = 1.25  # of memory, over the known need
_GB_A_CORE = 4.0  # of general-purpose machines


def slots_per_pod(service: Service, cores: float) -> int:
    """Requests in service in one pod at most: by four fifths of its processor, and by memory.

    Memory is limited to four gigabytes a core, or as much as the process itself needs.
    """
    cpu = sum(stage.cpu_ms for stage in service.stages) / 1e3
    by_cpu = 0.8 * cores * service.mean_seconds / cpu if cpu else _MAX_SLOTS
    own = _SLACK * service.memory_mb
    memory = max(_GB_A_CORE * 1_024.0 * cores - own, own)
    each = _SLACK * 2 * service.memory_kb_in_flight / 1_024.0  # half of them wait
    by_memory = memory / each if each else _MAX_SLOTS
    return int(min(_MAX_SLOTS, max(8, min(by_cpu, by_memory))))


def pod_memory(service: Service, slots: int) -> int:
    """Memory of a pod in MB: the need of all slots plus a quarter, rounded up."""
    needed = _SLACK * (service.memory_mb + 2 * slots * service.memory_kb_in_flight / 1_024.0)
    return max(256, math.ceil(needed / 128.0) * 128)
