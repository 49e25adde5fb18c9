"""State of the graceful shutdown of a server process."""

import asyncio
from types import TracebackType

from seawall.errors import ServerStopping

__all__ = ["Shutdown"]

_RETRY_SECONDS = 1.0


class Shutdown:
    """The phases of a shutdown: announced and draining, then abandoning what is left.

    Attributes:
        requested: The shutdown has begun: `/readyz` fails, turns are still accepted.
        abandoning: The drain deadline has passed: turns in flight are cancelled.
    """

    __slots__ = ("_immediate", "_requested", "_translation", "abandoning", "requested")

    def __init__(self) -> None:
        self.requested = False
        self.abandoning = False
        self._requested = asyncio.Event()
        self._immediate = asyncio.Event()
        self._translation = _Translation(self)

    def request(self) -> None:
        """Begin the shutdown; a second call skips all waits."""
        if self.requested:
            self._immediate.set()
        self.requested = True
        self._requested.set()

    @property
    def immediate(self) -> bool:
        """Whether waits are skipped."""
        return self._immediate.is_set()

    async def wait_requested(self) -> None:
        """Wait until the shutdown is requested."""
        await self._requested.wait()

    async def wait(self, seconds: float) -> None:
        """Wait for `seconds`, unless waits are skipped."""
        try:
            async with asyncio.timeout(seconds):
                await self._immediate.wait()
        except TimeoutError:
            return

    def translate_cancellation(self) -> "_Translation":
        """`with` it, the cancellation of the block by the shutdown is an error for the client.

        Raises:
            ServerStopping: In place of the cancellation.
        """
        return self._translation


class _Translation:
    """See `Shutdown.translate_cancellation`; one for all blocks, as it has no state of theirs."""

    __slots__ = ("_shutdown",)

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or not isinstance(error, asyncio.CancelledError):
            return
        task = asyncio.current_task()
        if not self._shutdown.abandoning or task is None or not task.cancelling():
            return
        task.uncancel()
        raise ServerStopping(
            "This server is stopping and has ended the turn. Send it again; with its "
            "Idempotency-Key that is safe even if the turn was committed.",
            retry_after=_RETRY_SECONDS,
        ) from None
