"""Bytes of attachments for calls of models, within the memory that all turns share."""

import asyncio
from collections.abc import Sequence

from seawall.attachments.memory import MemoryShare
from seawall.errors import DeadlineExceeded
from seawall.storage.blobs import BlobStore, key_of
from seawall.turn import Attachment, Principal

__all__ = ["AttachmentContents"]

_COPIES = 5  # bytes, Base64, JSON, the request with its head, what is being sent


class _Loaded:
    """Implements `LoadedContents`."""

    __slots__ = ("_memory", "_taken", "found")

    def __init__(self, memory: MemoryShare, taken: int) -> None:
        self.found: dict[str, bytes] = {}
        self._memory = memory
        self._taken = taken

    def release(self) -> None:
        """See `LoadedContents.release`."""
        self.found = {}
        taken, self._taken = self._taken, 0
        if taken:
            self._memory.release(taken)


class AttachmentContents:
    """Implements `Contents` for the attachments of one owner."""

    __slots__ = ("_memory", "_owner", "_seconds", "_store")

    def __init__(
        self, store: BlobStore, memory: MemoryShare, owner: Principal, seconds: float
    ) -> None:
        """Create it; loads nothing.

        Args:
            store: Has the files.
            memory: Of all turns.
            owner: Whose files.
            seconds: Time limit of the store.
        """
        self._store = store
        self._memory = memory
        self._owner = owner
        self._seconds = seconds

    async def load(self, attachments: Sequence[Attachment], *, deadline: float) -> _Loaded:
        """See `Contents.load`."""
        clock = asyncio.get_running_loop().time
        total = sum(each.bytes for each in attachments)
        left = max(0.0, deadline - clock())
        taken = await self._memory.acquire(_COPIES * total, seconds=left) if total else 0
        loaded = _Loaded(self._memory, taken)
        try:
            async with asyncio.timeout_at(min(deadline, clock() + self._seconds)):
                for each in attachments:
                    key = key_of(self._owner, each.id)
                    found = await self._store.get(key) if key is not None else None
                    if found is not None:
                        loaded.found[each.id] = found.content
        except BaseException as error:
            loaded.release()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    "The files of the conversation could not be loaded in time.", field="files"
                ) from error
            raise
        return loaded
