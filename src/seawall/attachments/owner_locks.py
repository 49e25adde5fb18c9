"""One thing at a time of each owner: many of one do not delay those of others."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from seawall.turn import Principal

__all__ = ["OwnerLocks"]


class _Queue:
    """The lock of an owner, and how many wait for it or have it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.users = 0
        self.lock = asyncio.Lock()


class OwnerLocks:
    """A lock for each owner, as long as it is used."""

    def __init__(self) -> None:
        """Create it, without owners."""
        self._queues: dict[Principal | None, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @asynccontextmanager
    async def held(self, owner: Principal | None) -> AsyncGenerator[None, None]:
        """Wait for the lock of an owner, and keep it while the block runs.

        Args:
            owner: Whose lock; None is an owner, too.
        """
        queue = self._queues.setdefault(owner, _Queue())
        queue.users += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[owner]
