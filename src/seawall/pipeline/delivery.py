"""Delivery of notifications: at least once, a bounded number of times.

A notification is stored in the write of what it reports, and offered here afterwards. The process
that has stored it delivers it at once; if that fails, or the process is gone, the one that claims
the next delivery makes it. Only their number and the time of the next one are stored.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context

from seawall.errors import Problem
from seawall.pipeline.leases import best_effort
from seawall.storage.port import Notification, SessionStore

__all__ = ["NotificationDelivery", "next_delivery"]

_log = logging.getLogger("seawall.handover")
_SENDING_SECONDS = 4.0  # longer than one delivery may take
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 900.0
_MAX_DELIVERIES = 300  # about three days
_MAX_AT_ONCE = 32


def next_delivery(tries: int) -> float:
    """When the delivery after one that begins now may begin; the pause doubles, with jitter.

    Args:
        tries: Number of the delivery that begins now, from 1.

    Returns:
        Unix seconds.
    """
    pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 16), _LONGEST_PAUSE_SECONDS)
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    return time.time() + _SENDING_SECONDS + pause * jitter


class NotificationDelivery:
    """The deliveries of one process."""

    def __init__(self, store: SessionStore, send: Callable[[str, bytes], Awaitable[bool]]) -> None:
        """Begin without any.

        Args:
            store: The session store.
            send: Sends a body under an id; false if it did not arrive.
        """
        self._store = store
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, added: Iterable[Notification]) -> None:
        """Deliver what this process has just stored; what there is no room for is due later."""
        for each in added:
            if len(self._tasks) < _MAX_AT_ONCE:
                self._begin(each)

    async def deliver_due(self) -> None:
        """Claim and deliver what is due, up to a limit; give up what was tried for too long.

        Raises:
            Problem: The store failed.
        """
        room = _MAX_AT_ONCE - len(self._tasks)
        if room <= 0:
            return
        for each in await self._store.due_notifications(limit=room):
            if each.tries >= _MAX_DELIVERIES or time.time() >= each.ends_at:
                _log.error("notification %s was given up after %d deliveries", each.id, each.tries)
                await self._store.end_notification(each)
                continue
            claimed = await self._store.claim_notification(each, due=next_delivery(each.tries + 1))
            if claimed is not None:
                self._begin(claimed)

    async def settle(self, seconds: float) -> None:
        """Wait for the deliveries that have begun.

        Args:
            seconds: At most so long.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def close(self) -> None:
        """Wait briefly for the deliveries that have begun, then leave them to other processes."""
        await self.settle(_SENDING_SECONDS)
        tasks = tuple(self._tasks)
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, notification: Notification) -> None:
        # Not in the context of the turn that has stored it: its span ends before.
        task = asyncio.create_task(self._deliver(notification), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, notification: Notification) -> None:
        try:
            if await self._send(notification.id, notification.body.encode()):
                await best_effort(self._store.end_notification(notification))
        except Problem as problem:
            _log.warning("notification %s was not delivered: %s", notification.id, problem)
        except Exception:  # noqa: BLE001 - a defect must not end unseen
            _log.exception("notification %s was not delivered", notification.id)
