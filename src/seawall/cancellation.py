"""Distinguishes a real cancellation of a task from a raised `CancelledError`."""

import asyncio

__all__ = ["is_own_cancellation"]


def is_own_cancellation(error: BaseException) -> bool:
    """Whether the error is a requested cancellation of the current task.

    User code can raise `CancelledError` although the task was not cancelled.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
