"""A timing wheel: thousands of timers on one, at the grain of its tick."""

import asyncio
from collections.abc import Callable

__all__ = ["Timer", "TimingWheel"]

_FADE = 0.8


class Timer:
    """A call that is due; `cancel` takes it back."""

    __slots__ = ("_slot", "callback")

    def __init__(self, callback: Callable[[], None], slot: "dict[Timer, None]") -> None:
        self.callback = callback
        self._slot = slot
        slot[self] = None

    def cancel(self) -> None:
        """Forget it; nothing happens if the call was made already."""
        self._slot.pop(self, None)


class TimingWheel:
    """Calls back within a tick of the time asked for. The ticks stop while nothing waits.

    Varghese and Lauck, Hashed and Hierarchical Timing Wheels, 1987; one level, in a dict. For
    deadlines, which are many, seldom met and need not be met to the millisecond: a timer of the
    event loop costs ten times as much.

    tick: seconds. lag: seconds by which its ticks come late: how busy the event loop is. It fades
    within a dozen ticks.
    """

    def __init__(self, tick: float = 0.005) -> None:
        self._tick = tick
        self._slots: dict[int, dict[Timer, None]] = {}
        self._done = 0
        self._ticking = False
        self._due = 0.0
        self.lag = 0.0

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back once the event loop's clock shows `when` seconds, not before."""
        loop = asyncio.get_running_loop()
        if not self._ticking:
            self._ticking = True
            self._done = int(loop.time() / self._tick)
            self._due = loop.time() + self._tick
            loop.call_at(self._due, self._turn)
        number = max(int(when / self._tick) + 1, self._done + 1)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
        return Timer(callback, slot)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        time = loop.time()
        self.lag = max(time - self._due, self.lag * _FADE)
        now = int(time / self._tick)
        for number in range(self._done + 1, now + 1):
            self._done = number
            slot = self._slots.pop(number, None)
            while slot:
                self._call(slot.popitem()[0].callback)
        if self._slots:
            self._due = (now + 1) * self._tick
            loop.call_at(self._due, self._turn)
        else:
            self._ticking = False

    def _call(self, callback: Callable[[], None]) -> None:
        """As the event loop does: one that fails is reported, and the others are still made."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - every timer of the process depends on it
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a timer's call failed", "exception": error}
            )
