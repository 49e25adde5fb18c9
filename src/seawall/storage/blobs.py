"""The blob store port: files of customers, which sessions refer to by id.

A file is an upload, until it expires, or belongs to a session, as long as that exists. A turn that
uses an upload gets a copy in its session. So nothing is counted: a session's files are deleted with
it, and files of sessions that do not exist any more, or never came to exist, are found by a sweep.

An id is "file-" with the session's id, a dot and the file's name; that of an upload is without
session and dot. Names are hexadecimal digits that clients do not choose. Where a file is stored
contains a digest of tenant and subject: no id leads to a file of another owner.
"""

import hashlib
import os
import re
from typing import Protocol

from msgspec import Struct

from seawall.turn import Principal, SessionKey

__all__ = [
    "Blob",
    "BlobInfo",
    "BlobKey",
    "BlobPage",
    "BlobStore",
    "SessionFiles",
    "counted_bytes",
    "key_of",
    "new_name",
    "owner_digest",
]

_LEAST_BYTES = 16_384  # a block, an entry of a folder and a row; in a bucket, requests

_id = re.compile(r"file-(?:([A-Za-z0-9_-]{1,64})\.)?([0-9a-f]{32})\Z")


class BlobKey(Struct, frozen=True):
    """The key of a file. It contains the owner, so it cannot name a file of another one.

    Attributes:
        owner: Tenant and subject.
        session: Id of the session; empty for an upload.
        name: 32 hexadecimal digits.
    """

    owner: Principal
    session: str
    name: str

    @property
    def id(self) -> str:
        """As clients know it."""
        return f"file-{self.session}.{self.name}" if self.session else f"file-{self.name}"


class BlobInfo(Struct, frozen=True, kw_only=True):
    """What is known of a file without its bytes.

    Attributes:
        key: Its key.
        media_type: Found from its bytes.
        name: As the client calls it.
        bytes: Size.
        tokens: About how many tokens a model reads for it.
        created_at: Unix seconds.
    """

    key: BlobKey
    media_type: str
    name: str
    bytes: int
    tokens: int
    created_at: float


class Blob(Struct, frozen=True):
    """A file with its bytes."""

    info: BlobInfo
    content: bytes


class BlobPage(Struct, frozen=True):
    """Files of an owner: uploads, then those of sessions."""

    files: tuple[BlobInfo, ...]
    has_more: bool


class SessionFiles(Struct, frozen=True):
    """Sessions that have files, and when the newest file of each was stored, in Unix seconds."""

    sessions: tuple[tuple[SessionKey, float], ...]
    cursor: str | None


class BlobStore(Protocol):
    """Durable files. Callers put a deadline around every call.

    Every method raises StoreUnavailable when the store cannot answer.
    """

    async def open(self) -> None:
        """Connect, create what is missing. Called once, before anything else."""
        ...

    async def close(self) -> None:
        """Finish accepted work, release everything."""
        ...

    async def put(self, blob: Blob) -> None:
        """Store a file, durably and completely or not at all; one of this key is replaced.

        Raises:
            StorageExhausted: It does not fit into what may be stored of its owner, or of all.
        """
        ...

    async def get(self, key: BlobKey) -> Blob | None:
        """The file; None if there is none."""
        ...

    async def find(self, key: BlobKey) -> BlobInfo | None:
        """What is known of the file; None if there is none."""
        ...

    async def files(
        self, owner: Principal, *, limit: int, after: BlobKey | None = None
    ) -> BlobPage:
        """A page of the owner's files, behind one of them."""
        ...

    async def files_of_session(self, key: SessionKey) -> tuple[BlobInfo, ...]:
        """All files of a session."""
        ...

    async def delete(self, key: BlobKey) -> bool:
        """Delete the file; False if there is none."""
        ...

    async def delete_session(self, key: SessionKey, *, before: float | None = None) -> int:
        """Delete the files of a session; their number.

        Args:
            key: The session.
            before: Only those stored before, in Unix seconds; None for all.
        """
        ...

    async def erase(self, owner: Principal) -> int:
        """Delete all files of an owner; their number."""
        ...

    async def expire_uploads(self, before: float, *, limit: int) -> int:
        """Delete uploads, and remains of interrupted writes, that are older; their number.

        Args:
            before: Unix seconds.
            limit: Uploads, at most; if there are fewer, none is left.
        """
        ...

    async def sessions(self, *, limit: int, cursor: str | None = None) -> SessionFiles:
        """A page of the sessions, of all owners, that have files."""
        ...


def key_of(owner: Principal, file: str) -> BlobKey | None:
    """The key of an id; None if it is not an id.

    Args:
        owner: Who asks: a file of another owner does not exist for it.
        file: The id.
    """
    found = _id.match(file)
    return BlobKey(owner, found[1] or "", found[2]) if found else None


def counted_bytes(size: int) -> int:
    """What a file counts of the bytes that an owner may have: small ones are bounded in number."""
    return max(size, _LEAST_BYTES)


def new_name() -> str:
    """A name for an upload, which cannot be guessed."""
    return os.urandom(16).hex()


def owner_digest(tenant: str, subject: str) -> str:
    """The digest of an owner under which files are stored: SHA-256, the first 40 digits."""
    owner = f"{tenant}\0{subject}".encode("utf-8", "replace")
    return hashlib.sha256(owner).hexdigest()[:40]
