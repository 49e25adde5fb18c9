"""The compiled loops of the simulator. Importing this imports numba; nothing else here does.

Numba keeps what it compiled beside the source, so only the first run after an installation
compiles. It notices a change of a function's own file alone, though these call one another, so
`_drop_stale` removes what was compiled before any file here changed.
"""

import contextlib
from pathlib import Path

__all__: list[str] = []


def _drop_stale() -> None:
    here = Path(__file__).resolve().parent
    newest = max(path.stat().st_mtime_ns for path in here.rglob("*.py"))
    for index in here.rglob("__pycache__/*.nbi"):
        if index.stat().st_mtime_ns < newest:
            with contextlib.suppress(OSError):  # not ours to delete, or somebody was faster
                index.unlink()


_drop_stale()
