"""The gate that turns pass: the admission queue with real tasks waiting in it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NoReturn

from seawall.admission.queue import AdmissionLimits, AdmissionQueue, Refusal
from seawall.errors import Overloaded

__all__ = ["Gate"]


class Gate:
    """Bounds the turns in flight in this process."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._queue = AdmissionQueue(limits)
        self.limits = limits
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self.refused = 0

    @property
    def in_flight(self) -> int:
        """Turns that run."""
        return self._queue.in_flight

    @property
    def queued(self) -> int:
        """Turns that wait."""
        return self._queue.queued

    def check(self) -> None:
        """Refuse at once, before any work, when there is no room even to wait.

        Raises:
            Overloaded: there is none.
        """
        if refusal := self._queue.would_refuse():
            self._refuse(refusal)

    @asynccontextmanager
    async def place(self, deadline: float) -> AsyncGenerator[None, None]:
        """Hold a place while the block runs; `deadline` in seconds on the event loop's clock.

        Raises:
            Overloaded: there is no room, or none in time.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        decision, ticket = self._queue.enter(at=began, deadline=deadline)
        if isinstance(decision, Refusal):
            self._refuse(decision)
        if decision == "wait":
            await self._wait(ticket, min(deadline, began + self.limits.wait_seconds))
            began = clock()
        try:
            yield
        finally:
            now = clock()
            self._queue.observe(now - began)
            self._release(now)

    async def _wait(self, ticket: int, latest: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters[ticket] = waiter
        try:
            async with asyncio.timeout_at(latest):
                await waiter
        except BaseException as error:
            self._queue.give_up(ticket)
            if waiter.done() and not waiter.cancelled():
                # The place came in the very moment of giving up: pass it on.
                self._release(loop.time())
            if isinstance(error, TimeoutError):
                self._refuse(Refusal(max(1.0, self._queue.expected_wait())))
            raise
        finally:
            del self._waiters[ticket]

    def _release(self, now: float) -> None:
        """Give a free place to the first who still waits for it."""
        while (successor := self._queue.release(at=now)) is not None:
            waiter = self._waiters[successor]
            if not waiter.done():
                waiter.set_result(None)
                return

    def _refuse(self, refusal: Refusal) -> NoReturn:
        self.refused += 1
        raise Overloaded(
            "There is no room for another turn now; nothing was done for this one.",
            retry_after=round(refusal.retry_after, 1),
        )
