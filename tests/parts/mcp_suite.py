"""MCP's conformance suites in one process of Node.js, which loads what they need once."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts import mcp_parts

__all__ = ["Suites", "running_suites"]

_PROGRAM = Path(__file__).with_suffix(".mjs")
_ROOT = Path(__file__).resolve().parents[2]


class Suites:
    """The process that runs them."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, suite: tuple[str, ...], folder: Path, *arguments: str) -> tuple[int, str]:
        """Run a suite's program: its status, and all that it printed.

        Args:
            suite: Its command; `mcp_parts.conformance` or `mcp_clients.preview`.
            folder: Working directory, of the clients that it starts as well.
            arguments: Its arguments.
        """
        request = {"program": suite[-1], "arguments": arguments, "folder": str(folder)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["status"], answer["output"]


@contextmanager
def running_suites() -> Iterator[Suites]:
    """Start the process; clients that it starts find the modules of the tests."""
    node, _ = mcp_parts.conformance()
    with subprocess.Popen(
        [node, str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{_ROOT}/src:{_ROOT}"},
        text=True,
    ) as process:
        try:
            yield Suites(process)
        finally:
            process.kill()
