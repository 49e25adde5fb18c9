"""Pacing of streams: under load each is read less often, and then in larger pieces."""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from seawall.timers import next_measurement

__all__ = ["PacedStream", "ReadPacer"]

_TARGET = 0.9  # share of the time in which the event loop has work
_GAIN = 0.1  # seconds of delay, per window and by which the share exceeds the target
_PROMPT_SECONDS = 0.05  # the longest delay while the loop keeps up with the turns
_SATURATED = 0.97  # share from which on it may not
_WAITED_SECONDS = 0.5  # by a turn for its start, from which on it does not
_STEP_SECONDS = 0.05  # of the delay in an overload, per window
_RELIEF = 1.0  # seconds by which it shrinks, per window and by which the share is less
_WINDOW_SECONDS = 0.05
_CALM = 0.5  # share up to which windows end with the other measurements, ten times a second
_TICK_SECONDS = 0.01
_MOST_WINDOWS = 10  # without a delay, before the next piece begins measuring again


class PacedStream(Protocol):
    """What can pause its reading.

    Attributes:
        passed_at: When its last piece was passed on under load, to a tick; set by the pacer.
    """

    passed_at: float

    def read_on(self) -> None:
        """Read again."""


class ReadPacer:
    """Delays the reading of streams while the event loop is busy.

    What a peer sends during a delay accumulates in the kernel and is read in one piece, which costs
    little more than a single token. The delay grows while the loop has work for more than nine
    tenths of the time and shrinks while it has less, so that text waits only for a loop that has
    no time for it. It is 50 ms at most, except in an overload: while the loop always has work and
    turns still wait for their start, first texts come before further ones. A stream whose pieces
    come further apart than the delay is not delayed, since nothing would accumulate.

    Attributes:
        delay: The current delay in seconds.
        measuring: Whether the load is measured; a piece that finds that it is not begins it again.
    """

    def __init__(
        self,
        max_delay: float,
        *,
        waited: Callable[[], float] = lambda: 0.0,
        work: Callable[[], float] | None = None,
    ) -> None:
        """Create a pacer.

        Args:
            max_delay: Seconds that a stream may be left unread; more than 0.
            waited: Seconds for which turns have to wait for their start; 0 if none waits.
            work: Seconds for which the event loop had work, until now; by its thread if not given.
        """
        self._max_delay = max_delay
        self._prompt = min(_PROMPT_SECONDS, max_delay)
        self._waited = waited
        self._given_work = work
        self._thread: _ThreadWork | None = None
        self._resting: deque[tuple[float, PacedStream]] = deque()
        self._windows = 0  # since measuring began
        self.measuring = False
        self._now = 0.0  # of the last tick: a piece costs no look at the clock
        self._measured_at = 0.0
        self._worked = 0.0
        self._calm = False
        self.delay = 0.0

    def rest(self, stream: PacedStream) -> bool:
        """Whether a stream is to pause its reading.

        To be asked when a piece was passed on, unless there is no delay while the load is measured.

        Args:
            stream: Reads on when its time is over.
        """
        if not self.measuring:
            self._start()
        if not self.delay:
            return False
        last, stream.passed_at = stream.passed_at, self._now
        if self._now - last > self.delay + _TICK_SECONDS / 2:
            return False
        self._resting.append((self._now, stream))
        return True

    def close(self) -> None:
        """Release what it measures with."""
        if self._thread is not None:
            self._thread.close()

    def _start(self) -> None:
        self.measuring = True
        self._windows = 0
        self._now = self._measured_at = time.monotonic()
        self._worked = self._work()
        asyncio.get_running_loop().call_later(_WINDOW_SECONDS, self._tick)

    def _work(self) -> float:
        if self._given_work is not None:
            return self._given_work()
        if self._thread is None:
            self._thread = _ThreadWork()
        return self._thread.seconds()

    def _tick(self) -> None:
        """Adapt the delay to the work of the last window, and resume what has rested."""
        resting = self._resting
        if not (resting or self.delay or self._windows < _MOST_WINDOWS):
            self.measuring = False
            return
        loop = asyncio.get_running_loop()
        now = self._now = time.monotonic()
        # First, so that nothing rests for ever if one of them cannot be resumed.
        if self._calm:
            loop.call_at(next_measurement(loop.time()), self._tick)
        else:
            loop.call_later(_TICK_SECONDS if self.delay else _WINDOW_SECONDS, self._tick)
        if now - self._measured_at >= _WINDOW_SECONDS:
            self._adapt(now)
        due = now - self.delay
        while resting and resting[0][0] <= due:
            stream = resting.popleft()[1]
            stream.passed_at = due  # only what has accumulated comes before the next tick
            stream.read_on()

    def _adapt(self, now: float) -> None:
        worked = self._work()
        share = (worked - self._worked) / (now - self._measured_at)
        self._measured_at, self._worked = now, worked
        self._calm = share <= _CALM and not self.delay
        self.delay = self._adapted(share)
        self._windows += 1

    def _adapted(self, share: float) -> float:
        """The delay after a window in which the loop had work for a share of the time."""
        delay, prompt = self.delay, self._prompt
        if share >= _SATURATED and self._waited() > _WAITED_SECONDS:
            return min(self._max_delay, delay + _STEP_SECONDS)
        if delay > prompt:
            return max(prompt, delay - max(0.0, _SATURATED - share) * _RELIEF)
        return min(prompt, max(0.0, delay + (share - _TARGET) * _GAIN))


class _ThreadWork:
    """Work of this thread: running, or ready to run while others have the processor.

    The scheduler counts both (docs.kernel.org/scheduler/sched-stats.html). Where it does not, or
    on other systems, it is the time in which the thread ran.
    """

    def __init__(self) -> None:
        self._file = -1
        try:
            path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
            self._file = os.open(path, os.O_RDONLY)
            self._read()
        except (OSError, ValueError):
            self.close()

    def seconds(self) -> float:
        """Until now."""
        return time.thread_time() if self._file < 0 else self._read()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> float:
        ran, waited, _ = os.pread(self._file, 64, 0).split()
        return (int(ran) + int(waited)) / 1e9
