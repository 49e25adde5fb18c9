"""Tool read cache: results of cacheable tools, each read once at a time.

One for each toolset. When a tool of the set that changes something is done, all cached results of
the set are dropped in this process; other processes keep theirs until they expire.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from seawall.caches import BoundedCache, SingleFlight, Sink
from seawall.settings import CacheLimits
from seawall.tools.port import Tool, ToolContext, ToolOutcome

__all__ = ["ToolReadCache", "cached_tools", "share_of_limits"]

_OVERHEAD_BYTES = 512
_Run = Callable[[], Awaitable[ToolOutcome]]
_Key = tuple[str, str, str, bytes]


class _FailedRead(Exception):
    """A failed read: other callers try again, one of them."""

    def __init__(self, outcome: ToolOutcome) -> None:
        super().__init__(outcome.content)
        self.outcome = outcome


class ToolReadCache:
    """The read cache of one toolset in one process."""

    def __init__(self, limits: CacheLimits) -> None:
        self._cache: BoundedCache[_Key, ToolOutcome] = BoundedCache(limits.entries, limits.bytes)
        self._single_flight: SingleFlight[None, ToolOutcome] = SingleFlight()
        self._changes = 0

    async def run_mutation(self, run: _Run) -> ToolOutcome:
        """Run a tool that changes something, then drop cached results."""
        try:
            return await run()
        finally:
            self._changes += 1
            self._cache.clear()

    async def read(
        self, tool: Tool, arguments: bytes, context: ToolContext, run: _Run
    ) -> ToolOutcome:
        """The outcome of a read: cached, of a read that is running, or of a new one.

        Failures are not cached.

        Args:
            tool: The tool.
            arguments: Validated, in canonical form.
            context: The turn.
            run: Reads.

        Raises:
            TimeoutError: The deadline of the call passed.
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
                size += sum(len(each.data) for each in outcome.images)
                size += sum(len(each.url) + len(each.section) for each in outcome.sources)
                until = clock() + (tool.cache_seconds or 0.0)
                self._cache.put(key, outcome, size=size, until=until)
            return outcome

        async def take(*_: None) -> None:
            return

        try:
            async with asyncio.timeout_at(context.deadline):
                # A read after a change must not join one from before it.
                outcome, _ = await self._single_flight.join((self._changes, key), work, take)
        except _FailedRead as failed:
            return failed.outcome
        return outcome


def cached_tools(tools: tuple[Tool, ...], limits: CacheLimits) -> tuple[Tool, ...]:
    """The tools of a set with a common cache; unchanged if none is cacheable."""
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
    """The limits of one set, so that all sets together stay within `limits`."""
    count = max(1, sum(map(_cacheable, sets)))
    return CacheLimits(max(1, limits.entries // count), max(1, limits.bytes // count))


def _cacheable(tools: tuple[Tool, ...]) -> bool:
    return any(each.cache_seconds is not None for each in tools)
