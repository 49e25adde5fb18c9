"""Reading what is remembered of a user, while the session is loaded and the intent is detected.

Only for turns that an agent with a memory may answer. If it cannot be read in time the turn goes on
without, says so to the model, the log and the metrics.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager

from msgspec import Struct

from seawall.agents.memory import NOT_AVAILABLE, memory_messages, shown_revision
from seawall.errors import Problem
from seawall.identity import is_anonymous
from seawall.pipeline.context import Stage, TurnContext
from seawall.storage.facts import Facts, Memory
from seawall.turn import Message, Principal

__all__ = ["MemoryRead", "MemoryReads", "Remembered"]

_log = logging.getLogger("seawall.memory")


class Remembered(Struct, frozen=True):
    """What the model of a turn is shown.

    Attributes:
        messages: Before the conversation, for agents with a memory.
        revision: As in `Window.memory`.
    """

    messages: tuple[Message, ...]
    revision: int | None


class MemoryRead(Struct, frozen=True):
    """The read of one turn.

    Attributes:
        reading: What it reads; None if it failed.
        agents: Those that have a memory, or may hand over to one that has.
    """

    reading: asyncio.Task[Memory | None]
    agents: frozenset[str]

    async def shown(
        self, context: TurnContext, agent: str, shown: int | None, visible: Collection[str]
    ) -> Remembered | None:
        """What the model is shown; None if the agent has no memory.

        Args:
            context: Of the turn.
            agent: The agent that begins.
            shown: See `shown_revision`.
            visible: See `shown_revision`.
        """
        if agent not in self.agents:
            self.reading.cancel()
            return None
        memory = await self.reading
        context.report.memory = "failed" if memory is None else "read"
        if memory is None:
            return Remembered(NOT_AVAILABLE, shown)
        now = time.time()
        revision = shown_revision(memory, shown, visible, now=now)
        return Remembered(memory_messages(memory, revision, now=now), revision)


class MemoryReads:
    """Begins the reads of turns."""

    def __init__(
        self,
        facts: Facts,
        *,
        owners: frozenset[str],
        handoffs: Mapping[str, tuple[str, ...]],
        seconds: float,
    ) -> None:
        """Read from a store.

        Args:
            facts: The store.
            owners: Agents with a memory.
            handoffs: By agent, those that it may hand over to.
            seconds: How long a read may take.
        """
        self._facts = facts
        self._seconds = seconds
        self._agents = _reaching(owners, handoffs)

    @asynccontextmanager
    async def reading(
        self, context: TurnContext, principal: Principal
    ) -> AsyncGenerator[None, None]:
        """Read while the block runs, if the turn may need it; `context.memory` has the read.

        Args:
            context: Of the turn.
            principal: Verified.
        """
        requested = context.request.agent
        if is_anonymous(principal) or (requested is not None and requested not in self._agents):
            yield
            return
        reading = asyncio.create_task(self._read(context, principal))
        context.memory = MemoryRead(reading, self._agents)
        try:
            yield
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            if not reading.cancelled():
                reading.exception()  # a defect that no turn has waited for

    async def _read(self, context: TurnContext, principal: Principal) -> Memory | None:
        try:
            async with Stage("memory", self._seconds, context.deadline, context.timings):
                return await self._facts.read(principal)
        except Problem as problem:
            _log.warning(
                "turn %s goes on without what is remembered of its user: %s",
                context.request.id,
                problem,
            )
            return None


def _reaching(owners: frozenset[str], handoffs: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """The agents that have a memory, or may hand over, also by others, to one that has."""
    reaching = set(owners)
    while True:
        more = {
            name for name, others in handoffs.items() if not reaching.isdisjoint(others)
        } - reaching
        if not more:
            return frozenset(reaching)
        reaching |= more
