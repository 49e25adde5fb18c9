"""The event loop of the lab's processes: uvloop where there is one."""

import asyncio
import gc
import resource
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["raise_file_limit", "run"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end, without collecting cycles: the lab must not stall while it measures."""
    gc.disable()
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def raise_file_limit() -> int:
    """Allow as many open files as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
