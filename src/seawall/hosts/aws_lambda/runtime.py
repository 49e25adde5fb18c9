"""Lambda runtime: one event loop for the life of the environment.

Each slot polls for an invocation, has it answered and polls for the next: one slot in a classic
environment, AWS_LAMBDA_MAX_CONCURRENCY slots on a managed instance.
"""

import asyncio
import gc
import logging
import os
import random
import signal
from collections.abc import Coroutine, MutableMapping
from typing import Any

from seawall.hosts.aws_lambda.dispatch import Dispatcher, HandlerHung
from seawall.hosts.aws_lambda.runtime_api import (
    ApiConnection,
    ApiError,
    ApiResponse,
    InvocationContext,
    InvocationResponse,
    context_of,
    current_invocation,
    error_body,
    error_kind,
    is_request_id,
    set_up_logs,
)
from seawall.hosts.aws_lambda.target import Target, load_target, read_settings

__all__ = ["run_runtime"]

_log = logging.getLogger("seawall.lambda")
_COLLECT_EVERY = 50_000
_ATTEMPTS = 5
_FIRST_PAUSE = 0.1  # seconds before a retry, doubled each time; as in AWS's client
_REPORT_SECONDS = 2.0
_CANCEL_SECONDS = 0.1  # wait for a cancelled invocation
_CLOSE_SECONDS = 5.0  # until the process exits even if something hangs
_MAX_ABANDONED = 32
# Exit statuses of AWS's runtime after a failed snapshot or restore.
_STATUS_SNAPSHOT, _STATUS_RESTORE = 64, 65


def run_runtime(handler: str, environment: MutableMapping[str, str] = os.environ) -> int:
    """Serve the function until the environment ends.

    Args:
        handler: See `load_target`.
        environment: Of the process. With one slot, `_X_AMZN_TRACE_ID` is set in it for SDKs.

    Returns:
        The exit status.
    """
    set_up_logs(environment)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(_Runtime(environment).run(handler))
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                from seawall.hosts.watchdogs import raise_unless_foreign  # noqa: PLC0415 - rare

                raise_unless_foreign(error, task)


class _EnvironmentEnded(Exception):
    """The environment ends; `status` is the exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Runtime:
    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._environment = environment
        self._address = environment.get("AWS_LAMBDA_RUNTIME_API", "")
        self._slots = max(1, int(environment.get("AWS_LAMBDA_MAX_CONCURRENCY") or 1))
        self._api = ApiConnection(self._address)
        self._polling: set[asyncio.Task[ApiResponse]] = set()
        self._stopping = False
        self._status = 0
        self._abandoned: set[asyncio.Task[BaseException | None]] = set()
        self._dispatcher: Dispatcher

    async def run(self, handler: str) -> int:
        try:
            target = await self._start(handler)
        except _EnvironmentEnded as ended:
            _end_within(_CLOSE_SECONDS, ended.status)
            return ended.status
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        # Permanent objects: the collector need not traverse them again and again.
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY, 20, 100)
        gc.enable()
        status = 0
        try:
            if self._environment.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
                await self._snapshot_and_restore(target)
            async with asyncio.TaskGroup() as group:
                connections = [self._api]
                connections += [ApiConnection(self._address) for _ in range(self._slots - 1)]
                for connection in connections:
                    group.create_task(self._serve(connection))
            status = self._status
        except _EnvironmentEnded as ended:
            status = ended.status
        except ExceptionGroup as failed:
            ends = [each for each in failed.exceptions if isinstance(each, _EnvironmentEnded)]
            if not ends:
                raise
            status = max(each.status for each in ends)
        finally:
            _end_within(_CLOSE_SECONDS, status)
            if (error := await _error_of(target.stop())) is not None:
                _log.error("the shutdown of the function failed", exc_info=error)
        return status

    async def _start(self, handler: str) -> Target:
        """Load and open the target.

        Raises:
            _EnvironmentEnded: That failed, and was reported to Lambda.
        """
        try:
            settings = read_settings(self._environment)
            target = load_target(handler, self._environment)
            if settings.metrics and target.orchestrator is not None:
                from seawall.hosts.aws_lambda.metrics import metric_observer  # noqa: PLC0415

                target.orchestrator.observe(metric_observer(self._environment))
            await target.start(self._slots)
        except BaseException as error:
            if _is_own(error):
                raise
            _log.exception("the function could not be initialized")
            await self._report("init/error", error, type(error).__name__)
            raise _EnvironmentEnded(1) from error
        self._dispatcher = Dispatcher(target, settings, self._slots)
        return target

    async def _snapshot_and_restore(self, target: Target) -> None:
        """Close everything, be frozen and restored, and reopen everything.

        Raises:
            _EnvironmentEnded: A hook failed, or the environment is shut down.
        """
        try:
            await target.before_snapshot()
            gc.collect()
            gc.freeze()
            polling = asyncio.create_task(self._api.get("restore/next"))
            self._polling.add(polling)
            await asyncio.wait([polling])
            self._polling.discard(polling)
            if self._stopping:
                raise _EnvironmentEnded(0)
            answer = polling.result()
            if answer.status != 200:
                raise ApiError(f"restore/next answered with {answer.status}")
        except _EnvironmentEnded:
            raise
        except BaseException as error:
            if _is_own(error):
                raise
            _log.exception("preparing the snapshot failed")
            await self._report("init/error", error, "Runtime.BeforeSnapshotError")
            raise _EnvironmentEnded(_STATUS_SNAPSHOT) from error
        try:
            random.seed()  # copies of a snapshot must not generate the same numbers
            await target.after_restore(self._slots)
        except BaseException as error:
            if _is_own(error):
                raise
            _log.exception("restoring the environment failed")
            await self._report("restore/error", error, "Runtime.AfterRestoreError")
            raise _EnvironmentEnded(_STATUS_RESTORE) from error

    def _stop(self) -> None:
        """Stop polling; invocations in flight are finished."""
        self._stopping = True
        for task in self._polling:
            task.cancel()

    async def _serve(self, connection: ApiConnection) -> None:
        """Serve one slot."""
        while not self._stopping:
            polling: asyncio.Task[ApiResponse] = asyncio.create_task(self._next(connection))
            self._polling.add(polling)
            try:
                received = await polling
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                break
            except _EnvironmentEnded as ended:
                if ended.status:
                    raise
                self._stop()  # invocations of other slots are finished
                break
            finally:
                self._polling.discard(polling)
            context = context_of(received.headers, self._environment)
            if self._slots == 1:
                self._environment["_X_AMZN_TRACE_ID"] = context.trace_id
            current_invocation.set(context)
            await self._answer(connection, context, received.body)
            if self._slots == 1:  # the environment is frozen next
                await self._finish_background(context)
            current_invocation.set(None)
        connection.close()

    async def _next(self, connection: ApiConnection) -> ApiResponse:
        """Poll for the next invocation.

        Raises:
            _EnvironmentEnded: There is none: the environment ends.
        """
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = await connection.get("invocation/next")
            except ApiError as error:
                if self._stopping:
                    raise _EnvironmentEnded(0) from error
                _log.warning("%s (attempt %d of %d)", error, attempt, _ATTEMPTS)
            else:
                if answer.status == 200:
                    if is_request_id(answer.headers.get("lambda-runtime-aws-request-id", "")):
                        return answer
                    _log.error("invocation/next returned no valid request id")
                    await asyncio.sleep(pause)
                    pause *= 2
                    continue
                if answer.status == 410:
                    raise _EnvironmentEnded(0)  # Lambda ends this environment
                _log.error("invocation/next answered with %d: %r", answer.status, answer.body[:500])
                if answer.status < 500 or self._slots == 1:
                    raise _EnvironmentEnded(1)  # documented: 500 is not recoverable, exit promptly
            if attempt < _ATTEMPTS:
                await asyncio.sleep(pause)
                pause *= 2
        raise _EnvironmentEnded(1)

    async def _answer(
        self, connection: ApiConnection, context: InvocationContext, payload: bytes
    ) -> None:
        """Answer one invocation; its failures do not affect others."""
        answer = InvocationResponse(connection, context)
        limit = context.deadline - self._dispatcher.margin_seconds
        left = limit - asyncio.get_running_loop().time()
        if left <= 0:
            _log.error("the invocation arrived after its deadline")
            await answer.fail("Seawall.DeadlineExceeded", TimeoutError("the deadline is over"))
            return
        # In a task of its own, so that ignoring its cancellation does not block the slot.
        answering = asyncio.create_task(
            _error_of(self._dispatcher.answer(payload, context, answer))
        )
        if not (await asyncio.wait([answering], timeout=left))[0]:
            _log.error("the invocation was ended shortly before its timeout")
            await self._abandon(answering)
            await answer.fail("Seawall.DeadlineExceeded", TimeoutError("the deadline is over"))
            if len(self._abandoned) > _MAX_ABANDONED:
                self._retire()
            return
        match answering.result():
            case None:
                pass
            case ApiError() as error:
                _log.error("the response could not be sent: %s", error)
                connection.close()
            case BaseException() as error:
                _log.error("the invocation failed", exc_info=error)
                await answer.fail(error_kind(error), error)
                if isinstance(error, HandlerHung):
                    self._retire()

    async def _abandon(self, task: "asyncio.Task[BaseException | None]") -> None:
        """Cancel a task; if it does not end soon, do not wait for it any more."""
        task.cancel()
        if not (await asyncio.wait([task], timeout=_CANCEL_SECONDS))[0]:
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)

    def _retire(self) -> None:
        """End the environment after invocations in flight; Lambda replaces it."""
        _log.error("too many invocations do not end; ending the environment")
        self._status = 1
        self._stop()

    async def _finish_background(self, context: InvocationContext) -> None:
        """Finish background work after the response; a failure is logged."""
        settling = asyncio.create_task(_error_of(self._dispatcher.finish_background(context)))
        left = context.deadline - asyncio.get_running_loop().time()
        if not (await asyncio.wait([settling], timeout=max(0.0, left)))[0]:
            await self._abandon(settling)
        elif (error := settling.result()) is not None:
            _log.error("background work after the response failed", exc_info=error)

    async def _report(self, path: str, error: BaseException, kind: str) -> None:
        """Report to Lambda, or else log, why the environment cannot start."""
        body = error_body(kind, error)
        try:
            async with asyncio.timeout(_REPORT_SECONDS):
                await self._api.post(path, body, error_type=kind)
        except (ApiError, TimeoutError) as failure:
            _log.error("the failure could not be reported to Lambda: %s", failure)


async def _error_of(work: Coroutine[Any, Any, None]) -> BaseException | None:
    """The exception that the work raised; even SystemExit, which would end the event loop."""
    try:
        await work
    except asyncio.CancelledError as error:
        return error
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        return error
    return None


def _is_own(error: BaseException) -> bool:
    from seawall.cancellation import is_own_cancellation  # noqa: PLC0415 - only after a failure

    return is_own_cancellation(error)


def _end_within(seconds: float, status: int) -> None:
    """End the process in time, even if something hangs."""
    from seawall.hosts.watchdogs import ExitDeadline  # noqa: PLC0415 - only at the end

    ExitDeadline().arm(seconds, status)
