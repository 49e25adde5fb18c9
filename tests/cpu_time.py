"""CPU time of tests, with that of the processes they started: `pytest --cpu` prints it.

It is what a test costs, however busy the machine is. On Linux; elsewhere that of the process alone.
What an earlier test started and still works, as a shared server, counts for the one that runs.
"""

import os
import time
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fork_server import commands_of

__all__ = ["CpuTimes"]

_PROPERTY = "cpu_seconds"
_SHOWN = 25


class CpuTimes:
    """A plugin: measures in the process that runs a test, prints in the one that reports."""

    def __init__(self) -> None:
        self._began = 0.0
        self._of_tests: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        """Note when a test begins."""
        self._began = _seconds()
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
        """Add the time to the last report of a test."""
        if call.when == "teardown":
            # Less than nothing, where processes have ended that were not waited for: a browser's.
            item.user_properties.append((_PROPERTY, max(0.0, _seconds() - self._began)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect it from the report, which may be of another process."""
        if report.when == "teardown":
            times = dict(report.user_properties)
            self._of_tests[report.nodeid] += float(str(times.get(_PROPERTY, 0.0)))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what took the most: folders, files, tests."""
        folders: defaultdict[str, float] = defaultdict(float)
        files: defaultdict[str, float] = defaultdict(float)
        for test, seconds in self._of_tests.items():
            file = test.partition("::")[0]
            files[file] += seconds
            folders["/".join(file.split("/")[:2])] += seconds
        terminalreporter.section(f"CPU seconds: {sum(files.values()):.1f}")
        for counted in (folders, files, self._of_tests):
            ranked = sorted(counted.items(), key=lambda each: -each[1])
            for name, seconds in ranked[:_SHOWN]:
                terminalreporter.write_line(f"{seconds:9.2f}  {name}")
            terminalreporter.write_line("")


def _seconds() -> float:
    """Of this process, all below it and its commands; also of those that were waited for."""
    own = os.times()
    took, running, servers = commands_of(os.environ.get("PYTEST_XDIST_WORKER", ""))
    children = own.children_user + own.children_system + _below(os.getpid(), servers)
    return time.process_time() + children + took + sum(map(_whole, running))


def _below(pid: int, left_out: Container[int] = ()) -> float:
    """Of a process's children; left out are fork servers, or commands would count twice."""
    total = 0.0
    with suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                total += _whole(child) if child not in left_out else 0.0
    return total


def _whole(pid: int) -> float:
    return _ticks(pid) / os.sysconf("SC_CLK_TCK") + _below(pid)


def _ticks(pid: int) -> int:
    """Of a process, and of the children that it has waited for."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0
