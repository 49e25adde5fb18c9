"""The current machine: name, processors, available memory, processor time."""

import os
import platform
from pathlib import Path

from msgspec import Struct

__all__ = ["Machine", "busy_seconds", "this_machine"]


class Machine(Struct, frozen=True, kw_only=True):
    """A machine. processors: that may be used. memory_bytes: available, by the tightest limit."""

    name: str
    processors: int
    memory_bytes: int


def this_machine() -> Machine:
    """The current machine, from /proc."""
    processors = len(os.sched_getaffinity(0))
    model = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    name = f"{model}, {processors} processors, {system}, Python {platform.python_version()}"
    return Machine(name=name, processors=processors, memory_bytes=_available())


def busy_seconds() -> float:
    """Processor time used by all processes since the machine started.

    From /proc/stat, without idle, iowait and steal (docs.kernel.org/filesystems/proc.html).
    """
    try:
        fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    user, nice, system, _, _, interrupts, soft, _ = fields
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def _available() -> int:
    """Memory available without swapping, within the limit of the control group."""
    found = [int((_field("/proc/meminfo", "MemAvailable") or "0 kB").split()[0]) * 1_024]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            allowed = int((root / limit).read_text())
            found.append(max(0, allowed - int((root / used).read_text())))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found)


def _field(path: str, name: str) -> str:
    try:
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""
