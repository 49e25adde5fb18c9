"""Facts about subjects: what agents keep of them across sessions, and the port of its store.

All facts of a subject are one record, which is written as a whole if it is still as it was read. So
their number and size are bounded exactly, however many sessions write at the same time, and one
read gets them all.
"""

from typing import Literal, Protocol

from msgspec import Struct

from seawall.turn import Principal

__all__ = ["Fact", "FactAuthor", "Facts", "Memory", "MemoryPage", "OwnedMemory"]

FactAuthor = Literal["agent", "subject"]
"""Who wrote a fact last."""


class Fact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is remembered of a subject.

    Attributes:
        id: Stable; kept when the fact is replaced or corrected.
        key: Its name; a subject has one fact of a name.
        text: What is remembered, as it was written: foreign data.
        said: Whether the subject said so; else an agent has concluded it.
        by: Who wrote it last.
        agent: The agent that remembered it.
        session: Where it was remembered.
        turn: Id of that turn; empty once it was corrected by another than an agent.
        version: How often it was written.
        revision: That of the memory with which it was written last.
        created_at: Unix seconds.
        updated_at: Unix seconds.
        expires_at: Unix seconds.
    """

    id: str
    key: str
    text: str
    said: bool = False
    by: FactAuthor = "agent"
    agent: str = ""
    session: str = ""
    turn: str = ""
    version: int = 1
    revision: int
    created_at: float
    updated_at: float
    expires_at: float


class Memory(Struct, frozen=True, omit_defaults=True):
    """All that is remembered of a subject.

    Attributes:
        revision: Increases with each write; 0 if there is nothing.
        facts: In the order in which they were remembered first; some may have expired.
        applied: Idempotency keys of the newest changes, the newest last: a change with one of them
            is not made again.
        ends_at: When the record may be deleted, in Unix seconds.
    """

    revision: int = 0
    facts: tuple[Fact, ...] = ()
    applied: tuple[str, ...] = ()
    ends_at: float = 0.0


class OwnedMemory(Struct, frozen=True):
    """A memory with its owner."""

    owner: Principal
    memory: Memory


class MemoryPage(Struct, frozen=True):
    """Memories of all owners, in an order of the store's own; `cursor` continues, None at the end.

    A page may have fewer than were asked for, even none, although there are more.
    """

    memories: tuple[OwnedMemory, ...]
    cursor: str | None


class Facts(Protocol):
    """The memories in a store. Callers put a deadline around every call.

    `SessionStore.erase` deletes that of a subject; what has expired is deleted in time.

    Every method raises StoreUnavailable when the store cannot answer; what was to be written may
    have been written nevertheless.
    """

    async def read(self, owner: Principal) -> Memory:
        """What is remembered of a subject; an empty memory of revision 0 for nothing."""
        ...

    async def write(self, owner: Principal, memory: Memory, *, expected: int) -> bool:
        """Replace the memory if its revision is `expected` (0: if there is none), durably.

        False if it is another; then nothing is written. Writing the same again succeeds.

        Raises:
            InvalidField: The owner cannot be a name in a store.
            TurnLimitReached: It is too large.
        """
        ...

    async def page(self, *, limit: int, cursor: str | None = None) -> MemoryPage:
        """A page of all memories, to be listed or moved; it reads the whole store.

        Raises:
            InvalidField: The cursor is not one of this store.
        """
        ...
