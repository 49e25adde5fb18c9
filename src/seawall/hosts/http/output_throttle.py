"""Who goes first when the process is behind: those who have not had a word yet."""

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
    """Holds back text that follows a stream's first, for as long as the event loop is late.

    What a held stream's model writes meanwhile gathers in the kernel and goes out as one piece,
    which costs hardly more than a single token. That leaves the processor to the turns that wait
    for their first token, and nothing is held back where the loop is on time.

    longest: seconds that a piece of text may be held back, however late the loop; 0 for never.
    behind: whether turns wait for the processor. Admission keeps the loop on time then, by letting
    only so many begin, so that lag alone would not tell.
    """

    def __init__(self, max_delay: float, *, behind: Callable[[], bool]) -> None:
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
        """Seconds that text is held back now."""
        return self._delay

    async def wait(self) -> None:
        """Wait as long as text is held back now; to be called after each piece of text."""
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
        """Measure how late this call is, and let go those whose time has come."""
        now = time.monotonic()
        late = now - self._ticked_at - _TICK
        self._ticked_at = now
        self._lag = max(late, self._lag * _LAG_DECAY)
        if self._behind():
            self._lag = max(self._lag, self._max_delay / _DELAY_PER_LAG)
        self._delay = (
            min(self._max_delay, self._lag * _DELAY_PER_LAG) if self._lag > _NEGLIGIBLE else 0.0
        )
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
