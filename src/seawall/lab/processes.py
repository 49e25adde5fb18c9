"""Processes of the lab: event loop, file limit, child processes and their resources."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from seawall.errors import SeawallError

__all__ = [
    "ESTABLISHED",
    "MARK",
    "SERVER_NICENESS",
    "Consumption",
    "Service",
    "consumption",
    "descendants",
    "kill_processes_with_mark",
    "listening_process",
    "open_files",
    "parent_death_signal",
    "processes_with_mark",
    "raise_file_limit",
    "run",
    "run_service",
    "tcp_sockets",
]

T = TypeVar("T")

_MANY_FILES = 1 << 20
_MACOS_FILES = 10_240  # OPEN_MAX of macOS


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, on uvloop if installed, without garbage collection and its pauses."""
    gc.disable()
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def raise_file_limit() -> int:
    """Raise the limit of open files to the permitted maximum; return it (2**20 for unlimited)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MANY_FILES
    # Without a hard limit the kernel still has one of its own and refuses more.
    for wanted in [hard] if hard != resource.RLIM_INFINITY else [_MANY_FILES, _MACOS_FILES]:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        except (OSError, ValueError):
            continue
        return max(soft, wanted)
    return soft


# States of linux/include/net/tcp_states.h.
ESTABLISHED = "01"
_LISTENING = "0A"

_STOP_SECONDS = 15.0
_TAIL_BYTES = 4_096  # of the log, shown if the process did not start
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Service(Struct, frozen=True):
    """A child process that serves at a URL."""

    url: str
    pid: int


class _Announcement(Struct):
    url: str


@asynccontextmanager
async def run_service(
    *arguments: str,
    module: str = "seawall",
    environment: Mapping[str, str] | None = None,
    seconds: float = 30.0,
    before: Callable[[], None] | None = None,
    log: Path | None = None,
) -> AsyncGenerator[Service, None]:
    """Run `python -m MODULE ARGUMENTS` until the block ends; it must announce its URL as JSON.

    Args:
        arguments: Of the command.
        module: What is run.
        environment: Added to the current environment.
        seconds: Until it must have announced its URL.
        before: Called in the child before exec; see `parent_death_signal`.
        log: File for its standard error; None for the current one.

    Raises:
        SeawallError: It ended or announced nothing in time; with the end of the log.
    """
    with log.open("ab") if log is not None else nullcontext() as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            preexec_fn=before,
        )
    try:
        try:
            announced = await _announced(process, arguments[0] if arguments else module, seconds)
        except SeawallError as error:
            tail = _tail(log) if log is not None else ""
            raise SeawallError(f"{error}: {tail}" if tail else str(error)) from error
        yield Service(announced.url, process.pid)
    finally:
        await _end(process)


def _tail(log: Path) -> str:
    """The end of a log."""
    with log.open("rb") as lines:
        lines.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return lines.read(_TAIL_BYTES).decode("utf-8", "replace").strip()


async def _announced(process: Process, name: str, seconds: float) -> _Announcement:
    if process.stdout is None:
        raise SeawallError(f"{name} has no standard output")
    try:
        async with asyncio.timeout(seconds):
            line = await process.stdout.readline()
    except TimeoutError as error:
        raise SeawallError(f"{name} did not start within {seconds:g} s") from error
    if not line:
        raise SeawallError(f"{name} ended with status {await process.wait()}")
    return msgspec.json.decode(line, type=_Announcement)


async def _end(process: Process) -> None:
    """Send SIGTERM, wait, then kill."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
    await process.wait()


class Consumption(Struct, frozen=True):
    """Resources used by a process.

    Attributes:
        cpu_seconds: Of its live threads, since they started.
        resident_bytes: Current memory.
    """

    cpu_seconds: float
    resident_bytes: int


def consumption(pid: int, *, children: bool = True) -> Consumption:
    """Resources used by a process, from /proc; zero if it has ended.

    Processor time is the scheduler's, in nanoseconds (docs.kernel.org/scheduler/sched-stats.html),
    because the usual one counts ticks of 10 ms.

    Args:
        pid: Of the process.
        children: Whether to add all its descendants.
    """
    nanoseconds, resident = 0, 0
    for each in (pid, *(descendants(pid) if children else ())):
        folder = Path(f"/proc/{each}")
        try:
            resident += int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
            for thread in (folder / "task").iterdir():
                nanoseconds += int((thread / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return Consumption(nanoseconds / 1e9, resident)


def descendants(pid: int) -> list[int]:
    """Process ids of all descendants."""
    found: list[int] = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return found
    for child in children:
        found += [int(child), *descendants(int(child))]
    return found


def listening_process(port: int) -> int:
    """The process that listens on a TCP port of this machine; 0 if none is visible."""
    wanted = {name for name, local, _ in tcp_sockets(_LISTENING) if local == port}
    for folder in Path("/proc").glob("[0-9]*"):
        if wanted & open_files(int(folder.name)):
            return int(folder.name)
    return 0


def tcp_sockets(state: str) -> Iterator[tuple[str, int, int]]:
    """TCP sockets of this machine in a state: name among open files, local port, remote port.

    Source: docs.kernel.org/networking/proc_net_tcp.html.
    """
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == state:
                local, remote = (int(each.rpartition(":")[2], 16) for each in fields[1:3])
                yield f"socket:[{fields[9]}]", local, remote


def open_files(pid: int) -> set[str]:
    """Names of the open files of a process; empty if it has ended or may not be inspected."""
    found = set()
    try:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(each.readlink()))
    except OSError:
        pass
    return found


# In the environment of every process of a fleet. Not a setting, as it has no "__"; the local Lambda
# passes on variables that begin with SEAWALL_.
MARK = "SEAWALL_LAB"

# nice(2) of servers, behind driver, model, store, balancer and the local Lambda, which in
# production have machines of their own and do not compete with a hundred starts.
SERVER_NICENESS = 10

_PR_SET_PDEATHSIG = 1


def parent_death_signal(
    number: signal.Signals,
    groups: Sequence[Path] = (),
    *,
    niceness: int = 0,
    own_group: bool = False,
) -> Callable[[], None]:
    """A `preexec_fn` that ends a child when its parent ends (Linux only).

    Args:
        number: Signal that the kernel sends the child when its parent ends
            (https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
        groups: Folders of control groups to join.
        niceness: Added to the child's nice value; see `SERVER_NICENESS`.
        own_group: Whether to leave the parent's process group, so that Ctrl-C in the terminal
            does not reach the child.
    """
    control = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def before() -> None:
        if control is not None:
            control(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # it has already ended
                os.kill(os.getpid(), signal.SIGKILL)
        if own_group:
            os.setpgrp()
        if niceness:
            os.nice(niceness)
        for folder in groups:
            (folder / "cgroup.procs").write_text("0")

    return before


def processes_with_mark(mark: str) -> list[int]:
    """Ids of processes with a mark in their environment, without the current one."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with suppress(OSError):  # ended, or of another user
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def kill_processes_with_mark(mark: str) -> int:
    """Kill all processes with a mark, also frozen ones; return their number."""
    ended = 0
    while pids := processes_with_mark(mark):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended += 1
        _reap(pids)
    return ended


def _reap(pids: list[int]) -> None:
    """Wait until the processes have no environment, as zombies have none."""
    for pid in pids:
        with suppress(OSError):
            while (Path(f"/proc/{pid}/environ")).read_bytes():
                os.sched_yield()
