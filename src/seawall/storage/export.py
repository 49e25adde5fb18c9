"""Export of a subject's data, session by session, and of its files, from any store."""

import asyncio
from collections.abc import AsyncGenerator

from msgspec import Struct

from seawall.errors import SessionNotFound
from seawall.storage.blobs import BlobKey, BlobPage, BlobStore
from seawall.storage.port import Session, SessionStore
from seawall.turn import Principal, SessionKey, TurnRecord

__all__ = ["Export", "ExportedFile", "export_files", "export_session", "export_subject"]

_PAGE = 100
_CALL_SECONDS = 30.0


class Export(Struct, frozen=True):
    """A session with all its turns, oldest first: an `Archive` without idempotency keys."""

    session: Session
    turns: tuple[TurnRecord, ...]


class ExportedFile(Struct, frozen=True):
    """A file with its bytes, which are Base64 in JSON; `session` is empty for an upload."""

    file: str
    session: str
    media_type: str
    name: str
    created_at: float
    content: bytes


async def export_files(
    blobs: BlobStore, owner: Principal, session: str | None = None
) -> AsyncGenerator[ExportedFile, None]:
    """Files of a subject, one at a time.

    Args:
        blobs: Open.
        owner: The subject.
        session: Only those of this session; None for all.

    Raises:
        StoreUnavailable: the store cannot answer.
        TimeoutError: it did not within 30 s.
    """
    after: BlobKey | None = None
    while True:
        async with asyncio.timeout(_CALL_SECONDS):
            if session is not None:
                key = SessionKey(owner.tenant, owner.subject, session)
                page = BlobPage(await blobs.files_of_session(key), has_more=False)
            else:
                page = await blobs.files(owner, limit=_PAGE, after=after)
        for each in page.files:
            async with asyncio.timeout(_CALL_SECONDS):
                found = await blobs.get(each.key)
            if found is not None:  # else it was deleted since it was listed
                info = found.info
                yield ExportedFile(
                    info.key.id,
                    info.key.session,
                    info.media_type,
                    info.name,
                    info.created_at,
                    found.content,
                )
        if not page.has_more or not page.files:
            return
        after = page.files[-1].key


async def export_subject(store: SessionStore, owner: Principal) -> AsyncGenerator[Export, None]:
    """All sessions of a subject, the one opened last first.

    Args:
        store: Open.
        owner: The subject.

    Raises:
        StoreUnavailable: the store cannot answer.
        TimeoutError: it did not within 30 s.
    """
    cursor = None
    while True:
        async with asyncio.timeout(_CALL_SECONDS):
            page = await store.sessions(owner, limit=_PAGE, cursor=cursor)
        for session in page.sessions:
            try:
                yield await export_session(store, session.key)
            except SessionNotFound:
                continue  # deleted, or expired, since it was listed
        cursor = page.cursor
        if cursor is None:
            return


async def export_session(store: SessionStore, key: SessionKey) -> Export:
    """One session as it is at the first read; later turns are left out.

    Args:
        store: Open.
        key: The session.

    Raises:
        SessionNotFound: there is no such session for this tenant and subject.
        StoreUnavailable: the store cannot answer.
        TimeoutError: it did not within 30 s.
    """
    session: Session | None = None
    turns: list[TurnRecord] = []
    cursor = None
    while True:
        async with asyncio.timeout(_CALL_SECONDS):
            page = await store.turns(key, limit=_PAGE, cursor=cursor)
        session = session or page.session
        turns += page.turns
        cursor = page.cursor
        if cursor is None:
            break
    turns = [turn for turn in turns if turn.number <= session.version]
    return Export(session, tuple(reversed(turns)))
