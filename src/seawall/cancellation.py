"""Cancellation: tells that of the current task from a `CancelledError` raised by other code."""

import asyncio

__all__ = ["is_own_cancellation"]


def is_own_cancellation(error: BaseException) -> bool:
    """Whether the error is a cancellation of the current task."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
