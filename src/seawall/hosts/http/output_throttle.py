"""Output throttle: delays streamed text while the event loop is late."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

__all__ = ["OutputThrottle"]

_TICK = 0.02
_NEGLIGIBLE = 0.01
_DELAY_PER_LAG = 10.0
_LAG_DECAY = 0.9
_IDLE_TICKS = 100


class OutputThrottle:
    """Delays the text of a stream after its first piece, for as long as the event loop is late.

    What the model writes during a delay accumulates in the kernel and goes out in one piece, which
    costs little more than a single token. That leaves the processor to turns that wait for their
    first token. Nothing is delayed while the loop is on time.
    """

    def __init__(self, max_delay: float, *, behind: Callable[[], bool]) -> None:
        """Create a throttle.

        Args:
            max_delay: Seconds that a piece of text may be delayed; 0 for never.
            behind: Whether turns wait for the processor. Admission then keeps the loop on time by
                starting few of them, so that lag alone would not show it.
        """
        self._max_delay = max_delay
        self._behind = behind
        self._delayed: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._lag = 0.0
        self._delay = 0.0
        self._ticked_at = 0.0
        self._unused = 0
        self._ticking = False

    @property
    def delay(self) -> float:
        """The current delay in seconds."""
        return self._delay

    async def wait(self) -> None:
        """Wait for the current delay; to be called after each piece of text."""
        if not self._max_delay:
            return
        self._unused = 0
        if not self._ticking:
            self._ticking = True
            self._ticked_at = time.monotonic()
            asyncio.get_running_loop().call_later(_TICK, self._tick)
        if self._delay:
            released = asyncio.get_running_loop().create_future()
            self._delayed.append((time.monotonic() + self._delay, released))
            await released

    def _tick(self) -> None:
        """Measure how late this call is, adapt the delay and release those whose time is over."""
        now = time.monotonic()
        late = now - self._ticked_at - _TICK
        self._ticked_at = now
        self._lag = max(late, self._lag * _LAG_DECAY)
        if self._behind():
            self._lag = max(self._lag, self._max_delay / _DELAY_PER_LAG)
        self._delay = min(self._max_delay, self._lag * _DELAY_PER_LAG)
        if self._lag <= _NEGLIGIBLE:
            self._delay = 0.0
        while self._delayed and (self._delayed[0][0] <= now or not self._delay):
            _, released = self._delayed.popleft()
            if not released.done():
                released.set_result(None)
        self._unused += 1
        if self._delayed or self._unused < _IDLE_TICKS:
            asyncio.get_running_loop().call_later(_TICK, self._tick)
        else:
            self._ticking = False
            self._lag = self._delay = 0.0
