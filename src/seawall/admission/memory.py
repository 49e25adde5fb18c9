"""Memory that the process uses, and that it may use (cgroup or machine)."""

import os
from pathlib import Path

__all__ = ["memory_bound", "resident_bytes"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = "/proc/self/statm"


def resident_bytes() -> int:
    """Resident memory of this process; 0 without Linux's /proc."""
    try:  # three system calls, and nine by `open`: ten times a second
        descriptor = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(descriptor, 256).split()[1]) * _PAGE_BYTES
    finally:
        os.close(descriptor)


def memory_bound(root: Path = Path("/")) -> int:
    """Bytes that the cgroup of this process allows, or else the machine has; 0 if not known.

    Version 2 has `memory.max`, version 1 `memory.limit_in_bytes`; the limits of parent groups
    count as well (docs.kernel.org/admin-guide/cgroup-v2.html). A container may see its own group
    as the root, whatever path /proc shows.

    Args:
        root: Root of the file system.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        groups = []
    found = [_machine(root)]
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _limits(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min((each for each in found if each), default=0)


def _limits(mount: Path, path: str, name: str) -> list[int]:
    group = mount / path.strip("/")
    folders = [each for each in (group, *group.parents) if each.is_relative_to(mount)]
    limits = []
    for folder in folders:
        try:
            text = (folder / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # not "max"
            limits.append(int(text))
    return limits


def _machine(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(each.split()[1]) << 10 for each in lines if each.startswith("MemTotal:")), 0)
