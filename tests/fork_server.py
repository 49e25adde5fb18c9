"""Starts commands of `seawall` from a process that has imported everything already.

Most of what a test's server costs is its start: imports. A fork server imports once, and forks a
child for each command: an ordinary process, with its own arguments, environment, folder and output.
Commands whose start is the subject, and the interpreter's own options, need a `subprocess.Popen`.
The workers of such a server are forks, too: of the server, in a state like that of a new process.

One serves all processes of a test run: the first that needs it starts it. It has one thread, and
ends with the run. A second one has the planner and its compiled loops, for commands that need them.
A shell finds either as the command `seawall` (`shell_command`). What the commands of each worker of
pytest-xdist take is written beside (`commands_of`): they are no children of the worker.
"""

import atexit
import gc
import importlib
import importlib.util
import json
import logging
import multiprocessing
import multiprocessing.util
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import IO, NoReturn, TextIO

from tests.once import RUN_FOLDER, once, owner_of_the_run

__all__ = [
    "WORKER",
    "ForkedProcess",
    "commands_of",
    "end_process",
    "forking",
    "run",
    "shell_command",
    "start",
]

WORKER = "seawall-worker"  # the name of a server's worker, in /proc
_ROOT = Path(__file__).resolve().parents[1]
# What few of the commands that tests start import, and takes long.
_LEFT_OUT = {"__main__", "plan", "ship"}
_RUN_BY_MULTIPROCESSING = ("tests.attack.test_linearizability", "tests.storage.test_sqlite")
_MOST_BYTES = 1 << 20
_WORKER_NAME = "PYTEST_XDIST_WORKER"
_kept: list["subprocess.Popen[str]"] = []  # servers outlive the process that started them


class ForkedProcess:
    """A process that the fork server started; as `subprocess.Popen`, as far as tests use it.

    Attributes:
        pid: Its number.
        stdout: What it prints, if that is a pipe to here.
        returncode: Its status once it was waited for; negative for a signal.
    """

    def __init__(self, status: IO[bytes]) -> None:
        self.pid = int(status.readline())
        self.stdout: IO[bytes] | None = None
        self.returncode: int | None = None
        self._status = status

    def fileno(self) -> int:
        """A descriptor that can be read from when it has ended, until it was waited for."""
        return self._status.fileno()

    def poll(self) -> int | None:
        """Its status if it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; its status.

        Raises:
            subprocess.TimeoutExpired: It has not ended in so many seconds.
        """
        if self.returncode is None:
            ready = select.poll()  # `select` takes no descriptors beyond 1,023
            ready.register(self._status, select.POLLIN)
            if not ready.poll(None if timeout is None else timeout * 1_000):
                raise subprocess.TimeoutExpired("seawall", timeout or 0)
            self.returncode = int(self._status.read())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    errors: int | None = 2,
    *,
    group: bool = False,
) -> ForkedProcess:
    """Start `seawall` with these arguments; its output is read from `stdout`.

    Args:
        arguments: Those of the command line, without its name; or -c, a program in Python and its
            arguments.
        environment: The whole environment.
        folder: Working directory.
        errors: Descriptor of its standard error; None: errors are part of its output.
        group: Whether it has a process group of its own.
    """
    reader, writer = os.pipe()
    with Path(os.devnull).open("rb") as nothing:
        streams = (nothing.fileno(), writer, writer if errors is None else errors)
        process = _start(arguments, environment, folder, streams, group=group)
    os.close(writer)
    process.stdout = os.fdopen(reader, "rb")
    return process


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    text: str = "",
    seconds: float = 60.0,
    *,
    planner: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run `seawall` with these arguments until it ends.

    Args:
        arguments: Those of the command line, without its name; or -c and a program in Python.
        environment: The whole environment.
        folder: Working directory.
        text: Its standard input.
        seconds: It is killed after that time, which is an error.
        planner: Whether to start it with the planner loaded.
    """
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(text.encode())
        given.seek(0)
        streams = (given.fileno(), output.fileno(), errors.fileno())
        process = _start(arguments, environment, folder, streams, planner=planner)
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(
            ["seawall", *arguments], status, output.read().decode(), errors.read().decode()
        )


def _start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    streams: tuple[int, int, int],
    *,
    planner: bool = False,
    group: bool = False,
) -> ForkedProcess:
    request = json.dumps([list(arguments), dict(environment), str(folder), group]).encode()
    reader, writer = os.pipe()
    socket.send_fds(_server(planner), [request], [*streams, writer])
    os.close(writer)
    # Without a buffer: what is there to read, `select` sees.
    return ForkedProcess(os.fdopen(reader, "rb", buffering=0))


def shell_command(
    folder: Path, *, name: str = "seawall", arguments: Sequence[str] = (), planner: bool = False
) -> Path:
    """Write a command for a shell, or for a program that starts one; its file.

    Args:
        folder: That a shell searches for commands.
        name: Of the command.
        arguments: Of `seawall`, as for `start`, before those that the command is given.
        planner: Whether to start the commands with the planner loaded.
    """
    program = folder / name
    source = Path(__file__).with_name("forked_command.py").read_text(encoding="utf-8")
    source = source.replace('ADDRESS = ""', f"ADDRESS = {_address(planner)!r}")
    source = source.replace("ARGUMENTS = []", f"ARGUMENTS = {list(arguments)!r}")
    program.write_text(f"#!{sys.executable} -ISE\n{source}", encoding="utf-8")
    program.chmod(0o755)
    return program


@cache
def forking() -> ForkServerContext:
    """Starts processes of `multiprocessing` from one that has imported what they run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_RUN_BY_MULTIPROCESSING))
    return context


@cache
def _address(planner: bool) -> str:
    """Of a server's socket, in hexadecimal digits."""

    def start() -> str:
        return _start_server(planner)

    return once(f"fork-server-{planner:d}", start) if RUN_FOLDER in os.environ else start()


@cache
def _server(planner: bool) -> socket.socket:
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    requests.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES)
    requests.connect(bytes.fromhex(_address(planner)))
    return requests


def _start_server(planner: bool) -> str:
    owner = owner_of_the_run()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", str(owner), str(int(planner))],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # with more it has threads
        text=True,
    )
    _kept.append(process)
    assert process.stdout is not None
    with process.stdout as printed:
        address = printed.readline().strip()
    if not address:
        raise RuntimeError(f"the fork server ended with status {process.wait()}")
    return address


def _serve(requests: socket.socket, owner: int) -> list[str]:
    """Serve requests until the owner ends; in a child, return its arguments."""
    reader, writer = os.pipe()
    for each in (reader, writer):
        os.set_blocking(each, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    commands = _Commands()
    ended = os.pidfd_open(owner)
    while True:
        ready, _, _ = select.select([requests.fileno(), reader, ended], [], [])
        if ended in ready:
            os._exit(0)
        if reader in ready:
            os.read(reader, 4_096)
            commands.reap()
        if requests.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _MOST_BYTES, 4)
        arguments, environment, folder, group = json.loads(message)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _become(arguments, environment, folder, descriptors)
        if group:
            os.setpgid(pid, pid)  # before its number is known
        *streams, status = descriptors
        for each in streams:
            os.close(each)
        commands.add(pid, status, environment.get(_WORKER_NAME, ""))
        with suppress(BrokenPipeError):
            os.write(status, b"%d\n" % pid)


class _Commands:
    """Commands that run, and what those of each worker of pytest-xdist have taken."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[int, str]] = {}
        self._took: defaultdict[str, float] = defaultdict(float)

    def add(self, pid: int, status: int, worker: str) -> None:
        """Report its end to the descriptor `status`."""
        self._running[pid] = status, worker
        self._write(worker)

    def reap(self) -> None:
        """Report what has ended to those who wait."""
        while self._running:
            pid, ended, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            status, worker = self._running.pop(pid)
            self._took[worker] += usage.ru_utime + usage.ru_stime
            self._write(worker)
            with suppress(BrokenPipeError):
                os.write(status, b"%d" % os.waitstatus_to_exitcode(ended))
            os.close(status)

    def _write(self, worker: str) -> None:
        if RUN_FOLDER not in os.environ:
            return
        running = [pid for pid, (_, each) in self._running.items() if each == worker]
        path = _commands_file(os.getpid(), worker)
        part = path.with_suffix(".part")
        with suppress(FileNotFoundError):  # the run has ended, its folder is gone
            part.write_text(json.dumps([self._took[worker], running]), encoding="utf-8")
            part.replace(path)


def _commands_file(server: int | str, worker: str) -> Path:
    return Path(os.environ[RUN_FOLDER]) / f"commands-{worker}-{server}.json"


def commands_of(worker: str) -> tuple[float, list[int], set[int]]:
    """CPU seconds of a worker's commands that have ended, and the numbers of those that run.

    Last the numbers of the servers, whose children the commands of all workers are.
    """
    seconds, running = 0.0, []
    pattern = _commands_file("*", worker)
    for path in pattern.parent.glob(pattern.name):
        took, pids = json.loads(path.read_text(encoding="utf-8"))
        seconds += took
        running += pids
    every = pattern.parent.glob(_commands_file("*", "*").name)
    return seconds, running, {int(path.stem.rpartition("-")[2]) for path in every}


def _become(
    arguments: list[str], environment: dict[str, str], folder: str, descriptors: Sequence[int]
) -> list[str]:
    """Make this process the one that was asked for; its arguments."""
    for standard in range(3):
        os.dup2(descriptors[standard], standard)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = _text(1, "strict", 8_192)
    sys.stderr = _text(2, "backslashreplace", 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.path[0] = folder  # as with `python -m`
    sys.path.extend(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))
    sys.argv = ["seawall", *arguments]
    # What multiprocessing starts is to import what it would without the fork server: nothing.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("seawall.__main__")
    multiprocessing.util.spawnv_passfds = partial(_fork_instead, frozenset(sys.modules))
    return arguments


def _fork_instead(
    imported: frozenset[str], path: bytes, arguments: Sequence[str], descriptors: Iterable[int]
) -> int:
    """Start `python -c PROGRAM`, as multiprocessing does, without a new interpreter; its pid.

    Args:
        imported: Names of the modules that are kept; others are imported anew.
        path: Of the interpreter.
        arguments: Its command line.
        descriptors: What the process inherits, beside the standard streams.
    """
    del path
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _forget(imported, {0, 1, 2, *descriptors})
        at = arguments.index("-c") + 1
        sys.argv = ["-c", *arguments[at + 1 :]]
        if "spawn_main" in arguments[at]:  # not its tracker of resources
            Path("/proc/self/comm").write_text(WORKER, encoding="utf-8")
        exec(arguments[at], {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
    finally:
        with suppress(Exception):
            atexit._run_exitfuncs()
            sys.stdout.flush()
        os._exit(status)


def _forget(imported: frozenset[str], descriptors: set[int]) -> None:
    """Leave nothing in this process of what its parent did since it was forked itself."""
    for number in range(max(descriptors) + 1):
        if number not in descriptors:
            with suppress(OSError):
                os.close(number)
    os.closerange(max(descriptors) + 1, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    atexit.register(logging.shutdown)
    logging.getLogger().handlers.clear()
    for name in set(sys.modules) - imported:
        if not _is_installed(sys.modules[name]):
            del sys.modules[name]
    from prometheus_client import values  # noqa: PLC0415 - chosen by the environment

    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def _is_installed(module: ModuleType) -> bool:
    """Whether it is of Python, of a package or ours, not of what a configuration is beside."""
    file = getattr(module, "__file__", None) or sys.prefix
    return file.startswith((sys.prefix, sys.base_prefix, str(_ROOT / "src")))


def _text(descriptor: int, errors: str, buffering: int) -> TextIO:
    """A new standard stream: the one that there is has a buffer of what it was connected to."""
    return os.fdopen(descriptor, "w", buffering, encoding="utf-8", errors=errors, closefd=False)


def _run_program(text: str, *arguments: str) -> NoReturn:
    """As `python -W error -c TEXT ARGUMENTS`."""
    warnings.simplefilter("error")
    sys.argv = ["-c", *arguments]
    program = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(text, "<string>", "exec"), vars(program))
    raise SystemExit(0)


def end_process(status: int) -> NoReturn:
    """End as an interpreter does, but free no memory: object by object, that takes long."""
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        raise SystemExit(status) from None  # the interpreter reports it
    os._exit(status)


def _import_all() -> None:
    for top in pkgutil.iter_modules([str(_ROOT / "src/seawall")], "seawall."):
        if top.name.removeprefix("seawall.") not in _LEFT_OUT:
            package = importlib.import_module(top.name)
            for each in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{top.name}."):
                importlib.import_module(each.name)


def _run(owner: int, *, planner: bool) -> NoReturn:
    gc.disable()  # or it looks again and again at what stays
    _import_all()
    if planner:
        importlib.import_module("seawall.cli.plan")
        importlib.import_module("seawall.plan.simulator.build").build()
    importlib.import_module("uvloop")
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork has only one"
    gc.collect()
    gc.freeze()
    gc.enable()
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    requests.bind("")  # the system chooses a name
    print(requests.getsockname().hex(), flush=True)
    os.dup2(2, 1)
    arguments = _serve(requests, owner)
    from seawall.cli.main import main  # noqa: PLC0415 - imported above

    try:
        if arguments[0] == "-c":
            _run_program(*arguments[1:])
        status = main(arguments)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        status = end.code
    end_process(status)


if __name__ == "__main__":
    _run(int(sys.argv[1]), planner=sys.argv[2] == "1")
