"""The bytes of files that a process has in memory at once."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from seawall.errors import Overloaded

__all__ = ["MemoryShare"]

_MAX_WAITING = 256
_RETRY_SECONDS = 2.0


class MemoryShare:
    """Bounds bytes in memory: who needs more than is left waits, first come, first served."""

    def __init__(self, total: int) -> None:
        """Create it.

        Args:
            total: Bytes at once.
        """
        self._total = total
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used

    async def acquire(self, amount: int, *, seconds: float) -> int:
        """Take a part; to be given back by `release`.

        Args:
            amount: Bytes; more than all count as all.
            seconds: How long it may wait.

        Returns:
            What was taken.

        Raises:
            Overloaded: There was no room in time, or too many wait already.
        """
        amount = min(amount, self._total)
        if not self._waiting and self._used + amount <= self._total:
            self._used += amount
            return amount
        if len(self._waiting) >= _MAX_WAITING:
            raise self._overloaded()
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, granted))
        try:
            async with asyncio.timeout(seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():
                self.release(amount)  # it became free while giving up
            else:
                self._waiting = deque(each for each in self._waiting if each[1] is not granted)
                self._grant()  # those behind it may fit
            if isinstance(error, TimeoutError):
                raise self._overloaded() from error
            raise
        return amount

    def release(self, amount: int) -> None:
        """Give back what `acquire` has taken."""
        self._used -= amount
        self._grant()

    @asynccontextmanager
    async def held(self, amount: int, *, seconds: float) -> AsyncGenerator[None, None]:
        """Hold a part while the block runs; see `acquire`."""
        taken = await self.acquire(amount, seconds=seconds)
        try:
            yield
        finally:
            self.release(taken)

    def _grant(self) -> None:
        while self._waiting and self._used + self._waiting[0][0] <= self._total:
            amount, granted = self._waiting.popleft()
            if not granted.done():
                self._used += amount
                granted.set_result(None)

    @staticmethod
    def _overloaded() -> Overloaded:
        return Overloaded("Too many files are being read at once.", retry_after=_RETRY_SECONDS)
