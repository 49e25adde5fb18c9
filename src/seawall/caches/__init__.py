"""Caches of answers and of tool results. Here is what both need: a bounded cache, single flight.

Single flight is one execution for all callers that request the same at the same time. An execution
runs in a task of its own, and every caller that joined gets its pieces as they arrive. So the
caller that started it may be cancelled without ending it for the others; when the last caller is
cancelled, so is the execution. If it fails, one of those that got nothing yet starts
another, and the others join that; if that fails too, all of them fail.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

from seawall.errors import Overloaded

__all__ = [
    "BoundedCache",
    "SingleFlight",
    "Sink",
    "Work",
]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """At most `entries` values of at most `size` bytes together."""

    def __init__(self, entries: int, size: int) -> None:
        self._most_entries = entries
        self._most_bytes = size
        self._values: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, *, at: float) -> V | None:
        """The value, if it has not expired; it counts as used."""
        found = self._values.get(key)
        if found is None:
            return None
        value, _, until = found
        if at >= until:
            self.drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V, *, size: int, until: float) -> None:
        """Store a value of `size` bytes until a time; one that is too large is not stored."""
        self.drop(key)
        if size > self._most_bytes:
            return
        self._values[key] = (value, size, until)
        self.bytes += size
        while len(self._values) > self._most_entries or self.bytes > self._most_bytes:
            _, (_, gone, _) = self._values.popitem(last=False)
            self.bytes -= gone

    def drop(self, key: K) -> None:
        """Remove a value, if it is there."""
        found = self._values.pop(key, None)
        if found is not None:
            self.bytes -= found[1]

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
        self.bytes = 0


P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)
T = TypeVar("T")


class Sink(Protocol[P_contra]):
    """Receives the next pieces; may wait."""

    async def __call__(self, *pieces: P_contra) -> None:
        """Receive pieces, in this order."""
        ...


Work = Callable[[Sink[P]], Awaitable[T]]
"""Produces a result, and passes on pieces of it before."""


class _Flight(Generic[P, T]):
    def __init__(self) -> None:
        self.pieces: list[P] = []
        self.followers = 0
        self.over = False
        self.failure: Exception | None = None
        self.result: T | None = None
        self.has_owner = False
        self.task: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    async def take(self, *pieces: P) -> None:
        self.pieces += pieces
        self.wake()

    def wake(self) -> None:
        for change in self._waiting:
            if not change.done():
                change.set_result(None)

    async def change(self) -> None:
        change = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await change
        finally:
            self._waiting.discard(change)


class SingleFlight(Generic[P, T]):
    """The executions of one process, by key."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Flight[P, T]] = {}

    async def join(self, key: Hashable, work: Work[P, T], take: Sink[P]) -> tuple[T, bool]:
        """Join the execution of a key, which is started if there is none.

        Args:
            key: What is wanted.
            work: Produces it.
            take: Receives the pieces.

        Returns:
            The result, and whether this caller has to account for its cost: exactly one has to.

        Raises:
            Exception: What the execution failed with.
        """
        may_take_over = True
        while True:
            flight = self._running.get(key)
            own = flight is None
            if flight is None:
                flight = self._start(key, work)
            received_any = await self._follow(key, flight, take)
            if flight.failure is None:
                is_owner, flight.has_owner = not flight.has_owner, True
                return flight.result, is_owner  # type: ignore[return-value] # set unless it failed
            if own or received_any or not may_take_over:
                raise flight.failure
            may_take_over = False

    def _start(self, key: Hashable, work: Work[P, T]) -> _Flight[P, T]:
        flight = _Flight[P, T]()

        async def run() -> None:
            try:
                flight.result = await work(flight.take)
            except asyncio.CancelledError:
                flight.failure = Overloaded("The turn was ended early.", retry_after=1.0)
                raise
            except Exception as failure:  # noqa: BLE001 - every caller that joined raises it
                flight.failure = failure
            finally:
                flight.over = True
                self._forget(key, flight)
                flight.wake()

        flight.task = asyncio.create_task(run())
        self._running[key] = flight
        return flight

    async def _follow(self, key: Hashable, flight: _Flight[P, T], take: Sink[P]) -> bool:
        """Pass on all pieces, to the end; whether there were any."""
        passed = 0
        flight.followers += 1
        try:
            while True:
                if passed < len(flight.pieces):
                    fresh = flight.pieces[passed:]
                    passed += len(fresh)
                    await take(*fresh)
                elif flight.over:
                    return passed > 0
                else:
                    await flight.change()
        finally:
            flight.followers -= 1
            if not flight.followers and not flight.over and flight.task is not None:
                self._forget(key, flight)
                flight.task.cancel()
                await asyncio.wait([flight.task])

    def _forget(self, key: Hashable, flight: _Flight[P, T]) -> None:
        if self._running.get(key) is flight:
            del self._running[key]
