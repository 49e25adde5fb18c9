"""Promised turns that nobody runs any more: looking for them, and doing them here.

Every server does so, at its own pace; whoever claims a turn first runs it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from seawall.errors import Problem, TurnAbandoned
from seawall.pipeline.leases import record_job_failure
from seawall.pipeline.live import LiveTurn
from seawall.storage.port import BackgroundJob, SessionStore
from seawall.storage.settings import SessionSettings

__all__ = ["OrphanRecovery"]

_log = logging.getLogger("seawall.turns")
_MAX_RECOVERED = 8
_SCAN_SECONDS = 5.0


class OrphanRecovery:
    """The task that looks, of one process.

    run: starts a turn that was claimed. busy: whether it would have to wait for a place.
    """

    def __init__(
        self,
        store: SessionStore,
        settings: SessionSettings,
        *,
        run: Callable[[BackgroundJob], LiveTurn],
        busy: Callable[[], bool],
    ) -> None:
        self._store = store
        self._settings = settings
        self._run = run
        self._busy = busy
        self._recovered: list[LiveTurn] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, where that is configured."""
        if self._settings.orphan_scan_seconds and self._settings.lease_seconds:
            self._task = asyncio.create_task(self._scan_periodically())

    async def stop(self) -> None:
        """Take nothing more; what was taken goes on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def recover_orphaned_turns(self) -> None:
        """Take over what nobody runs, as far as there is room, and give up what is beyond hope.

        Raises:
            Problem: the store could not be asked.
        """
        self._recovered = [each for each in self._recovered if not each.finished]
        room = _MAX_RECOVERED - len(self._recovered)
        if room <= 0:
            return
        for background_job in await self._store.orphaned_jobs(limit=room):
            if reason := self._reason_to_abandon(background_job):
                _log.error("turn %s is given up: %s", background_job.request.id, reason)
                await record_job_failure(self._store, background_job, TurnAbandoned(reason))
                continue
            if self._busy():
                return
            until = time.time() + self._settings.lease_seconds
            claimed = await self._store.claim(background_job, until=until)
            if claimed is not None:
                _log.warning("turn %s goes on, attempt %d", claimed.request.id, claimed.attempt)
                self._recovered.append(self._run(claimed))

    async def _scan_periodically(self) -> None:
        while True:
            # Not on the beat: servers that were started together should not ask together.
            pause = self._settings.orphan_scan_seconds * random.uniform(0.5, 1.5)  # noqa: S311
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(_SCAN_SECONDS):
                    await self.recover_orphaned_turns()
            except (Problem, TimeoutError) as error:
                _log.warning("turns that nobody runs could not be looked for: %r", error)
            except Exception:  # noqa: BLE001 - a defect here must not end the looking
                _log.exception("looking for turns that nobody runs failed")

    def _reason_to_abandon(self, background_job: BackgroundJob) -> str:
        """Why it is not tried again; empty when it is."""
        settings = self._settings
        if time.time() >= background_job.ends_at:
            return f"The turn was not done within {settings.background_seconds:g} s."
        tried = background_job.attempt - background_job.handed
        if tried >= settings.background_attempts:
            return f"The turn was interrupted {tried} times."
        return ""
