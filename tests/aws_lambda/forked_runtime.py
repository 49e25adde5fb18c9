"""Our Lambda runtime from the fork server, where its start is not the subject.

A start then costs a seventh of the CPU time. The process is one of its own, as `asyncio` starts
them: its process group, environment, folder and output.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fork_server import ForkedProcess, start

__all__ = ["ForkedRuntime", "start_process", "start_runtime"]

_COMMAND = (sys.executable, "-m", "seawall.hosts.aws_lambda")
# As the local Lambda starts it, and as `seawall.hosts.aws_lambda.__main__` goes on.
_PROGRAM = """
import ctypes, gc, os, signal, warnings
gc.disable()
warnings.resetwarnings()
from seawall.hosts.aws_lambda.runtime import run_runtime
from seawall.lab.processes import SERVER_NICENESS
from tests.fork_server import end_process
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # it ends when the fork server does
os.nice(SERVER_NICENESS)
end_process(run_runtime({handler!r}))
"""


class ForkedRuntime:
    """As `asyncio.subprocess.Process`, as far as the local Lambda and tests use it.

    Attributes:
        pid: Its number, and that of its process group.
        stdout: What it prints.
    """

    def __init__(self, process: ForkedProcess, stdout: asyncio.StreamReader) -> None:
        self.pid = process.pid
        self.stdout = stdout
        self._process = process
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.fileno(), self._note_end)

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.fileno())
        self._process.wait()
        self._ended.set()

    @property
    def returncode(self) -> int | None:
        """Its status once it has ended; negative for a signal."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it ends; its status."""
        await self._ended.wait()
        return self._process.wait()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()


async def start_runtime(
    handler: str, environment: Mapping[str, str], folder: Path
) -> ForkedRuntime:
    """Start the runtime; its output and errors are read from `stdout`.

    Args:
        handler: That it serves.
        environment: The whole environment.
        folder: Working directory.
    """
    process = start(["-c", _PROGRAM.format(handler=handler)], environment, folder, None, group=True)
    assert process.stdout is not None
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    return ForkedRuntime(process, reader)


async def start_process(*command: str, **how: Any) -> "asyncio.subprocess.Process | ForkedRuntime":
    """As `asyncio.create_subprocess_exec` of the local Lambda; our runtime is forked."""
    if command[:3] != _COMMAND or len(command) != 4:
        return await asyncio.create_subprocess_exec(*command, **how)
    return await start_runtime(command[3], how["env"], Path(how["cwd"]))
