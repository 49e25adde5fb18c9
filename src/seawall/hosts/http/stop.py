"""How far the end of a server process has come, and who asks for it."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from seawall.errors import ServerStopping

__all__ = ["Stop"]

_RETRY_SECONDS = 1.0


class Stop:
    """Asked for by a signal, looked at by whoever has to know.

    leaving: no more turns should be sent here, which are taken all the same. ending: time is up,
    what still runs is ended and told so.
    """

    __slots__ = ("_asked", "_hurried", "ending", "leaving")

    def __init__(self) -> None:
        self.leaving = False
        self.ending = False
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()

    def ask(self) -> None:
        """Begin the stop; asked again, hurry: all waits are over."""
        if self.leaving:
            self._hurried.set()
        self.leaving = True
        self._asked.set()

    @property
    def hurried(self) -> bool:
        """Whether nobody wants to wait any more."""
        return self._hurried.is_set()

    async def asked(self) -> None:
        """Return when the stop has been asked for."""
        await self._asked.wait()

    async def wait(self, seconds: float) -> None:
        """Return after `seconds`, or when hurried."""
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            return

    @contextmanager
    def told(self) -> Generator[None, None, None]:
        """What the stop cancels inside becomes an answer to whoever waits for it.

        Raises:
            ServerStopping: in place of the cancellation.
        """
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.ending or task is None or not task.cancelling():
                raise
            task.uncancel()
            raise ServerStopping(
                "This server is stopping and has ended the turn. Send it again: with an "
                "Idempotency-Key that is safe, whatever became of it.",
                retry_after=_RETRY_SECONDS,
            ) from None
