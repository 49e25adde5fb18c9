"""Notices that the event loop is blocked, and logs where."""

import logging
import sys
import threading
import time
import traceback

__all__ = ["EventLoopWatchdog"]

_log = logging.getLogger("seawall.server")
_MIN_REPORT_INTERVAL = 60.0
_FRAMES = 20


class EventLoopWatchdog:
    """A thread that looks whether the event loop still comes round."""

    def __init__(self, seconds: float) -> None:
        """Begin for the event loop of the calling thread.

        Args:
            seconds: So long without a beat means blocked.
        """
        self._seconds = seconds
        self._beat = time.monotonic()
        self._watched = threading.get_ident()
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="seawall-watch").start()

    def beat(self) -> None:
        """The event loop has come round."""
        self._beat = time.monotonic()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _watch(self) -> None:
        pause = self._seconds / 4
        reported, looked = -_MIN_REPORT_INTERVAL, time.monotonic()
        while not self._stopped.wait(pause):
            now = time.monotonic()
            if now - looked > self._seconds:  # the whole process stood still
                self._beat = now
            looked = now
            late = now - self._beat
            if late > self._seconds and now - reported > _MIN_REPORT_INTERVAL:
                reported = now
                frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - documented
                stack = "".join(traceback.format_stack(frame, -_FRAMES))
                _log.error("the event loop has been blocked for %.1f s, in\n%s", late, stack)
