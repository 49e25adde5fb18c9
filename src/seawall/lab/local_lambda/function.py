"""A function: its environments, and the assignment of invocations to them."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import uuid4

from msgspec import Struct

from seawall.lab.local_lambda.environment import Environment, Usage
from seawall.lab.local_lambda.invocation import FunctionError, Invocation, error_body
from seawall.lab.local_lambda.runtime_api import InitFailed
from seawall.lab.local_lambda.settings import FunctionSettings

__all__ = [
    "LocalFunction",
    "PayloadTooLarge",
    "ScalingRate",
    "Stats",
    "Throttled",
]

_WINDOW_SECONDS = 10.0


class ScalingRate:
    """AWS's concurrency scaling rate: a token bucket of `per_window` that refills within 10 s.

    Source: docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html.
    """

    def __init__(self, per_window: int) -> None:
        self._capacity = float(per_window)
        self._left = self._capacity
        self._at = 0.0

    def take(self, at: float) -> bool:
        """Whether another environment may be started at `at` (seconds, never decreasing)."""
        refilled = (at - self._at) * self._capacity / _WINDOW_SECONDS
        self._left = min(self._capacity, self._left + refilled)
        self._at = at
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


_log = logging.getLogger("seawall.lab.lambda")
_RECLAIM_SECONDS = 0.5
_SNAPSHOT_INIT_SECONDS = 130.0
_MANAGED_INIT_SECONDS = 900.0
_RESTORE_SECONDS = 10.0


class Throttled(Exception):
    """No environment is free and none may be started; `reason` is as AWS names it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PayloadTooLarge(Exception):
    """The payload exceeds the limit of a function."""


class Stats(Struct):
    """Counters since the start; `environments`, `frozen` and `usage` are current values."""

    started: int = 0
    restored: int = 0
    throttled: int = 0
    invocations: int = 0
    failed: int = 0
    environments: int = 0
    frozen: int = 0
    usage: list[Usage] = []


class LocalFunction:
    """Serves invocations of one function; used as an async context manager."""

    def __init__(
        self, settings: FunctionSettings, *, log: Callable[[str], None] = _log.info
    ) -> None:
        self.settings = settings
        self._log = log
        self._environments: list[Environment] = []
        self._snapshots: list[Environment] = []
        self._alive: set[Environment] = set()  # all that are not terminated
        self._starting = 0
        self._rate = ScalingRate(settings.scaling_per_10s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stats = Stats()
        self._closing = False

    async def __aenter__(self) -> Self:
        """Start the environments that are provisioned ahead.

        Raises:
            InitFailed: One cannot be started.
        """
        settings = self.settings
        ahead = max(settings.provisioned, 1) if settings.managed else settings.provisioned
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(ahead):
                    group.create_task(self._start_ahead())
                if settings.snapstart:
                    group.create_task(self._prepare_snapshot())
        except BaseException as error:
            await self.close()
            if isinstance(error, ExceptionGroup):
                raise error.exceptions[0] from None
            raise
        self._spawn(self._reclaim())
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all environments."""
        self._closing = True
        every = [*self._environments, *self._snapshots]
        await asyncio.gather(*(each.stop() for each in every))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        # Those that were being started or stopped when their task was cancelled.
        await asyncio.gather(*(each.kill() for each in self._alive))

    def stats(self) -> Stats:
        """The current counters."""
        every = [*self._environments, *self._snapshots]
        self._stats.environments = len(self._environments)
        self._stats.frozen = sum(each.frozen for each in every)
        self._stats.usage = [each.usage for each in every]
        return self._stats

    @property
    def environments(self) -> tuple[Environment, ...]:
        """The current environments, without waiting snapshots."""
        return tuple(self._environments)

    def invoke(self, payload: bytes, *, client_context: str = "", trace: str = "") -> Invocation:
        """Invoke the function.

        Args:
            payload: The event, as JSON.
            client_context: Passed to the function, in base64.
            trace: Trace header; "" for a new one.

        Returns:
            The invocation, from which the response is read.

        Raises:
            PayloadTooLarge: The payload exceeds the limit.
            Throttled: No environment is free and none may be started.
        """
        settings = self.settings
        if len(payload) > settings.request_bytes:
            raise PayloadTooLarge(
                f"Request must be smaller than {settings.request_bytes} bytes for the "
                "InvokeFunction operation"
            )
        now = asyncio.get_running_loop().time()
        environment = self._pick_environment(now)
        invocation = Invocation(
            str(uuid4()),
            payload,
            deadline=now + settings.timeout_seconds,
            deadline_ms=int((time.time() + settings.timeout_seconds) * 1e3),
            trace=trace or _new_trace(),
        )
        invocation.client_context = client_context
        invocation.cold = environment is None
        self._stats.invocations += 1
        if environment is None:
            self._starting += 1
        else:
            environment.assigned += 1
        self._spawn(self._run(invocation, environment))
        return invocation

    def _pick_environment(self, now: float) -> Environment | None:
        """A free environment; None if one is to be started."""
        free = [each for each in self._environments if each.free]
        if free:
            # Classic: the most recently used one, so that the others can be reclaimed. Managed: the
            # least loaded one.
            if self.settings.managed:
                return min(free, key=lambda each: each.assigned)
            return max(free, key=lambda each: each.idle_since)
        room = len(self._environments) + self._starting < self.settings.concurrency
        if self.settings.managed:
            if room and not self._starting and self._rate.take(now):
                self._spawn(self._grow())
        elif room and self._rate.take(now):
            return None
        self._stats.throttled += 1
        raise Throttled(
            "FunctionInvocationRateLimitExceeded"
            if room
            else "ReservedFunctionConcurrentInvocationLimitExceeded"
        )

    async def _run(self, invocation: Invocation, environment: Environment | None) -> None:
        try:
            while not invocation.ended:
                if environment is None:
                    environment = await self._cold_start(invocation)
                try:
                    await environment.run(invocation)
                finally:
                    environment.assigned -= 1
                if invocation.returned:
                    invocation.returned, invocation.cold, environment = False, True, None
                    self._starting += 1
        except InitFailed as error:
            invocation.finish(FunctionError(error.kind, error.body))
        finally:
            kind = "Runtime.ExitError"
            invocation.finish(
                FunctionError(kind, error_body(kind, "the local Lambda is shutting down"))
            )
            self._report(invocation, environment)

    async def _cold_start(self, invocation: Invocation) -> Environment:
        """Start an environment for an invocation.

        An initialisation that fails or times out is retried once within the function's own timeout
        (lambda/latest/dg, lambda-runtime-environment).
        """
        try:
            environment = await self._started_for(invocation)
        finally:
            self._starting -= 1
        environment.assigned += 1
        self._environments.append(environment)
        now = asyncio.get_running_loop().time()
        invocation.deadline = now + self.settings.timeout_seconds
        invocation.deadline_ms = int((time.time() + self.settings.timeout_seconds) * 1e3)
        return environment

    async def _started_for(self, invocation: Invocation) -> Environment:
        if self.settings.snapstart and self._snapshots:
            environment = self._snapshots.pop()
            self._spawn(self._prepare_snapshot())
            invocation.environment_started_at = asyncio.get_running_loop().time()
        else:
            kind = "snap-start" if self.settings.snapstart else "on-demand"
            try:
                environment = await self._start(kind, self.settings.init_seconds)
            except InitFailed as error:
                self._log(f"INIT_REPORT Status: error Error Type: {error.kind}")
                environment = await self._start(kind, self.settings.timeout_seconds)
            invocation.environment_started_at = environment.started_at
        if self.settings.snapstart:
            await environment.restore(_RESTORE_SECONDS)
            self._stats.restored += 1
        return environment

    async def _start(self, kind: str, seconds: float) -> Environment:
        environment = Environment(self.settings, kind=kind, on_exit=self._remove, log=self._log)
        self._stats.started += 1
        self._alive = {each for each in self._alive if not each.terminated} | {environment}
        await environment.start(seconds)
        return environment

    async def _start_ahead(self) -> None:
        kind = "lambda-managed-instances" if self.settings.managed else "provisioned-concurrency"
        self._environments.append(await self._start(kind, _MANAGED_INIT_SECONDS))

    async def _prepare_snapshot(self) -> None:
        self._snapshots.append(await self._start("snap-start", _SNAPSHOT_INIT_SECONDS))

    async def _grow(self) -> None:
        self._starting += 1
        try:
            await self._start_ahead()
        except InitFailed as error:
            _log.error("a managed instance could not be started: %s", error)
        finally:
            self._starting -= 1

    async def _reclaim(self) -> None:
        """Stop environments that were idle for too long; replace provisioned ones that died."""
        while True:
            await asyncio.sleep(min(_RECLAIM_SECONDS, self.settings.idle_seconds))
            now = asyncio.get_running_loop().time()
            for each in list(self._environments):
                on_demand = each.usage.kind in ("on-demand", "snap-start")
                unused = each.assigned == 0 and now - each.idle_since > self.settings.idle_seconds
                if on_demand and unused:
                    self._environments.remove(each)
                    self._spawn(each.stop())
            ahead = max(self.settings.provisioned, 1 if self.settings.managed else 0)
            kept = sum(
                each.usage.kind not in ("on-demand", "snap-start") for each in self._environments
            )
            if kept < ahead and not self._starting:
                self._spawn(self._grow())

    def _remove(self, environment: Environment) -> None:
        with suppress(ValueError):
            self._environments.remove(environment)
        with suppress(ValueError):
            self._snapshots.remove(environment)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report(self, invocation: Invocation, environment: Environment | None) -> None:
        """Log the REPORT line of an invocation."""
        self._stats.failed += invocation.failed
        began = invocation.deadline - self.settings.timeout_seconds
        line = (
            f"REPORT RequestId: {invocation.id}\t"
            f"Duration: {(invocation.ended_at - began) * 1e3:.2f} ms\t"
            f"Memory Size: {self.settings.memory_mb} MB"
        )
        if environment is not None:
            line += f"\tMax Memory Used: {environment.usage.peak_memory_bytes >> 20} MB"
            if invocation.cold:
                line += f"\tInit Duration: {environment.usage.init_seconds * 1e3:.2f} ms"
        self._log(line)


def _new_trace() -> str:
    root = f"1-{int(time.time()):08x}-{os.urandom(12).hex()}"
    return f"Root={root};Parent={os.urandom(8).hex()};Sampled=0"
