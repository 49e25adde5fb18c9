"""Promised turns that nobody runs any more: looking for them, and doing them here.

Every server does so, at its own pace; whoever claims a turn first runs it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from seawall.errors import Overloaded, Problem, TurnAbandoned
from seawall.pipeline.holding import fail_promise
from seawall.pipeline.live import LiveTurn
from seawall.sessions.port import Pending, SessionStore
from seawall.sessions.settings import SessionSettings

__all__ = ["Resuming"]

_log = logging.getLogger("seawall.turns")
_MOST = 8
_LOOK_SECONDS = 5.0


class Resuming:
    """The task that looks, of one process.

    run: starts a turn that was claimed. check: raises Overloaded where there is no room for one.
    """

    def __init__(
        self,
        store: SessionStore,
        settings: SessionSettings,
        *,
        run: Callable[[Pending], LiveTurn],
        check: Callable[[], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._run = run
        self._check = check
        self._running: list[LiveTurn] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, where that is configured."""
        if self._settings.resume_seconds and self._settings.lease_seconds:
            self._task = asyncio.create_task(self._look_around())

    async def stop(self) -> None:
        """Take nothing more; what was taken goes on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """Take over what nobody runs, as far as there is room, and give up what is beyond hope.

        Raises:
            Problem: the store could not be asked.
        """
        self._running = [each for each in self._running if not each.over]
        room = _MOST - len(self._running)
        if room <= 0:
            return
        for pending in await self._store.orphans(limit=room):
            if reason := self._hopeless(pending):
                _log.error("turn %s is given up: %s", pending.request.id, reason)
                await fail_promise(self._store, pending, TurnAbandoned(reason))
                continue
            self._check()
            until = time.time() + self._settings.lease_seconds
            claimed = await self._store.claim(pending, until=until)
            if claimed is not None:
                _log.warning("turn %s goes on, attempt %d", claimed.request.id, claimed.attempt)
                self._running.append(self._run(claimed))

    async def _look_around(self) -> None:
        while True:
            # Not on the beat: servers that were started together should not ask together.
            pause = self._settings.resume_seconds * random.uniform(0.5, 1.5)  # noqa: S311
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self.look()
            except Overloaded:
                continue
            except (Problem, TimeoutError) as error:
                _log.warning("turns that nobody runs could not be looked for: %r", error)
            except Exception:  # noqa: BLE001 - a defect here must not end the looking
                _log.exception("looking for turns that nobody runs failed")

    def _hopeless(self, pending: Pending) -> str:
        """Why it is not tried again; empty when it is."""
        settings = self._settings
        if time.time() >= pending.ends_at:
            return f"The turn was not done within {settings.background_seconds:g} s."
        tried = pending.attempt - pending.handed
        if tried >= settings.background_attempts:
            return f"The turn was interrupted {tried} times."
        return ""
