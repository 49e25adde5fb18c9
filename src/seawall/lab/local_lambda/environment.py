"""One execution environment: a real process with its Runtime API, frozen while it has no work."""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from seawall.lab.control_groups import ControlGroups
from seawall.lab.local_lambda.http_server import HttpServer, serve
from seawall.lab.local_lambda.invocation import FunctionError, Invocation, error_body
from seawall.lab.local_lambda.runtime_api import InitFailed, RuntimeApi
from seawall.lab.local_lambda.settings import FunctionSettings
from seawall.lab.processes import SERVER_NICENESS, consumption, parent_death_signal

__all__ = ["Environment", "Usage"]

_log = logging.getLogger("seawall.lab.lambda")
_MEMORY_SECONDS = 0.1  # between two looks at its memory
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG")


class Usage(Struct):
    """What an environment has been through.

    init_seconds: from the start of its process until it asked for work, or for its snapshot.
    restore_seconds: from there on until it asked for work.
    """

    kind: str = "on-demand"
    init_seconds: float = 0.0
    restore_seconds: float = 0.0
    invocations: int = 0
    peak_memory_bytes: int = 0


class Environment:
    """A process that serves one function.

    ended: told when its process has gone. log: told what it writes, line by line.
    """

    def __init__(
        self,
        settings: FunctionSettings,
        *,
        kind: str,
        ended: Callable[["Environment"], None],
        log: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._ended = ended
        self._log = log
        self._api = RuntimeApi(settings, self._changed)
        self._process: Process | None = None
        self._serving: HttpServer | None = None
        self._control_groups: ControlGroups | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.terminated = False  # nothing of it is left
        self._reason: tuple[str, str] | None = None
        self.usage = Usage(kind)
        self.assigned = 0
        self.frozen = False
        self.started_at = 0.0
        self.idle_since = 0.0

    @property
    def pid(self) -> int:
        """Its process; 0 where there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether its process runs, frozen or not."""
        return self._process is not None and self._process.returncode is None and not self._closing

    @property
    def free(self) -> bool:
        """Whether it may be given another invocation."""
        return self.alive and self.assigned < self._settings.max_concurrency

    async def start(self, limit_seconds: float) -> None:
        """Start its process and wait until it is initialised.

        Raises:
            InitFailed: it said so, ended, or was not done in time and has been ended.
        """
        loop = asyncio.get_running_loop()
        beginning = asyncio.create_task(self._begin())
        try:
            # In any case to the end: cancelled in between it would leave a socket or a process.
            await asyncio.shield(beginning)
        except BaseException:
            await asyncio.wait([beginning])
            await self.kill()
            raise
        try:
            async with asyncio.timeout(limit_seconds):
                await asyncio.shield(self._api.ready)
        except TimeoutError as error:
            await self.kill()
            kind = "Sandbox.Timedout"
            text = f"Init phase timed out after {limit_seconds:.2f} seconds"
            raise InitFailed(kind, error_body(kind, text)) from error
        except BaseException:
            await self.kill()
            raise
        self.idle_since = loop.time()
        self.usage.init_seconds = loop.time() - self.started_at

    async def _begin(self) -> None:
        """Serve its Runtime API and start its process.

        Raises:
            InitFailed: there is no such command.
        """
        self._serving = await serve(self._api.handle, "127.0.0.1", 0)
        self.started_at = asyncio.get_running_loop().time()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._settings.command,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._settings.folder,
                env=self._variables(f"127.0.0.1:{self._serving.port}"),
                process_group=0,
                preexec_fn=parent_death_signal(
                    signal.SIGKILL, self._groups(), behind=SERVER_NICENESS
                ),
            )
        except OSError as error:
            kind = "Runtime.InvalidEntrypoint"
            raise InitFailed(
                kind, error_body(kind, f"{self._settings.command[0]}: {error}")
            ) from error
        self._tasks = [
            asyncio.create_task(self._read_log(self._process)),
            asyncio.create_task(self._watch_exit(self._process)),
            asyncio.create_task(self._watch_memory(self._process.pid)),
        ]

    async def restore(self, limit_seconds: float) -> None:
        """Continue it from its snapshot, and wait until it asks for work.

        Raises:
            InitFailed: it did not.
        """
        began = asyncio.get_running_loop().time()
        self._thaw()
        self._api.restore()
        try:
            async with asyncio.timeout(limit_seconds):
                await asyncio.shield(self._api.restoring)
        except TimeoutError as error:
            await self.kill()
            kind = "Sandbox.Timedout"
            text = f"Restore timed out after {limit_seconds:.2f} seconds"
            raise InitFailed(kind, error_body(kind, text)) from error
        except BaseException:
            await self.kill()
            raise
        self.usage.restore_seconds = asyncio.get_running_loop().time() - began

    async def run(self, invocation: Invocation) -> None:
        """Have an invocation answered, or ended at its deadline.

        A classic environment does not outlive a timeout; of a managed instance only the
        invocation ends (docs.aws.amazon.com/lambda/latest/dg,
        lambda-managed-instances-execution-environment).
        """
        self.usage.invocations += 1
        self._thaw()
        self._api.offer(invocation)
        try:
            async with asyncio.timeout_at(invocation.deadline):
                await invocation.wait()
        except TimeoutError:
            kind = "Sandbox.Timedout"
            seconds = self._settings.timeout_seconds
            text = f"RequestId: {invocation.id} Error: Task timed out after {seconds:.2f} seconds"
            invocation.finish(FunctionError(kind, error_body(kind, text)))
            self._api.drop(invocation)
            if not self._settings.managed:
                await self.kill()

    async def stop(self) -> None:
        """End it as AWS does: kindly only where there is time set for it."""
        if self.alive and self._settings.shutdown_seconds:
            self._closing = True
            self._thaw()
            self._signal(signal.SIGTERM)
            process = self._process
            if process is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.shutdown_seconds):
                        await process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it at once, with all that it has started."""
        if self.terminated:
            return
        self._closing = True
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()
        current = asyncio.current_task()
        others = [task for task in self._tasks if task is not current]
        if others:
            await asyncio.wait(others)
        if self._serving is not None:
            await self._serving.close()
        if self._control_groups is not None:
            self._control_groups.close()
        self.terminated = True

    def _groups(self) -> list[Path]:
        """The control group that limits its processors, if it is to have one."""
        if not self._settings.cpu_group:
            return []
        self._control_groups = ControlGroups()
        name = f"{self._settings.cpu_group}-{id(self):x}"
        return [self._control_groups.make(name, self._settings.processors)]

    def _variables(self, address: str) -> dict[str, str]:
        """The defined runtime environment variables (lambda/latest/dg, configuration-envvars)."""
        settings = self._settings
        variables = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
        variables |= {
            "_HANDLER": settings.handler,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory_mb),
            "AWS_LAMBDA_FUNCTION_NAME": settings.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": self.usage.kind,
            "AWS_LAMBDA_LOG_FORMAT": settings.log_format,
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{settings.name}",
            "AWS_LAMBDA_LOG_LEVEL": settings.log_level,
            "AWS_LAMBDA_LOG_STREAM_NAME": f"[$LATEST]{id(self):032x}",
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_REGION": "us-east-1",
            "AWS_SECRET_ACCESS_KEY": "local",
            "LAMBDA_RUNTIME_DIR": str(Path(sys.executable).parent),
            "LAMBDA_TASK_ROOT": str(Path(settings.folder).resolve()),
            "TZ": ":UTC",
        }
        if settings.managed:
            variables["AWS_LAMBDA_MAX_CONCURRENCY"] = str(settings.max_concurrency)
        return variables | settings.environment

    def _changed(self) -> None:
        """It waits, or has answered: freeze it once there is nothing to do."""
        self.idle_since = asyncio.get_running_loop().time()
        snapshot = self._settings.snapstart and not self._api.restoring.done()
        if not self._settings.managed and (self._api.idle or snapshot):
            self._signal(signal.SIGSTOP)
            self.frozen = True

    def _thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """To the process and all that it has started."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _read_log(self, process: Process) -> None:
        if process.stdout is None:
            return
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                line = b"(a line that is too long)\n"
            if not line:
                return
            self._log(line.decode("utf-8", "replace").rstrip("\n"))

    async def _watch_exit(self, process: Process) -> None:
        status = await process.wait()
        kind, said = self._reason or ("Runtime.ExitError", _exit_message(status))
        self._api.fail(kind, lambda request: f"RequestId: {request} Error: {said}")
        if self._serving is not None:
            await self._serving.close()
        self._ended(self)

    async def _watch_memory(self, pid: int) -> None:
        limit = self._settings.memory_mb << 20
        while self._process is not None and self._process.returncode is None:
            if not self.frozen:
                used = consumption(pid).resident_bytes
                self.usage.peak_memory_bytes = max(self.usage.peak_memory_bytes, used)
                if used > limit:
                    self._reason = (
                        "Runtime.OutOfMemory",
                        "Runtime exited with error: signal: killed",
                    )
                    self._signal(signal.SIGKILL)
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(_MEMORY_SECONDS):
                    await self._process.wait()


def _exit_message(status: int) -> str:
    if status == 0:
        return "Runtime exited without providing a reason"
    if status < 0:
        name = signal.Signals(-status).name.removeprefix("SIG").lower()
        return f"Runtime exited with error: signal: {'killed' if name == 'kill' else name}"
    return f"Runtime exited with error: exit status {status}"
