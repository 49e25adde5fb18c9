"""The event loop of the lab's processes: uvloop where there is one."""

import asyncio
import gc
import resource
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["raise_file_limit", "run"]

T = TypeVar("T")

_MANY_FILES = 1 << 20
_MACOS_FILES = 10_240  # OPEN_MAX of macOS, beyond which it allows nobody


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end, without collecting cycles: the lab must not stall while it measures."""
    gc.disable()
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def raise_file_limit() -> int:
    """Allow as many open files as the system does, and say how many; a million where it is open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MANY_FILES
    # Where there is no hard limit, the kernel has one of its own all the same, and refuses more.
    for wanted in [hard] if hard != resource.RLIM_INFINITY else [_MANY_FILES, _MACOS_FILES]:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        except (OSError, ValueError):
            continue
        return max(soft, wanted)
    return soft
