"""Watchdogs of a process: a deadline for its exit, and detection of a blocked event loop.

At exit Python joins the threads of executors and waits for all tasks of the event loop, so a
thread that does not return, or a task that ignores its cancellation, would keep the process alive.
"""

import _thread
import asyncio
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["EventLoopWatchdog", "ExitDeadline", "raise_unless_foreign", "run_loop"]

_log = logging.getLogger("seawall.server")
_CLEANUP_SECONDS = 1.0
_POLL_SECONDS = 0.2
_FLUSH_SECONDS = 0.5
_MIN_REPORT_INTERVAL = 60.0
_FRAMES = 20


class ExitDeadline:
    """Ends this process at the earliest armed time, if it has not ended by then."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._status = 0

    @property
    def armed(self) -> bool:
        """Whether a time was set."""
        return self._at is not None

    def arm(self, seconds: float, status: int = 0) -> None:
        """Set a time. Takes no lock, so it can be called from a signal handler.

        Args:
            seconds: From now.
            status: The exit status.
        """
        first = self._at is None
        at = time.monotonic() + seconds
        self._at = at if self._at is None else min(self._at, at)
        self._status = status
        if first:
            _thread.start_new_thread(self._watch, ())  # not joined at exit

    def _watch(self) -> None:
        while (left := (self._at or 0.0) - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
        flushing = threading.Thread(target=_flush_logs, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_SECONDS)  # the code that hangs may hold the lock of a log or stream
        os._exit(self._status)


def _flush_logs() -> None:
    _log.warning("ending the process although a tool or library does not return")
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()


def run_loop(main: Coroutine[Any, Any, int], end: ExitDeadline, *, fast: bool = False) -> int:
    """Run a coroutine to its end on a new event loop; return the exit status.

    If the exit deadline is armed, the tasks and threads that `main` leaves behind have one second.

    Args:
        main: Returns the exit status.
        end: Armed by `main` when it is asked to stop.
        fast: Use uvloop if it is installed.
    """
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    if fast:
        try:
            import uvloop  # noqa: PLC0415 - optional
        except ImportError:
            pass
        else:
            new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while True:
            try:
                status = loop.run_until_complete(task)
                break
            except (SystemExit, KeyboardInterrupt) as error:
                raise_unless_foreign(error, task)
        if end.armed:
            end.arm(_CLEANUP_SECONDS, status)
    return status


def raise_unless_foreign(error: BaseException, task: asyncio.Task[int]) -> None:
    """Re-raise what has stopped an event loop, unless it comes from user code.

    A task or callback of user code that raises SystemExit or KeyboardInterrupt stops the event
    loop, although the task's awaiter receives it like any other error. The loop can go on.

    Args:
        error: SystemExit or KeyboardInterrupt.
        task: The main task of the loop.

    Raises:
        BaseException: The error, if it has ended the main task, or may be a real interrupt because
            the signal has its default handler.
    """
    interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if task.done() or (isinstance(error, KeyboardInterrupt) and interrupted):
        raise error
    _log.error("a task or callback tried to end the process", exc_info=error)


class EventLoopWatchdog:
    """A thread that logs the stack of an event loop that is blocked."""

    def __init__(self, seconds: float) -> None:
        """Start for the event loop of the calling thread.

        Args:
            seconds: Without a heartbeat for so long, the loop counts as blocked.
        """
        self._seconds = seconds
        self._last_beat = time.monotonic()
        self._watched = threading.get_ident()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="seawall-watch").start()

    def beat(self) -> None:
        """Record that the event loop is not blocked."""
        self._last_beat = time.monotonic()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _watch(self) -> None:
        pause = self._seconds / 4
        reported_at, checked_at = -_MIN_REPORT_INTERVAL, time.monotonic()
        while not self._stopped.wait(pause):
            now = time.monotonic()
            if now - checked_at > self._seconds:  # the whole process was suspended
                self._last_beat = now
            checked_at = now
            late = now - self._last_beat
            if late > self._seconds and now - reported_at > _MIN_REPORT_INTERVAL:
                reported_at = now
                frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented
                stack = "".join(traceback.format_stack(frame, _FRAMES))
                _log.error("the event loop has been blocked for %.1f s, in\n%s", late, stack)
