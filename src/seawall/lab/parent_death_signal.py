"""Children that do not outlive whoever started them, not even where that one is killed."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = [
    "MARK",
    "SERVER_NICENESS",
    "kill_processes_with_mark",
    "parent_death_signal",
    "processes_with_mark",
]

# In the environment of everything that a fleet starts, directly or not. Without "__" it is no
# setting; the local Lambda hands on what begins with SEAWALL_.
MARK = "SEAWALL_LAB"

# How far what serves steps back (nice(2)) behind driver, model, store, balancer and the local
# Lambda: in earnest those have machines of their own, and do not wait for a hundred starts.
SERVER_NICENESS = 10

_PR_SET_PDEATHSIG = 1


def parent_death_signal(
    number: signal.Signals, groups: Sequence[Path] = (), *, behind: int = 0
) -> Callable[[], None]:
    """To be called in the child before it becomes what it is to be (`preexec_fn`).

    number: the signal that the kernel sends it when its parent ends, however that ends
    (https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html); only on Linux. groups:
    folders of control groups that it joins. behind: how far it steps back for others; see BEHIND.
    """
    control = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def before() -> None:
        if control is not None:
            control(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # it ended before this was said
                os.kill(os.getpid(), signal.SIGKILL)
        if behind:
            os.nice(behind)
        for folder in groups:
            (folder / "cgroup.procs").write_text("0")

    return before


def processes_with_mark(mark: str) -> list[int]:
    """All processes of ours with this mark in their environment, without this one."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):  # gone, or somebody else's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def kill_processes_with_mark(mark: str) -> int:
    """End them at once, also those that are frozen; how many there were."""
    ended = 0
    while pids := processes_with_mark(mark):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended += 1
        _reap(pids)
    return ended


def _reap(pids: list[int]) -> None:
    """Wait until they have no environment any more: a zombie has none."""
    for pid in pids:
        with suppress(OSError):
            while (Path(f"/proc/{pid}/environ")).read_bytes():
                os.sched_yield()
