"""Workers of pytest-xdist, forked from a process that has collected the tests already.

Most of what a worker costs before its first test is imports, of 366 files and of all they import,
and making an item of each of 8,000 tests. One process collects with the arguments of the run, and
forks a child for each worker, which runs what was collected, and reports what could not be. It does
not collect anew: a file whose import failed would pass for imported. Eight workers that run no test
take 15 s of CPU time, with 44 s for those that collect (2 processors, 20 processes that want them).

execnet starts a worker as a Python that reads what it has to do from its standard input. The Python
that it starts here passes its standard streams to that process, whose child works with them.
"""

import gc
import importlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from select import select
from types import ModuleType
from typing import Any, NoReturn

import pytest

from seawall.plan.simulator.build import build
from tests.fork_server import end_process
from tests.once import RUN_FOLDER
from tests.servers import ROOT

__all__ = ["fork_workers"]

_HAND_OVER = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [b"worker"], [0, 1, 2])
"""
# Clients that tests of these packages import where they use them: a test alone need not wait.
# All eight workers imported the first, three the second: 0.9 and 2.2 s of CPU time each.
_IMPORTED_LATE = {"openai": "tests.hosts.", "anthropic": "tests.models."}
_WORK = "import sys;exec(eval(sys.stdin.readline()))"  # what execnet starts a Python with


class _Collection:
    """What this process has collected: a plugin that keeps it, for the workers to run."""

    def __init__(self) -> None:
        self._session: pytest.Session | None = None
        self._items: list[pytest.Item] = []
        self._reports: list[pytest.CollectReport] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what failed or is skipped."""
        if not report.passed:
            self._reports.append(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> Iterator[None]:
        """Note all items, before some are deselected and the others sorted, as workers do again."""
        self._session, self._items = session, list(items)
        return (yield)

    def hand_over(self) -> None:
        """Have the session of this process, a worker, begin with it, with a configuration anew."""
        session = self._session
        if session is None:  # wrong arguments, which workers report, too
            return
        nodes = {node for item in self._items for node in item.listchain()}
        fixtures = session._fixturemanager
        configured: list[Any] = [*nodes, session, fixtures]

        def begin(config: pytest.Config) -> pytest.Session:
            session.testsfailed = 0
            session.stash = pytest.Stash()
            session.trace = config.trace.root.get("collection")
            for each in configured:
                each.config = config
            config.pluginmanager.register(session, name="session")
            return session

        def collect(session: pytest.Session) -> list[pytest.Item]:
            session._fixturemanager = fixtures
            config = session.config
            for folder in {node.path.parent for node in nodes if isinstance(node, pytest.Module)}:
                config.pluginmanager._loadconftestmodules(
                    folder,
                    config.getoption("importmode"),
                    config.rootpath,
                    consider_namespace_packages=False,
                )
            for report in self._reports:
                config.hook.pytest_collectreport(report=report)
            session.items = list(self._items)
            config.hook.pytest_collection_modifyitems(
                session=session, config=config, items=session.items
            )
            config.hook.pytest_collection_finish(session=session)
            session.testscollected = len(session.items)
            return session.items

        pytest.Session.from_config = begin  # type: ignore[method-assign]
        pytest.Session.perform_collect = collect  # type: ignore[assignment]


def fork_workers(config: pytest.Config, specifications: Iterable[Any]) -> None:
    """Have workers forked.

    Args:
        config: Of the process that controls them.
        specifications: Of the workers, for execnet.
    """
    address = str(Path(os.environ[RUN_FOLDER]) / "workers.socket")
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    requests.bind(address)
    called = config.invocation_params
    arguments = [str(requests.fileno()), str(called.dir), *map(str, called.args)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked_workers", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[requests.fileno()],
    )
    requests.close()

    def stop() -> None:
        process.kill()
        process.communicate()

    config.add_cleanup(stop)
    for each in specifications:
        each.python = shlex.join([sys.executable, "-ISEc", _HAND_OVER, address])


def _serve(requests: socket.socket) -> list[int]:
    """Fork until standard input ends; in a child, return the standard streams it is to have."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the process that started it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets children that have ended
    while True:
        ready, _, _ = select([requests, sys.stdin], [], [])
        if requests not in ready:
            os._exit(0)
        _, streams, _, _ = socket.recv_fds(requests, 100, 3)
        if os.fork() == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return streams
        for each in streams:
            os.close(each)


def _become_worker(streams: Iterable[int]) -> NoReturn:
    for standard, given in enumerate(streams):
        os.dup2(given, standard)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.argv = ["-c"]
    program = sys.modules["__main__"] = ModuleType("__main__")
    with suppress(SystemExit):
        exec(_WORK, vars(program))
    end_process(0)


def _run(descriptor: int, folder: str, arguments: Iterable[str]) -> NoReturn:
    os.chdir(folder)
    collection = _Collection()
    pytest.main([*arguments, "-n0", "--collect-only", "-q"], [collection])
    collected = [name for name in sys.modules if name.startswith("tests.")]
    if any(name.startswith("tests.plan.") for name in collected):
        build()  # reads the planner's compiled loops, which takes half a second of CPU time
    for client, package in _IMPORTED_LATE.items():
        if any(name.startswith(package) for name in collected):
            with suppress(ImportError):  # the tests report it
                importlib.import_module(client)
    threads = os.listdir("/proc/self/task")  # noqa: PTH208
    assert len(threads) == 1, f"{len(threads)} threads: a fork has only one"
    gc.freeze()
    streams = _serve(socket.socket(fileno=descriptor))
    collection.hand_over()
    _become_worker(streams)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
