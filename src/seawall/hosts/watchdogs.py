"""The end of a process at a set time, whatever hangs in it.

A thread that does not return, or a task that ignores its cancellation, would keep Python from
ending the process: it joins the threads of executors and waits for all tasks of the event loop.
"""

import _thread
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["ExitDeadline", "raise_unless_foreign", "run_loop"]

_log = logging.getLogger("seawall.server")
_CLEANUP_SECONDS = 1.0
_POLL_SECONDS = 0.2
_FLUSH_SECONDS = 0.5


class ExitDeadline:
    """Ends this process at the earliest of the times that were set, if it has not ended by then."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._status = 0

    @property
    def armed(self) -> bool:
        """Whether there is a time."""
        return self._at is not None

    def arm(self, seconds: float, status: int = 0) -> None:
        """Set a time; also from a signal handler, so it takes no lock.

        Args:
            seconds: From now until then.
            status: The exit status.
        """
        first = self._at is None
        at = time.monotonic() + seconds
        self._at = at if self._at is None else min(self._at, at)
        self._status = status
        if first:
            _thread.start_new_thread(self._watch, ())  # is not waited for by whoever ends

    def _watch(self) -> None:
        while (left := (self._at or 0.0) - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))
        words = threading.Thread(target=_flush_logs, daemon=True)
        words.start()
        words.join(_FLUSH_SECONDS)  # whoever hangs may hold the lock of a log or a stream
        os._exit(self._status)


def _flush_logs() -> None:
    _log.warning("ending the process although code in it does not return: a tool, or a library")
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()


def run_loop(main: Coroutine[Any, Any, int], end: ExitDeadline, *, fast: bool = False) -> int:
    """Run to the end on an event loop of its own; the exit status.

    Where the end of the process was asked for it does not wait long for what `main` leaves behind.

    Args:
        main: Returns the exit status.
        end: Of this process; armed by `main` once it is asked to stop.
        fast: Use uvloop where it is installed.
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
    """Look at what has stopped an event loop; return where the loop is to go on.

    A task or a callback of foreign code that raises SystemExit or KeyboardInterrupt stops the
    event loop, although whoever awaits the task learns of it as of any other error.

    Args:
        error: SystemExit or KeyboardInterrupt.
        task: What the loop runs for.

    Raises:
        BaseException: The error, where the task itself has ended by it, or where it may be a real
            interrupt, as the signal has its default handler.
    """
    interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if task.done() or (isinstance(error, KeyboardInterrupt) and interrupted):
        raise error
    _log.error("a task or a callback wanted to end the process", exc_info=error)
