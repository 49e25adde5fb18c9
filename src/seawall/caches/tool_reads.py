"""What cacheable tools have read: kept for a while, and read once at a time.

One for each toolset. A tool of the set that changes something makes all of it be forgotten when
it is done, in this process; other processes learn of it when the time of what they keep is over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from seawall.caches.bounded import BoundedCache
from seawall.caches.settings import CacheLimits
from seawall.caches.single_flight import SingleFlight, Sink
from seawall.tools.toolset import Tool, ToolContext, ToolOutcome

__all__ = ["ToolReadCache", "cached_tools", "share_of_limits"]

_OVERHEAD_BYTES = 512
_Run = Callable[[], Awaitable[ToolOutcome]]
_Key = tuple[str, str, str, bytes]


class _FailedRead(Exception):
    """Not for others: they try themselves, one of them."""

    def __init__(self, outcome: ToolOutcome) -> None:
        super().__init__(outcome.content)
        self.outcome = outcome


class ToolReadCache:
    """Of one toolset in one process."""

    def __init__(self, limits: CacheLimits) -> None:
        self._cache: BoundedCache[_Key, ToolOutcome] = BoundedCache(limits.entries, limits.bytes)
        self._single_flight: SingleFlight[None, ToolOutcome] = SingleFlight()
        self._changes = 0

    async def run_mutation(self, run: _Run) -> ToolOutcome:
        """Run a tool that changes something."""
        try:
            return await run()
        finally:
            self._changes += 1
            self._cache.clear()

    async def read(
        self, tool: Tool, arguments: bytes, context: ToolContext, run: _Run
    ) -> ToolOutcome:
        """The outcome of a read: kept, or another's that is under way, or an own.

        arguments: validated, and encoded in one way only. Failures are not kept.

        Raises:
            TimeoutError: the deadline of the call passed.
        """
        clock = asyncio.get_running_loop().time
        owner = ("", "") if tool.shared else (context.principal.tenant, context.principal.subject)
        key = (tool.name, *owner, arguments)
        kept = self._cache.get(key, at=clock())
        if kept is not None:
            return kept

        async def work(_: Sink[None]) -> ToolOutcome:
            changes = self._changes
            outcome = await run()
            if outcome.failed:
                raise _FailedRead(outcome)
            if changes == self._changes:
                size = len(arguments) + len(outcome.content.encode()) + _OVERHEAD_BYTES
                until = clock() + (tool.cache_seconds or 0.0)
                self._cache.put(key, outcome, size=size, until=until)
            return outcome

        async def take(*_: None) -> None:
            return

        try:
            async with asyncio.timeout_at(context.deadline):
                # Who reads after a change must not be given what was read before it.
                outcome, _ = await self._single_flight.join((self._changes, key), work, take)
        except _FailedRead as failed:
            return failed.outcome
        return outcome


def cached_tools(tools: tuple[Tool, ...], limits: CacheLimits) -> tuple[Tool, ...]:
    """The tools of a set, with what they share; the same tools if none is cacheable."""
    if not _cacheable(tools):
        return tools
    read_cache = ToolReadCache(limits)
    return tuple(
        msgspec.structs.replace(each, read_cache=read_cache)
        if each.mutating or each.cache_seconds is not None
        else each
        for each in tools
    )


def share_of_limits(limits: CacheLimits, sets: Iterable[tuple[Tool, ...]]) -> CacheLimits:
    """What one of these sets may keep, so that all of them together keep within the limits."""
    count = max(1, sum(map(_cacheable, sets)))
    return CacheLimits(max(1, limits.entries // count), max(1, limits.bytes // count))


def _cacheable(tools: tuple[Tool, ...]) -> bool:
    return any(each.cache_seconds is not None for each in tools)
