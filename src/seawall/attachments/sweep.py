"""Expiry of files: uploads that no turn has used, and files of sessions that do not exist.

A session's files are deleted with it. What is left is found here: files of sessions that have
expired, and of those that never came to exist, because their first turn failed or its process was
killed between the upload and the commit.
"""

import asyncio
import logging
import random
import time
from contextlib import suppress

from seawall.errors import Problem
from seawall.storage.blobs import BlobStore
from seawall.storage.port import SessionStore

__all__ = ["LEAST_GRACE_SECONDS", "FileSweep"]

_log = logging.getLogger("seawall.attachments")

_PAGE = 200
_UPLOADS = 1_000  # deleted at once
_CALL_SECONDS = 60.0
_PAUSE_SECONDS = 0.05  # between two pages
LEAST_GRACE_SECONDS = 3_600.0
"""So long after its newest file was stored, a session may not exist yet."""


class FileSweep:
    """The task of one process that deletes what has expired."""

    def __init__(
        self,
        blobs: BlobStore,
        sessions: SessionStore,
        *,
        every_seconds: float,
        upload_seconds: float,
        grace_seconds: float,
    ) -> None:
        """Create the task; `start` starts it.

        Args:
            blobs: The store of files.
            sessions: The session store.
            every_seconds: Between two sweeps, with jitter; 0 for never.
            upload_seconds: How long an upload is kept.
            grace_seconds: How long after its newest file a session may not exist yet.
        """
        self._blobs = blobs
        self._sessions = sessions
        self._every = every_seconds
        self._upload_seconds = upload_seconds
        self._grace = max(grace_seconds, LEAST_GRACE_SECONDS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to sweep, if it is configured."""
        if self._every:
            self._task = asyncio.create_task(self._sweep_periodically())

    async def stop(self) -> None:
        """End the task."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def sweep(self, now: float) -> int:
        """Delete what has expired; the number of files.

        Args:
            now: Unix seconds.

        Raises:
            Problem: A store has failed.
            TimeoutError: A store did not answer.
        """
        deleted, before = 0, now - self._upload_seconds
        while True:
            async with asyncio.timeout(_CALL_SECONDS):
                expired = await self._blobs.expire_uploads(before, limit=_UPLOADS)
            deleted += expired
            if expired < _UPLOADS:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        cursor: str | None = None
        while True:
            async with asyncio.timeout(_CALL_SECONDS):
                page = await self._blobs.sessions(limit=_PAGE, cursor=cursor)
            for key, newest in page.sessions:
                if newest > now - self._grace:
                    continue
                async with asyncio.timeout(_CALL_SECONDS):
                    snapshot = await self._sessions.load(key, turns=0)
                    if snapshot.session is None:
                        # A turn that begins now stores anew what it uses: see `Attachments`.
                        deleted += await self._blobs.delete_session(key, before=now - self._grace)
            cursor = page.cursor
            if cursor is None:
                return deleted
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _sweep_periodically(self) -> None:
        while True:
            # With jitter: servers that were started together should not sweep together.
            await asyncio.sleep(self._every * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                deleted = await self.sweep(time.time())
            except (Problem, TimeoutError) as error:
                _log.warning("expired files were not deleted: %r", error)
            except Exception:  # noqa: BLE001 - a defect must not end the task
                _log.exception("expired files were not deleted")
            else:
                if deleted:
                    _log.info("deleted %d expired files", deleted)
