"""Places at an upstream: as many as its limit says; who finds none waits in line, for a while."""

import asyncio
from collections import deque

__all__ = ["ConcurrencyLimiter"]


class ConcurrencyLimiter:
    """Calls in flight, bounded by a limit that may change at any time.

    The line is no longer than the turns in flight, which admission bounds.
    """

    __slots__ = ("_waiters", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiters)

    def try_acquire(self) -> bool:
        """A place, if one is free and nobody waits for it."""
        if self.in_flight >= self.limit or self._waiters:
            return False
        self.in_flight += 1
        return True

    async def wait(self, until: float) -> bool:
        """Wait for a place until the event loop's clock shows `until`; whether there was one."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it came in the very moment of giving up
            elif waiter in self._waiters:  # else it was passed over already
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def release(self) -> None:
        """A call has ended."""
        self.in_flight -= 1
        self.admit_waiting()

    def admit_waiting(self) -> None:
        """Let in those who wait, as far as the limit allows; to be called when it has grown."""
        while self._waiters and self.in_flight < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)
