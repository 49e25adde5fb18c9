"""How far the end of a server process has come, and who asks for it."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from seawall.errors import ServerStopping

__all__ = ["Shutdown"]

_RETRY_SECONDS = 1.0


class Shutdown:
    """Asked for by a signal, looked at by whoever has to know.

    leaving: no more turns should be sent here, which are taken all the same. ending: time is up,
    what still runs is ended and told so.
    """

    __slots__ = ("_immediate", "_requested", "abandoning", "requested")

    def __init__(self) -> None:
        self.requested = False
        self.abandoning = False
        self._requested = asyncio.Event()
        self._immediate = asyncio.Event()

    def request(self) -> None:
        """Begin the stop; asked again, hurry: all waits are over."""
        if self.requested:
            self._immediate.set()
        self.requested = True
        self._requested.set()

    @property
    def immediate(self) -> bool:
        """Whether nobody wants to wait any more."""
        return self._immediate.is_set()

    async def wait_requested(self) -> None:
        """Return when the stop has been asked for."""
        await self._requested.wait()

    async def wait(self, seconds: float) -> None:
        """Return after `seconds`, or when hurried."""
        try:
            async with asyncio.timeout(seconds):
                await self._immediate.wait()
        except TimeoutError:
            return

    @contextmanager
    def translate_cancellation(self) -> Generator[None, None, None]:
        """What the stop cancels inside becomes an answer to whoever waits for it.

        Raises:
            ServerStopping: in place of the cancellation.
        """
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.abandoning or task is None or not task.cancelling():
                raise
            task.uncancel()
            raise ServerStopping(
                "This server is stopping and has ended the turn. Send it again: with an "
                "Idempotency-Key that is safe, whatever became of it.",
                retry_after=_RETRY_SECONDS,
            ) from None
