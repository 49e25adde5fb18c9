"""Timers and deadlines on a timing wheel: thousands of them on one event loop timer."""

import asyncio
import math
from collections.abc import Callable, Sequence
from types import TracebackType

from msgspec import Struct

__all__ = ["Deadline", "Timer", "TimingWheel", "next_measurement"]

_LAG_DECAY = 0.64
_MEASURED = 10  # times a second
_ROUNDING_SECONDS = 0.001  # event loops have timers of whole milliseconds, early ones as well
_FEW = 256  # slots in which the first is looked for with each tick
_SWEEP_SECONDS = 1.0


def next_measurement(now: float) -> float:
    """When to measure next, on the event loop's clock.

    What is measured ten times a second is measured at the same times, so that it wakes the process
    ten times a second.
    """
    return (int(now * _MEASURED) + 1) / _MEASURED + _ROUNDING_SECONDS


class Timer(Struct, eq=False):
    """A scheduled call.

    Attributes:
        callback: What is called; forgotten when it is cancelled, since its object may own the timer
            and would be garbage that only the collector finds.
        slot: The timers of the same tick.
    """

    callback: Callable[[], None]
    slot: "dict[Timer, None]"

    def cancel(self) -> None:
        """Cancel the call; without effect if it was made already."""
        self.slot.pop(self, None)
        self.callback = _cancelled


def _cancelled() -> None:
    """What a cancelled timer calls."""


class TimingWheel:
    """Schedules calls with the resolution of its tick.

    For deadlines: they are many, rarely expire and need no millisecond precision, and a timer of
    the event loop costs ten times as much. One level, in a dict.
    Source: Varghese and Lauck, Hashed and Hierarchical Timing Wheels, 1987.

    There are no ticks while no timer is pending. While few are, the next tick comes when the first
    is due, unless lag is measured: timers that have been cancelled do not wake an idle process.

    Attributes:
        lag: Seconds by which the ticks are late, which is how busy the event loop is. It decays
            within half a second.
    """

    def __init__(self, tick: float = 0.005, *, measures_lag: bool = False) -> None:
        """Create a wheel.

        Args:
            tick: Resolution in seconds.
            measures_lag: Make a tick ten times a second while any timer is pending, so that `lag`
                is recent.
        """
        self._tick = tick
        self._measures_lag = measures_lag
        self._slots: dict[int, dict[Timer, None]] = {}
        self._done = 0  # the last tick that was made
        self._swept_at = 0.0
        self._next: asyncio.TimerHandle | None = None
        self._due = math.inf  # when the next tick is
        self.lag = 0.0

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Schedule a call for `when` (event loop clock) or up to a tick later, never earlier."""
        if self._next is None:
            self._done = int(asyncio.get_running_loop().time() / self._tick)
            self.lag = 0.0
        number = int(when / self._tick) + 1
        if number <= self._done:
            number = self._done + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            if number * self._tick < self._due:
                self._schedule(number)
        timer = Timer(callback, slot)
        slot[timer] = None
        return timer

    def _schedule(self, number: int) -> None:
        """Have the next tick at its number, or earlier to measure, instead of later."""
        if self._next is not None:
            self._next.cancel()
        loop = asyncio.get_running_loop()
        self._due = number * self._tick + _ROUNDING_SECONDS
        if self._measures_lag:
            self._due = min(self._due, next_measurement(loop.time()))
        self._next = loop.call_at(self._due, self._advance)

    def _advance(self) -> None:
        time = asyncio.get_running_loop().time()
        self.lag = max(time - self._due, self.lag * _LAG_DECAY)
        slots, now = self._slots, int(time / self._tick)
        passed: Sequence[int] = range(self._done + 1, now + 1)
        if len(passed) > len(slots):
            passed = sorted(each for each in slots if each <= now)
        self._done = now
        self._due = 0.0  # what the callbacks schedule is considered below
        for number in passed:
            slot = slots.pop(number, None)
            while slot:
                self._call(slot.popitem()[0].callback)
        few = len(slots) <= _FEW
        if few or time - self._swept_at >= _SWEEP_SECONDS:
            self._swept_at = time
            for number in [number for number, slot in slots.items() if not slot]:
                del slots[number]  # all of its timers were cancelled
        self._next, self._due = None, math.inf
        if slots:
            self._schedule(min(slots) if few else now + 1)

    def _call(self, callback: Callable[[], None]) -> None:
        """Report a callback that raises, as the event loop does, and go on with the others."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - every timer of the process depends on it
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a timer's callback failed", "exception": error}
            )


class Deadline:
    """Cancels an `async with` block at a time; `asyncio.timeout_at` at a tenth of its cost.

    Its own cancellation is distinguished from others by `asyncio.Task.uncancel`, as in asyncio:
    https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel

    Raises:
        TimeoutError: On leaving the block, if the deadline cancelled it.
    """

    __slots__ = ("_cancelling", "_expired", "_task", "_timer", "_wheel", "_when")

    def __init__(self, wheel: TimingWheel, when: float) -> None:
        """Create a deadline.

        Args:
            wheel: Its tick is the precision.
            when: Seconds on the event loop's clock.
        """
        self._wheel = wheel
        self._when = when
        self._expired = False
        self._timer: Timer | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to cancel")
        self._task, self._cancelling = task, task.cancelling()
        self._timer = self._wheel.call_at(self._when, self._expire)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ours = (
            self._expired
            and self._task is not None
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        )
        if ours:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()
