"""Pacing of streams: what models send is read at times that all streams share."""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from seawall.timers import next_measurement

__all__ = ["PacedStream", "ReadPacer"]

_PROMPT_SECONDS = 0.048  # the delay while the loop keeps up with the turns
_SATURATED = 0.97  # share of the time in which the loop has work, from which on it may not
_WAITED_SECONDS = 0.5  # by a turn for its start, from which on it does not
_STEP_SECONDS = 0.05  # of the delay in an overload, per window
_RELIEF = 1.0  # seconds by which it shrinks, per window and by which the share is less
_WINDOW_SECONDS = 0.05
_CALM = 0.5  # share up to which all streams are read together
_TICK_SECONDS = 0.01
_ROUNDING_SECONDS = 0.001  # event loops have timers of whole milliseconds, early ones as well
_AT_ONCE = 64  # streams that are read before the event loop may do something else
_MOST_WINDOWS = 10  # without a stream at rest, before the next piece begins measuring again


class PacedStream(Protocol):
    """What can pause its reading.

    Attributes:
        passed_at: When its last piece was passed on, on the monotonic clock; set by the pacer.
    """

    passed_at: float

    def read_now(self) -> None:
        """Read what has arrived, and ask to rest again; read on if nothing has."""


class ReadPacer:
    """Delays the reading of streams, so that many pieces cost one wake-up.

    What a peer sends during a delay accumulates in the kernel and is read in one piece, and while
    the event loop has time, all streams are read at the same times. The delay is 48 ms, except in
    an overload: while the loop always has work and turns still wait for their start, it grows,
    since first texts come before further ones. A stream whose pieces come further apart than the
    delay is not delayed, since nothing would accumulate.

    Attributes:
        delay: The current delay in seconds.
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
        self._prompt = self.delay = min(_PROMPT_SECONDS, max_delay)
        self._waited = waited
        self._given_work = work
        self._thread: _ThreadWork | None = None
        self._resting: deque[tuple[float, PacedStream]] = deque()
        self._scheduled = False  # the next reading
        self._reading_since = 0.0  # not 0 while streams at rest are read
        self._windows = 0  # since the last stream rested
        self._measuring = False
        self._measured_at = 0.0
        self._worked = 0.0
        self._calm = True

    def rest(self, stream: PacedStream) -> bool:
        """Whether a stream is to pause its reading.

        To be asked when a piece was passed on.

        Args:
            stream: Is read when its time is over.
        """
        now = self._reading_since
        if not now:
            now = time.monotonic()
            if not self._measuring:  # also by pieces that are far apart: the delay may grow
                self._start(now)
            last, stream.passed_at = stream.passed_at, now
            if now - last > self.delay:
                return False
        stream.passed_at = now
        self._resting.append((now, stream))
        if not self._scheduled:
            self._schedule()
        return True

    def close(self) -> None:
        """Release what it measures with."""
        if self._thread is not None:
            self._thread.close()

    def _schedule(self) -> None:
        self._scheduled = True
        loop = asyncio.get_running_loop()
        now = loop.time()
        together = (now // self.delay + 1) * self.delay + _ROUNDING_SECONDS
        loop.call_at(together if self._calm else now + _TICK_SECONDS, self._read)

    def _read(self) -> None:
        """Read the streams whose delay is over."""
        resting, self._scheduled = self._resting, False
        if not resting:
            return
        now = time.monotonic()
        before = now // self.delay * self.delay if self._calm else now - self.delay
        due = 0
        for began, _ in resting:
            if began >= before or due == _AT_ONCE:
                break
            due += 1
        # Before any is read, so that nothing rests for ever if one of them cannot be.
        if due == _AT_ONCE:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._read)
        else:
            self._schedule()
        self._reading_since = now
        try:
            for _ in range(due):
                resting.popleft()[1].read_now()
        finally:
            self._reading_since = 0.0

    def _start(self, now: float) -> None:
        self._measuring = True
        self._windows = 0
        self._measured_at = now
        self._worked = self._work()
        self._measure_later()

    def _measure_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._calm:
            loop.call_at(next_measurement(loop.time()), self._measure)
        else:
            loop.call_later(_WINDOW_SECONDS, self._measure)

    def _measure(self) -> None:
        """Adapt the delay to the work of the last window."""
        now = time.monotonic()
        if now - self._measured_at >= _WINDOW_SECONDS:
            worked = self._work()
            share = (worked - self._worked) / (now - self._measured_at)
            self._measured_at, self._worked = now, worked
            self.delay = self._adapted(share)
            self._calm = share <= _CALM and self.delay == self._prompt
            self._windows = 0 if self._resting else self._windows + 1
        self._measuring = self._windows < _MOST_WINDOWS or self.delay > self._prompt
        if self._measuring:
            self._measure_later()

    def _work(self) -> float:
        if self._given_work is not None:
            return self._given_work()
        if self._thread is None:
            self._thread = _ThreadWork()
        return self._thread.seconds()

    def _adapted(self, share: float) -> float:
        """The delay after a window in which the loop had work for a share of the time."""
        if share >= _SATURATED and self._waited() > _WAITED_SECONDS:
            return min(self._max_delay, self.delay + _STEP_SECONDS)
        return max(self._prompt, self.delay - max(0.0, _SATURATED - share) * _RELIEF)


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
