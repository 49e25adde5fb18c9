"""Plain functions on threads of their own: one that never returns keeps only its own."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

__all__ = ["THREAD", "in_thread"]

THREAD = "invocation"
"""The name of these threads."""


async def in_thread(function: Callable[..., Any], *arguments: object) -> object:
    """What the function returns, or raises. Its thread does not keep the process from ending.

    Raises:
        BaseException: Whatever the function raises.
    """
    loop = asyncio.get_running_loop()
    returned: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(result: object, error: BaseException | None) -> None:
        if returned.done():
            return
        if error is None:
            returned.set_result(result)
        elif isinstance(error, StopIteration):  # which a future cannot have
            returned.set_exception(RuntimeError(f"the function raised {error!r}"))
        else:
            returned.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(function, *arguments)
        except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=THREAD, daemon=True).start()
    return await returned
