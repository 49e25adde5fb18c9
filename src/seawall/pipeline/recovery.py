"""Recovery of orphaned turns: background turns whose process is gone are claimed and run here.

Every server scans at its own pace; the first to claim a turn runs it. The same scan finds
notifications that have not arrived. A process that is frozen between requests scans after them.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from seawall.errors import Problem, TurnAbandoned
from seawall.pipeline.leases import record_job_failure
from seawall.pipeline.live import LiveTurn
from seawall.settings import SessionSettings
from seawall.storage.port import BackgroundJob, SessionStore

if TYPE_CHECKING:
    from seawall.pipeline.delivery import NotificationDelivery

__all__ = ["OrphanRecovery"]

_log = logging.getLogger("seawall.turns")
_MAX_RECOVERED = 8
_SCAN_SECONDS = 5.0
_MIN_TURN_SECONDS = 5.0


class OrphanRecovery:
    """The recovery task of one process."""

    def __init__(
        self,
        store: SessionStore,
        settings: SessionSettings,
        *,
        run: Callable[[BackgroundJob], LiveTurn],
        busy: Callable[[], bool],
        notifications: "NotificationDelivery | None" = None,
    ) -> None:
        """Create the task; `start` starts it.

        Args:
            store: The session store.
            settings: Of sessions.
            run: Starts a turn that was claimed.
            busy: Whether a turn would have to wait for an admission slot.
            notifications: Delivers those that are due; None without hand-overs.
        """
        self._store = store
        self._settings = settings
        self._run = run
        self._busy = busy
        self._notifications = notifications
        self._next_scan = 0.0
        self._recovered: list[LiveTurn] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to scan, if it is configured."""
        if self._settings.orphan_scan_seconds and self._settings.lease_seconds:
            self._task = asyncio.create_task(self._scan_periodically())

    async def stop(self) -> None:
        """Claim no more turns; those in progress continue."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def scan(self) -> None:
        """Deliver the notifications that are due, and recover orphaned turns.

        A failure of the store is logged.
        """
        await self._logged(turns=True)

    async def scan_if_due(self, seconds: float) -> None:
        """Scan in a process that is frozen afterwards, unless it has just scanned.

        Args:
            seconds: How long the process has before; if it is short, no turn is begun.
        """
        interval = self._settings.orphan_scan_seconds
        if not (interval and self._settings.lease_seconds) or time.time() < self._next_scan:
            return
        self._next_scan = time.time() + interval
        await self._logged(turns=seconds >= _MIN_TURN_SECONDS)

    async def _logged(self, *, turns: bool) -> None:
        try:
            async with asyncio.timeout(_SCAN_SECONDS):
                if self._notifications is not None:
                    await self._notifications.deliver_due()
                if turns:
                    await self.recover_orphaned_turns()
        except (Problem, TimeoutError) as error:
            _log.warning("orphan scan failed: %r", error)
        except Exception:  # noqa: BLE001 - a defect must not end the task
            _log.exception("orphan scan failed")

    async def recover_orphaned_turns(self) -> None:
        """Claim and run orphaned turns, up to a limit, and abandon those that cannot be done.

        Raises:
            Problem: the store failed.
        """
        self._recovered = [each for each in self._recovered if not each.finished]
        room = _MAX_RECOVERED - len(self._recovered)
        if room <= 0:
            return
        for job in await self._store.orphaned_jobs(limit=room):
            if reason := self._reason_to_abandon(job):
                _log.error("abandoned turn %s: %s", job.request.id, reason)
                await record_job_failure(self._store, job, TurnAbandoned(reason))
                continue
            if self._busy():
                return
            until = time.time() + self._settings.lease_seconds
            claimed = await self._store.claim_job(job, until=until)
            if claimed is not None:
                _log.warning("recovered turn %s, attempt %d", claimed.request.id, claimed.attempt)
                self._recovered.append(self._run(claimed))

    async def _scan_periodically(self) -> None:
        while True:
            # With jitter: servers that were started together should not scan together.
            pause = self._settings.orphan_scan_seconds * random.uniform(0.5, 1.5)  # noqa: S311
            await asyncio.sleep(pause)
            await self.scan()

    def _reason_to_abandon(self, job: BackgroundJob) -> str:
        """Why a turn is not retried; empty if it is."""
        settings = self._settings
        if time.time() >= job.ends_at:
            return f"The turn was not done within {settings.background_seconds:g} s."
        tried = job.attempt - job.handovers
        if tried >= settings.background_attempts:
            return f"The turn was interrupted {tried} times."
        return ""
