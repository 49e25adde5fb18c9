"""Whether a task was cancelled, or foreign code in it says so without being asked."""

import asyncio

__all__ = ["is_own_cancellation"]


def is_own_cancellation(error: BaseException) -> bool:
    """Whether the error is the cancellation of the running task, and not one that was raised."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
