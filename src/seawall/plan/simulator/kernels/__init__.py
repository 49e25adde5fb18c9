"""The compiled loops of the simulator. Importing this imports numba; nothing else here does.

Numba keeps what it compiled beside the source, so that only the first run after an installation
compiles. It notices a change of a function's own file alone, though these call one another, so
`_drop_stale` removes what was compiled before any file here changed.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["compiled", "inlined", "is_cached"]

P = ParamSpec("P")
R = TypeVar("R")

# Nothing here allocates, so arrays are not counted: counting them was six sevenths of the time.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function at its first call, or read it from the cache; it runs without the GIL."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, and always inlined: passing the tuples of arrays would cost more."""
    return cast("Callable[P, R]", numba.njit(forceinline=True, **_OPTIONS)(function))


def is_cached() -> bool:
    """Whether the loops were compiled before, so that they are only read from the cache."""
    folder = os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).resolve().parent
    return any(Path(folder).rglob("*.nbi"))


def _drop_stale() -> None:
    here = Path(__file__).resolve().parent
    newest = max(path.stat().st_mtime_ns for path in here.rglob("*.py"))
    for index in here.rglob("__pycache__/*.nbi"):
        with contextlib.suppress(OSError):  # not ours to delete, or another process was faster
            if index.stat().st_mtime_ns < newest:
                index.unlink()


_drop_stale()
