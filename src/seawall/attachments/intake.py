"""What takes files of customers: checks them, stores them, and finds them again."""

import asyncio
import binascii
import hashlib
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from seawall.attachments.checker import Checker
from seawall.attachments.media import kept_name
from seawall.attachments.memory import MemoryShare
from seawall.attachments.owner_locks import OwnerLocks
from seawall.attachments.sweep import LEAST_GRACE_SECONDS
from seawall.errors import (
    DeadlineExceeded,
    InvalidField,
    Overloaded,
    UnknownFile,
)
from seawall.settings import AttachmentSettings, BlobSettings
from seawall.storage.blobs import (
    Blob,
    BlobInfo,
    BlobKey,
    BlobPage,
    BlobStore,
    key_of,
    new_name,
)
from seawall.turn import Attachment, Principal

__all__ = ["Attachments"]

_COPIES = 2  # as it was sent, and as it is stored
_TRANSFER_SECONDS = 60.0
_PAGE = 100
_MAX_FILES = 32  # of one request, with those of a history that the client keeps


class Attachments:
    """Takes files, within their bounds."""

    def __init__(
        self,
        store: BlobStore,
        checker: Checker,
        memory: MemoryShare,
        settings: AttachmentSettings,
        blobs: BlobSettings,
    ) -> None:
        """Create it over an open store.

        Args:
            store: Where files are stored.
            checker: Checks files in a process of its own.
            memory: Bounds the bytes of files in memory.
            settings: Bounds of files.
            blobs: Bounds of the store.
        """
        self.store = store
        self.settings = settings
        self._checker = checker
        self._memory = memory
        self._blobs = blobs
        self._owners = OwnerLocks()
        most = max(settings.in_flight_bytes * 3 // 4, _COPIES * settings.max_bytes)
        self._transfers = MemoryShare(most)

    def check_count(self, in_message: int, in_request: int, field: str) -> None:
        """Check how many files there are.

        Args:
            in_message: Of one message.
            in_request: Of the request.
            field: Of the last one.

        Raises:
            InvalidField: Too many.
        """
        if in_message > self.settings.per_message:
            raise InvalidField(
                f"A message may have {self.settings.per_message} files at most.", field=field
            )
        if in_request > _MAX_FILES:
            raise InvalidField(f"A request may have {_MAX_FILES} files at most.", field=field)

    def check_together(self, attachments: Sequence[Attachment], field: str) -> None:
        """Check that the files of a message can be shown together.

        Args:
            attachments: Of one message.
            field: Of the last one.

        Raises:
            InvalidField: They are too large together.
        """
        total = sum(each.bytes for each in attachments)
        if total > self.settings.shown_bytes:
            raise InvalidField(
                f"The files of a message may have {self.settings.shown_bytes} bytes together; "
                f"these have {total}.",
                field=field,
            )

    async def attach(
        self, owner: Principal, session: str, *, data: str, file: str, name: str, field: str
    ) -> Attachment:
        """Make a file part of a session.

        Args:
            owner: Tenant and subject.
            session: Id of the session; empty for an upload, which every message may have.
            data: The bytes in Base64; empty with `file`.
            file: Id of an upload, or of a file of this session.
            name: As the client calls it.
            field: Its path in the body, for errors.

        Raises:
            InvalidField: The file is not accepted.
            UnknownFile: There is no such file for this owner.
            StorageExhausted: There is no room for it.
        """
        if file:
            return await self._claim(owner, session, file, field)
        if len(data) > 4 * self.settings.max_bytes // 3 + 4:
            raise self._too_large(field)
        async with self.holding(len(data)):
            try:
                content = await asyncio.to_thread(b64decode, data, validate=True)
            except (binascii.Error, ValueError) as error:
                raise InvalidField("Is not Base64.", field=field) from error
            return await self.attach_content(owner, session, content, name=name, field=field)

    async def attach_content(
        self, owner: Principal, session: str, content: bytes, *, name: str, field: str
    ) -> Attachment:
        """Make the bytes of a file part of a session, as `attach`, for who has them in memory."""
        # The same file of the same message again, as in a retry, gets the same id.
        digest = await asyncio.to_thread(_digest, content, name)
        key = BlobKey(owner, session, digest)
        async with self._limit():
            known = await self._find(key)
        if known is None or (known := await self._kept(known)) is None:
            known = await self._store(key, content, name, field)
        return _attachment(known)

    async def upload(self, owner: Principal, content: bytes, name: str, field: str) -> BlobInfo:
        """Store an upload.

        Args:
            owner: Tenant and subject.
            content: Its bytes, which the caller counts as held in memory.
            name: As the client calls it.
            field: For errors.

        Raises:
            InvalidField: The file is not accepted.
            StorageExhausted: There is no room for it.
        """
        return await self._store(BlobKey(owner, "", new_name()), content, name, field)

    @asynccontextmanager
    async def holding(self, size: int | None) -> AsyncGenerator[None, None]:
        """The memory for one file; held while the block runs.

        Args:
            size: Bytes of the file; None for the largest that is accepted.

        Raises:
            Overloaded: There is none.
        """
        async with self._memory.held(self._amount(size), seconds=self._blobs.seconds):
            yield

    @asynccontextmanager
    async def transferring(self, owner: Principal, size: int | None) -> AsyncGenerator[None, None]:
        """The memory for a file while its client sends or reads it, as slowly as it likes.

        Each owner transfers one file at a time, and all of them leave a quarter of the memory to
        turns: slow clients delay each other, and not the conversations.

        Args:
            owner: The client.
            size: As of `holding`.

        Raises:
            Overloaded: There is none.
        """
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(_TRANSFER_SECONDS):
                    await held.enter_async_context(self._owners.held(owner))
            except TimeoutError as error:
                raise Overloaded(
                    "Another file of yours is being sent or read.", retry_after=2.0
                ) from error
            transfer = self._transfers.held(self._amount(size), seconds=self._blobs.seconds)
            await held.enter_async_context(transfer)
            await held.enter_async_context(self.holding(size))
            yield

    async def find(self, owner: Principal, file: str) -> BlobInfo:
        """What is known of a file.

        Raises:
            UnknownFile: There is no such file for this owner.
        """
        key = _key(owner, file)
        async with self._limit():
            found = await self._find(key)
        if found is None:
            raise UnknownFile("There is no such file.", field="file")
        return found

    async def content(self, owner: Principal, file: str) -> Blob:
        """A file with its bytes, for who holds the memory for it.

        Raises:
            UnknownFile: There is no such file for this owner.
        """
        async with self._limit():
            found = await self.store.get(_key(owner, file))
        if found is None:
            raise UnknownFile("There is no such file.", field="file")
        return found

    async def files(self, owner: Principal, *, limit: int, after: str | None) -> BlobPage:
        """A page of the owner's files, without expired ones; see `BlobStore.files`.

        Args:
            owner: Whose files.
            limit: Of one page.
            after: Id of the file behind which it begins; None for the first.

        Raises:
            InvalidField: That is not an id.
        """
        key = None if after is None else key_of(owner, after)
        if after is not None and key is None:
            raise InvalidField("Must be the id of a file.", field="after")
        async with self._limit():
            asked = limit
            while True:
                page = await self.store.files(owner, limit=asked, after=key)
                kept = tuple(each for each in page.files if not self._expired(each))
                if kept or not page.has_more or not page.files:
                    return BlobPage(kept[:limit], page.has_more or len(kept) > limit)
                key = page.files[-1].key  # or a client would take this page for the last one
                asked = max(limit, _PAGE)

    async def delete(self, owner: Principal, file: str) -> None:
        """Delete a file; messages that have it name it from then on.

        Raises:
            UnknownFile: There is no such file for this owner.
        """
        async with self._limit():
            if not await self.store.delete(_key(owner, file)):
                raise UnknownFile("There is no such file.", field="file")

    def expires_at(self, info: BlobInfo) -> float | None:
        """When an upload expires, in Unix seconds; None for a file of a session."""
        return None if info.key.session else info.created_at + self._blobs.upload_seconds

    async def close(self) -> None:
        """Close the store and end the process that checks files."""
        await self._checker.close()
        await self.store.close()

    def _amount(self, size: int | None) -> int:
        most = self.settings.max_bytes
        return _COPIES * (most if size is None else min(size, most))

    async def _claim(self, owner: Principal, session: str, file: str, field: str) -> Attachment:
        """Copy an upload into a session."""
        key = key_of(owner, file)
        if key is None or key.session not in ("", session):
            raise UnknownFile("There is no such upload.", field=field)
        target = BlobKey(owner, session, key.name)
        async with self._limit():
            known = await self._find(target)
        if known is not None:
            async with self.holding(known.bytes):
                known = await self._kept(known)
        async with self._limit():
            sent = await self._find(key) if known is None and not key.session else None
        if sent is not None:
            async with self.holding(sent.bytes), self._limit():
                upload = await self.store.get(key)
                if upload is not None:
                    known = _renamed(upload.info, target)
                    await self.store.put(Blob(known, upload.content))
        if known is None:
            raise UnknownFile("There is no such upload; it may have expired.", field=field)
        return _attachment(known)

    async def _find(self, key: BlobKey) -> BlobInfo | None:
        """What is known of a file that has not expired."""
        found = await self.store.find(key)
        return None if found is None or self._expired(found) else found

    async def _kept(self, known: BlobInfo) -> BlobInfo | None:
        """A file that is used again; None if it has just been deleted.

        It may be that of a session that has expired, or never came to exist, and that begins now:
        stored anew, it is not swept before the turn is committed. So is an upload of a history that
        its client keeps.
        """
        fresh = min(LEAST_GRACE_SECONDS, self._blobs.upload_seconds) / 2
        if known.created_at > time.time() - fresh:
            return known
        async with self._limit():
            found = await self.store.get(known.key)
            if found is None:
                return None
            known = _renamed(found.info, known.key)
            await self.store.put(Blob(known, found.content))
        return known

    async def _store(self, key: BlobKey, content: bytes, name: str, field: str) -> BlobInfo:
        if len(content) > self.settings.max_bytes:
            raise self._too_large(field)
        checked = await self._checker.check(content, field, key.owner)
        info = BlobInfo(
            key=key,
            media_type=checked.media_type,
            name=kept_name(name),
            bytes=len(checked.content),
            tokens=checked.tokens,
            created_at=time.time(),
        )
        async with self._limit():
            await self.store.put(Blob(info, checked.content))
        return info

    def _too_large(self, field: str) -> InvalidField:
        most = self.settings.max_bytes
        return InvalidField(f"The file is too large: at most {most} bytes.", field=field)

    def _expired(self, info: BlobInfo) -> bool:
        expires_at = self.expires_at(info)
        return expires_at is not None and expires_at <= time.time()

    @asynccontextmanager
    async def _limit(self) -> AsyncGenerator[None, None]:
        seconds = self._blobs.seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The store of files did not answer after {seconds:g} s.", field="files"
            ) from error


def _digest(content: bytes, name: str) -> str:
    return hashlib.sha256(content + b"\0" + name.encode("utf-8", "replace")).hexdigest()[:32]


def _key(owner: Principal, file: str) -> BlobKey:
    key = key_of(owner, file)
    if key is None:
        raise UnknownFile("There is no such file.", field="file")
    return key


def _renamed(info: BlobInfo, key: BlobKey) -> BlobInfo:
    return BlobInfo(
        key=key,
        media_type=info.media_type,
        name=info.name,
        bytes=info.bytes,
        tokens=info.tokens,
        created_at=time.time(),
    )


def _attachment(info: BlobInfo) -> Attachment:
    return Attachment(info.key.id, info.media_type, info.name, info.bytes, info.tokens)
