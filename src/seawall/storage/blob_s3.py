"""The blob store of a fleet: objects in a bucket of S3.

Keys are `uploads/OWNER/NAME` and `sessions/OWNER/SESSION/NAME` behind the configured prefix, so
that a lifecycle rule can expire uploads. OWNER is a digest of tenant and subject. What is known of
a file is in the object's metadata.
"""

import asyncio
import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

import msgspec

from seawall.aws import CredentialsError, find_region
from seawall.aws.credential_cache import CredentialCache, default_chain
from seawall.aws.s3 import S3Client, S3Error, S3Object, S3Refused
from seawall.errors import ConfigError, InvalidField, StorageExhausted, StoreUnavailable
from seawall.settings import BlobSettings
from seawall.storage.blobs import (
    Blob,
    BlobInfo,
    BlobKey,
    BlobPage,
    SessionFiles,
    counted_bytes,
    owner_digest,
)
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import Principal, SessionKey

__all__ = ["S3BlobStore", "open_s3"]

T = TypeVar("T")

_log = logging.getLogger("seawall.attachments")

_INFO = "x-amz-meta-seawall"
_PAGE = 1_000
_AT_ONCE = 8
_MAX_INFO_BYTES = 1_500  # S3 takes 2 KB of metadata, and this is in Base64
_MAX_OBJECT_BYTES = 64 << 20
_BEFORE_ALL = "sessions/"
_own = re.compile(r"(?:uploads/[0-9a-f]{40}|sessions/[0-9a-f]{40}/[A-Za-z0-9_-]+)/[0-9a-f]{32}\Z")


class S3BlobStore:
    """Implements the blob store port in a bucket."""

    def __init__(
        self,
        client: S3Client,
        http: HttpClient,
        credentials: CredentialCache,
        *,
        prefix: str,
        subject_bytes: int,
        seconds: float,
    ) -> None:
        """Create it; opens nothing.

        Args:
            client: Of the bucket.
            http: Its connections, closed with the store.
            credentials: Closed with the store.
            prefix: Beginning of all keys.
            subject_bytes: Stored of one subject, at most.
            seconds: Time limit of one call.
        """
        self._client = client
        self._http = http
        self._credentials = credentials
        self._prefix = prefix
        self._subject_bytes = subject_bytes
        self._seconds = seconds

    async def open(self) -> None:
        """See `BlobStore.open`."""
        try:
            await self._client.list(self._prefix, limit=1, deadline=self._deadline)
        except S3Refused as error:
            raise ConfigError(f"blobs.bucket: cannot be used: {error}") from error
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error

    async def close(self) -> None:
        """See `BlobStore.close`."""
        await self._credentials.close()
        await self._http.close()

    async def put(self, blob: Blob) -> None:
        """See `BlobStore.put`.

        What an owner has is counted before, so that several writes at once may exceed the bound
        by what they write.
        """
        info, owner = blob.info, blob.info.key.owner
        key = msgspec.structs.replace(info.key, owner=Principal(owner.tenant, owner.subject))
        described = msgspec.json.encode(msgspec.structs.replace(info, key=key))
        if len(described) > _MAX_INFO_BYTES:
            raise InvalidField(
                "The names of the file and of its owner are too long together.", field="name"
            )
        place = self._place(info.key)
        try:
            used = 0
            for folder in self._folders(owner):
                used += sum(
                    counted_bytes(each.size)
                    for each in await self._all(folder)
                    if each.key != place
                )
            if used + counted_bytes(info.bytes) > self._subject_bytes:
                raise StorageExhausted(
                    f"There is no room for the file: of you, {self._subject_bytes} bytes."
                )
            headers = {
                "content-type": info.media_type,
                _INFO: urlsafe_b64encode(described).decode(),
            }
            await self._client.put(place, blob.content, headers, deadline=self._deadline)
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error

    async def get(self, key: BlobKey) -> Blob | None:
        """See `BlobStore.get`."""
        try:
            found = await self._client.get(
                self._place(key), limit=_MAX_OBJECT_BYTES, deadline=self._deadline
            )
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        if found is None:
            return None
        info = _info(found[0], key)
        return Blob(info, found[1]) if info is not None else None

    async def find(self, key: BlobKey) -> BlobInfo | None:
        """See `BlobStore.find`."""
        try:
            found = await self._client.head(self._place(key), deadline=self._deadline)
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        return _info(found, key) if found is not None else None

    async def files(
        self, owner: Principal, *, limit: int, after: BlobKey | None = None
    ) -> BlobPage:
        """See `BlobStore.files`."""
        folders = self._folders(owner)
        behind = self._place(after) if after is not None else ""
        first = 1 if after is not None and after.session else 0
        found: list[S3Object] = []
        has_more = False
        try:
            for folder in folders[first:]:
                left = limit - len(found)
                start = behind if behind.startswith(folder) else ""
                page = await self._client.list(
                    folder, limit=max(1, left), after=start, deadline=self._deadline
                )
                found += filter(self._is_own, page.objects[:left])
                has_more = page.truncated or len(page.objects) > left
                if has_more:
                    break
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        return BlobPage(await self._described(owner, found), has_more)

    async def files_of_session(self, key: SessionKey) -> tuple[BlobInfo, ...]:
        """See `BlobStore.files_of_session`."""
        try:
            found = await self._all(self._session(key))
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        return await self._described(Principal(key.tenant, key.subject), found)

    async def delete(self, key: BlobKey) -> bool:
        """See `BlobStore.delete`."""
        if await self.find(key) is None:
            return False
        try:
            await self._client.delete(self._place(key), deadline=self._deadline)
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        return True

    async def delete_session(self, key: SessionKey, *, before: float | None = None) -> int:
        """See `BlobStore.delete_session`."""
        return await self._delete_below(self._session(key), before=before)

    async def erase(self, owner: Principal) -> int:
        """See `BlobStore.erase`."""
        deleted = [await self._delete_below(each) for each in self._folders(owner)]
        return sum(deleted)

    async def expire_uploads(self, before: float, *, limit: int) -> int:
        """See `BlobStore.expire_uploads`; nothing remains of an interrupted write."""
        return await self._delete_below(f"{self._prefix}uploads/", before=before, limit=limit)

    async def sessions(self, *, limit: int, cursor: str | None = None) -> SessionFiles:
        """See `BlobStore.sessions`."""
        folder = f"{self._prefix}{_BEFORE_ALL}"
        if cursor is not None and not cursor.startswith(folder):
            raise InvalidField("Is not a cursor of this store.", field="cursor")
        newest: dict[str, tuple[S3Object, float]] = {}
        after, truncated = cursor or "", True
        try:
            while truncated and len(newest) <= limit:
                page = await self._client.list(folder, after=after, deadline=self._deadline)
                after = page.objects[-1].key if page.objects else after
                for each in filter(self._is_own, page.objects):
                    name = each.key.rpartition("/")[0]
                    first, time = newest.get(name, (each, 0.0))
                    newest[name] = (first, max(time, each.modified_at))
                truncated = page.truncated and bool(page.objects)
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        names = list(newest)[:limit]
        more = f"{names[-1]}/~" if len(newest) > limit else None  # behind all of that session
        made: list[tuple[SessionKey, float]] = []
        for name in names:
            first, time = newest[name]
            owner = await self._owner(first.key)
            if owner is not None:
                session = name.rpartition("/")[2]
                made.append((SessionKey(owner.tenant, owner.subject, session), time))
        return SessionFiles(tuple(made), more)

    @property
    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._seconds

    def _folders(self, owner: Principal) -> tuple[str, str]:
        """The folders of an owner, in the order of a listing of its files."""
        digest = owner_digest(owner.tenant, owner.subject)
        return f"{self._prefix}uploads/{digest}/", f"{self._prefix}{_BEFORE_ALL}{digest}/"

    def _place(self, key: BlobKey) -> str:
        uploads, sessions = self._folders(key.owner)
        return f"{sessions}{key.session}/{key.name}" if key.session else f"{uploads}{key.name}"

    def _session(self, key: SessionKey) -> str:
        return f"{self._folders(Principal(key.tenant, key.subject))[1]}{key.session}/"

    async def _all(self, prefix: str) -> list[S3Object]:
        return [each async for page in self._pages(prefix) for each in page]

    async def _pages(self, prefix: str) -> AsyncGenerator[list[S3Object], None]:
        after, truncated = "", True
        while truncated:
            page = await self._client.list(
                prefix, limit=_PAGE, after=after, deadline=self._deadline
            )
            yield list(filter(self._is_own, page.objects))
            truncated = page.truncated and bool(page.objects)
            after = page.objects[-1].key if page.objects else ""

    def _is_own(self, found: S3Object) -> bool:
        """Whether this program has stored it; others are left alone, and do not end a sweep."""
        return _own.match(found.key, len(self._prefix)) is not None

    async def _described(
        self, owner: Principal, objects: Sequence[S3Object]
    ) -> tuple[BlobInfo, ...]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def describe(each: S3Object) -> BlobInfo | None:
            rest, _, name = each.key.rpartition("/")
            of_upload = each.key.startswith(f"{self._prefix}uploads/")
            session = "" if of_upload else rest.rpartition("/")[2]
            async with gate:
                return await self.find(BlobKey(owner, session, name))

        made = await _all_done([describe(each) for each in objects])
        return tuple(each for each in made if each is not None)

    async def _delete_below(
        self, prefix: str, *, before: float | None = None, limit: int | None = None
    ) -> int:
        """Delete objects page by page, so that a call that is interrupted has done something."""
        deleted = 0
        try:
            async with aclosing(self._pages(prefix)) as pages:
                async for page in pages:
                    old = [each.key for each in page if before is None or each.modified_at < before]
                    left = len(old) if limit is None else limit - deleted
                    deleted += await self._delete(old[:left])
                    if deleted == limit:
                        break
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        return deleted

    async def _delete(self, keys: Sequence[str]) -> int:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def delete(key: str) -> None:
            async with gate:
                await self._client.delete(key, deadline=self._deadline)

        await _all_done([delete(each) for each in keys])
        return len(keys)

    async def _owner(self, key: str) -> Principal | None:
        try:
            headers = await self._client.head(key, deadline=self._deadline)
        except S3Error as error:
            raise StoreUnavailable(f"The store of files failed: {error}") from error
        info = _decoded(headers) if headers is not None else None
        return info.key.owner if info is not None else None


async def _all_done(calls: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """What the calls return; the first failure as it is, when all others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [each.result() for each in tasks]


def _info(headers: Mapping[str, str], key: BlobKey) -> BlobInfo | None:
    """What the metadata says, if it is of this file."""
    info = _decoded(headers)
    return info if info is not None and info.key == key else None


def _decoded(headers: Mapping[str, str]) -> BlobInfo | None:
    try:
        return msgspec.json.decode(urlsafe_b64decode(headers.get(_INFO, "")), type=BlobInfo)
    except (ValueError, msgspec.DecodeError):
        _log.warning("an object in the bucket of files was not stored by this program")
        return None


def open_s3(settings: BlobSettings, environment: Mapping[str, str]) -> S3BlobStore:
    """The store of these settings, not yet open.

    Args:
        settings: Of the bucket.
        environment: Where region and credentials are found.

    Raises:
        ConfigError: The settings are wrong.
    """
    try:
        region = find_region(environment, settings.region)
    except (ValueError, CredentialsError) as error:
        raise ConfigError(f"blobs.region: {error}") from error
    if not region:
        raise ConfigError("blobs.region: not set, neither here nor as AWS_REGION")
    http = HttpClient(max_connections=settings.connections)
    if settings.ca_file:
        from seawall.transport.tls import tls_context  # noqa: PLC0415 - only if configured

        context = tls_context(settings.ca_file, key="blobs.ca_file")
        http.trust(Endpoint.parse(settings.endpoint).origin, context)
    credentials = CredentialCache(default_chain(environment, http, region=region))
    try:
        client = S3Client(
            http,
            credentials,
            settings.bucket,
            region=region,
            endpoint=settings.endpoint,
            path_style=settings.path_style,
        )
    except ValueError as error:
        raise ConfigError(f"blobs.endpoint: {error}") from error
    return S3BlobStore(
        client,
        http,
        credentials,
        prefix=settings.prefix,
        subject_bytes=settings.subject_bytes,
        seconds=settings.seconds,
    )
