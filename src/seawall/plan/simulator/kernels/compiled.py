"""How functions are compiled: cached on disk, without the interpreter's lock."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

__all__ = ["compiled", "inlined"]

P = ParamSpec("P")
R = TypeVar("R")

# Nothing here allocates, so arrays are not counted: counting them was six sevenths of the time.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled at its first call or read from the cache; runs without the lock."""
    return cast("Callable[P, R]", numba.njit(**_OPTIONS)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """The same, and always a part of its caller: passing the tuples of arrays costs more."""
    return cast("Callable[P, R]", numba.njit(forceinline=True, **_OPTIONS)(function))
