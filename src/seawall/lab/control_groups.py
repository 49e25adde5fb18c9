"""Limits processors by control groups of the kernel, where that is permitted."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from seawall.errors import SeawallError

__all__ = ["ControlGroups", "ControlGroupsUnavailable"]

_PERIOD = 100_000  # microseconds, the kernel's default


class ControlGroupsUnavailable(SeawallError):
    """Processors cannot be limited here; the message is the reason."""


class ControlGroups:
    """Control groups, each with a limit of processors.

    Both versions of the interface: docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and
    docs.kernel.org/scheduler/sched-bwc.html (cpu.cfs_quota_us). In version 1 groups are created
    below our own. In version 2 a group with processes delegates no controller ("no internal process
    constraint"), so groups are created below the nearest ancestor that delegates cpu; moving a
    process there requires write access to that ancestor ("delegation containment").
    """

    def __init__(
        self, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
    ) -> None:
        """Find where groups can be created.

        Args:
            root: Mount point of control groups.
            own: File that names the groups of this process.

        Raises:
            ControlGroupsUnavailable: There is no group in which processors can be limited.
        """
        self._made: list[Path] = []
        self._first, self._base = _base(root, own)

    def make(self, name: str, processors: float) -> Path:
        """Create a group with a limit of processors; see `parent_death_signal` for joining it.

        Raises:
            ControlGroupsUnavailable: That is not permitted.
        """
        folder = self._base / name
        quota = max(1_000, int(processors * _PERIOD))
        try:
            folder.mkdir()
            self._made.append(folder)
            if self._first:
                (folder / "cpu.cfs_period_us").write_text(str(_PERIOD))
                (folder / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (folder / "cpu.max").write_text(f"{quota} {_PERIOD}")
                os.close(
                    os.open(self._base / "cgroup.procs", os.O_WRONLY)
                )  # may processes be moved?
        except OSError as error:
            if folder in self._made:
                self.remove(folder)
            raise ControlGroupsUnavailable(
                f"processors cannot be limited: {folder}: {error.strerror}; "
                "be root, or delegate a control group with the controller cpu"
            ) from error
        return folder

    def remove(self, folder: Path) -> None:
        """Remove a group whose processes have ended."""
        with suppress(OSError):
            folder.rmdir()
        with suppress(ValueError):
            self._made.remove(folder)

    def close(self, wait: Callable[[], None] = lambda: None) -> None:
        """Remove all groups."""
        for folder in list(self._made):
            wait()
            self.remove(folder)


def _base(root: Path, own: Path) -> tuple[bool, Path]:
    """Whether it is version 1, and the folder in which groups can be created."""
    try:
        lines = own.read_text().splitlines()
    except OSError as error:
        raise ControlGroupsUnavailable(
            f"processors cannot be limited: {own}: {error.strerror}"
        ) from error
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            mounted = next(
                (
                    root / name
                    for name in ("cpu", "cpu,cpuacct", "cpuacct,cpu")
                    if (root / name).is_dir()
                ),
                None,
            )
            if mounted is not None:
                return True, _existing(mounted, path)
    for line in lines:
        if line.startswith("0::") and (root / "cgroup.controllers").exists():
            return False, _delegating(root, _existing(root, line[3:]))
    raise ControlGroupsUnavailable(
        "processors cannot be limited: there is no control group with cpu"
    )


def _delegating(root: Path, folder: Path) -> Path:
    """The nearest group from a folder upwards that delegates the controller cpu."""
    for each in (folder, *folder.parents):
        with suppress(OSError):
            if "cpu" in (each / "cgroup.subtree_control").read_text().split():
                return each
        if each == root:
            break
    raise ControlGroupsUnavailable(
        f"processors cannot be limited: no control group from {folder} upwards delegates cpu"
    )


def _existing(root: Path, path: str) -> Path:
    """The group; the root if the path is of another namespace."""
    folder = root / path.lstrip("/")
    return folder if folder.is_dir() else root
