"""Execution environment: a process with its own Runtime API, frozen while it is idle."""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process, create_subprocess_exec
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
_MEMORY_SECONDS = 0.1  # between two checks of its memory
_INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG")


class Usage(Struct):
    """Counters of an environment.

    Attributes:
        kind: Initialisation type, as AWS names it.
        init_seconds: From the start of its process until it asked for work or for its snapshot.
        restore_seconds: From its restoration until it asked for work.
        invocations: Number of invocations.
        peak_memory_bytes: Peak of its memory.
    """

    kind: str = "on-demand"
    init_seconds: float = 0.0
    restore_seconds: float = 0.0
    invocations: int = 0
    peak_memory_bytes: int = 0


class Environment:
    """A process that serves one function.

    Attributes:
        usage: What it has done.
        assigned: Invocations in flight.
        frozen: Whether its process is stopped.
        started_at: When its process was started, on the event loop's clock.
        idle_since: When it last became idle, on the same clock.
        terminated: Whether its process has ended and all is cleaned up.
    """

    def __init__(
        self,
        settings: FunctionSettings,
        *,
        kind: str,
        on_exit: Callable[["Environment"], None],
        log: Callable[[str], None],
    ) -> None:
        """Create an environment.

        Args:
            settings: Of the function.
            kind: Initialisation type, as AWS names it.
            on_exit: Called when its process has ended.
            log: Called with each line of its output.
        """
        self._settings = settings
        self._on_exit = on_exit
        self._log = log
        self._api = RuntimeApi(settings, self._changed)
        self._process: Process | None = None
        self._serving: HttpServer | None = None
        self._control_groups: ControlGroups | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.terminated = False
        self._reason: tuple[str, str] | None = None
        self.usage = Usage(kind)
        self.assigned = 0
        self.frozen = False
        self.started_at = 0.0
        self.idle_since = 0.0

    @property
    def pid(self) -> int:
        """Process id; 0 without a process."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether its process exists, frozen or not."""
        return self._process is not None and self._process.returncode is None and not self._closing

    @property
    def free(self) -> bool:
        """Whether it can take another invocation."""
        return self.alive and self.assigned < self._settings.max_concurrency

    async def start(self, limit_seconds: float) -> None:
        """Start its process and wait until it is initialised.

        Args:
            limit_seconds: Of the initialisation.

        Raises:
            InitFailed: It reported an error, exited, or exceeded the limit and was killed.
        """
        loop = asyncio.get_running_loop()
        beginning = asyncio.create_task(self._begin())
        try:
            # Not cancelled half-way, which would leave a socket or a process.
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
            InitFailed: The command does not exist.
        """
        self._serving = await serve(self._api.handle, "127.0.0.1", 0)
        self.started_at = asyncio.get_running_loop().time()
        try:
            self._process = await create_subprocess_exec(
                *self._settings.command,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                cwd=self._settings.folder,
                env=self._variables(f"127.0.0.1:{self._serving.port}"),
                process_group=0,
                preexec_fn=parent_death_signal(
                    signal.SIGKILL, self._groups(), niceness=SERVER_NICENESS
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
        """Restore it from its snapshot and wait until it asks for work.

        Raises:
            InitFailed: It did not in time.
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
        """Run an invocation to its end or its deadline.

        A classic environment is killed at a timeout; in a managed instance only the invocation ends
        (docs.aws.amazon.com/lambda/latest/dg,
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
        """Stop it as AWS does: with SIGTERM first only if `shutdown_seconds` is set."""
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
        """Kill its process group at once and clean up."""
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
        """The control group that limits its processors, if any."""
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
        """Freeze it when it is idle."""
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
        """Signal its process group."""
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
        kind, message = self._reason or ("Runtime.ExitError", _exit_message(status))
        self._api.fail(kind, lambda request: f"RequestId: {request} Error: {message}")
        if self._serving is not None:
            await self._serving.close()
        self._on_exit(self)

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
