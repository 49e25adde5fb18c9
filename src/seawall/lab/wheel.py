"""A timing wheel: thousands of timers on one, at the grain of its tick."""

import asyncio
from collections.abc import Callable

__all__ = ["Wheel"]


class Wheel:
    """Calls back within a tick of the time asked for. The ticks stop while nothing waits.

    Varghese and Lauck, Hashed and Hierarchical Timing Wheels, 1987; one level, in a dict.
    """

    def __init__(self, tick: float = 0.005) -> None:
        self._tick = tick
        self._slots: dict[int, list[Callable[[], None]]] = {}
        self._done = 0
        self._ticking = False

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back once the event loop's clock shows `when` seconds, not before."""
        loop = asyncio.get_running_loop()
        if not self._ticking:
            self._ticking = True
            self._done = int(loop.time() / self._tick)
            loop.call_later(self._tick, self._turn)
        slot = max(int(when / self._tick) + 1, self._done + 1)
        self._slots.setdefault(slot, []).append(callback)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        now = int(loop.time() / self._tick)
        for slot in range(self._done + 1, now + 1):
            self._done = slot
            for callback in self._slots.pop(slot, ()):
                callback()
        if self._slots:
            loop.call_at((now + 1) * self._tick, self._turn)
        else:
            self._ticking = False
