"""Execution of tool functions: a call that hangs blocks no other call.

A plain function runs in a thread, one of a few that belong to its tool. Python cannot stop a
thread: one whose call has not returned by its deadline is abandoned and replaced. An async
function runs in a task of its own, which is cancelled at the deadline and abandoned if it does not
end then. While too many abandoned calls of a tool have not returned, further calls are refused at
once.
"""

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from msgspec import Struct

__all__ = ["CallExecutor", "CallRefused", "CallResult"]

_MAX_THREADS = 16
_MAX_HUNG = 16
_IDLE_SECONDS = 10.0
_GRACE_SECONDS = 0.5

_log = logging.getLogger("seawall.tools")


class CallRefused(Exception):
    """The call was not started; the message says why."""


class CallResult(Struct, frozen=True):
    """The outcome of a call that ended: a value, or the exception that it raised."""

    value: Any = None
    error: BaseException | None = None


class _Call:
    """A call in a thread."""

    __slots__ = ("abandoned", "context", "ended", "function", "loop", "returned", "timer")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.context = contextvars.copy_context()
        self.ended: asyncio.Future[CallResult | None] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None
        self.abandoned = False
        self.returned = False


class CallExecutor:
    """Runs the calls of one tool in one process."""

    Refused = CallRefused

    def __init__(
        self,
        max_threads: int = _MAX_THREADS,
        max_hung: int = _MAX_HUNG,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        """Create an executor without calls and without threads.

        Args:
            max_threads: Calls of a plain function that run at once; others wait.
            max_hung: Abandoned calls that have not returned; from so many on, calls are refused.
            grace_seconds: How long an async function may take to end after it was cancelled.
        """
        self._grace_seconds = grace_seconds
        self._max_threads = max_threads
        self._max_hung = max_hung
        self._active = 0
        self._hung = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._abandoned: set[asyncio.Task[CallResult]] = set()
        self._lock = threading.Lock()  # guards the two below, which threads use as well
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._idle = 0

    async def in_thread(
        self, name: str, function: Callable[[], Any], deadline: float
    ) -> CallResult:
        """Call a plain function.

        Args:
            name: Name of the tool, for the log.
            function: May block and may raise anything.
            deadline: In seconds on the event loop's clock.

        Raises:
            CallRefused: The call was not started.
            TimeoutError: The deadline passed; the function continues in its thread.
        """
        loop = asyncio.get_running_loop()
        await self._acquire_thread(name, deadline)
        call = _Call(function, loop)
        try:
            self._begin(call)
        except RuntimeError as error:  # no more threads can be started
            self._release_thread()
            raise CallRefused(f"{name} is not available now.") from error
        # Also if the turn is cancelled before the deadline: the thread is still in use.
        call.timer = loop.call_at(deadline, self._abandon, name, call)
        result = await call.ended
        if result is None:
            raise TimeoutError
        return result

    async def in_task(
        self, name: str, function: Callable[[], Awaitable[Any]], deadline: float
    ) -> CallResult:
        """Call an async function, which is cancelled with its caller.

        Args:
            name: Name of the tool, for the log.
            function: May ignore its cancellation and may raise anything.
            deadline: In seconds on the event loop's clock.

        Raises:
            CallRefused: The call was not started.
            TimeoutError: The deadline passed.
        """
        self._check(name)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[CallResult | None] = loop.create_future()
        task = loop.create_task(_outcome(function, ended))
        timer = loop.call_at(deadline, _end_without_result, ended)
        try:
            result = await ended
        except asyncio.CancelledError:
            await self._cancel(name, task)
            raise
        finally:
            timer.cancel()
        if result is not None:
            return result
        await self._cancel(name, task)
        if not task.done() or task.cancelled():
            raise TimeoutError
        result = task.result()
        if isinstance(result.error, asyncio.CancelledError):
            raise TimeoutError
        return result

    async def _cancel(self, name: str, task: asyncio.Task[CallResult]) -> None:
        """Cancel the task; abandon it if it does not end."""
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=self._grace_seconds)
        finally:
            if not task.done():
                self._abandoned.add(task)
                task.add_done_callback(self._returned)
                self._count_hung(name, "ignores its cancellation")

    def _returned(self, task: asyncio.Task[CallResult]) -> None:
        self._abandoned.discard(task)
        self._hung -= 1

    def _check(self, name: str) -> None:
        if self._hung >= self._max_hung:
            raise CallRefused(
                f"{name} is not available now: {self._hung} earlier calls have not returned."
            )

    async def _acquire_thread(self, name: str, deadline: float) -> None:
        """Wait for one of the threads."""
        self._check(name)
        if self._active < self._max_threads:
            self._active += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            self._stop_waiting(waiter)
            raise CallRefused(f"{name} is busy; the call was not started.") from None
        except asyncio.CancelledError:
            self._stop_waiting(waiter)
            raise
        self._check_after_wait(name)

    def _stop_waiting(self, waiter: asyncio.Future[None]) -> None:
        with suppress(ValueError):
            self._waiting.remove(waiter)
        if waiter.done() and not waiter.cancelled():
            self._release_thread()

    def _check_after_wait(self, name: str) -> None:
        try:
            self._check(name)
        except CallRefused:
            self._release_thread()
            raise

    def _release_thread(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._active -= 1

    def _begin(self, call: _Call) -> None:
        """Hand the call to an idle thread, or start one.

        Raises:
            RuntimeError: No thread can be started.
        """
        with self._lock:
            waits = self._idle > 0
            if waits:
                self._idle -= 1
                self._calls.put(call)
        if not waits:
            threading.Thread(target=self._work, args=(call,), daemon=True, name="tool").start()

    def _abandon(self, name: str, call: _Call) -> None:
        """Abandon a call that has not returned by its deadline."""
        if call.returned:
            return
        call.abandoned = True
        self._release_thread()
        self._count_hung(name, "has not returned by its deadline; its thread is abandoned")
        _end_without_result(call.ended)

    def _count_hung(self, name: str, what: str) -> None:
        self._hung += 1
        _log.warning("tool %s: a call %s (%d of %d)", name, what, self._hung, self._max_hung)

    def _end(self, call: _Call, ended: CallResult) -> None:
        call.returned = True
        if call.timer is not None:
            call.timer.cancel()
        if call.abandoned:
            self._hung -= 1
        else:
            self._release_thread()
        if not call.ended.done():
            call.ended.set_result(ended)

    def _work(self, call: _Call) -> None:
        """Body of a thread: one call after another, until there is none for a while."""
        while True:
            try:
                ended = CallResult(call.context.run(call.function))
            except BaseException as error:  # noqa: BLE001 - whatever foreign code raises is an outcome
                ended = CallResult(None, error)
            with self._lock:
                self._idle += 1
            try:
                call.loop.call_soon_threadsafe(self._end, call, ended)
            except RuntimeError:  # the loop is closed, and nothing waits for the outcome
                self._active -= not call.abandoned
                self._hung -= call.abandoned
            del call, ended
            following = self._next()
            if following is None:
                return
            call = following

    def _next(self) -> _Call | None:
        """The next call of a thread; None if the thread is not needed any more."""
        while True:
            try:
                return self._calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    if self._calls.empty():
                        self._idle -= 1
                        return None


async def _outcome(
    function: Callable[[], Awaitable[Any]], ended: asyncio.Future[CallResult | None]
) -> CallResult:
    try:
        result = CallResult(await function())
    except BaseException as error:  # noqa: BLE001 - whatever foreign code raises is an outcome
        result = CallResult(None, error)
    if not ended.done():
        ended.set_result(result)
    return result


def _end_without_result(ended: asyncio.Future[CallResult | None]) -> None:
    """Let the caller of a call go on whose deadline has passed."""
    if not ended.done():
        ended.set_result(None)
