"""What is made once in a test run, by the worker that needs it first, and shared by all."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["RUN_FOLDER", "once", "owner_of_the_run"]

# The variable that names a folder for what all processes of one test run share.
RUN_FOLDER = "TEST_RUN_FOLDER"


def once(name: str, make: Callable[[], str]) -> str:
    """The text that `make` returned when it was called for the first time in this run.

    Args:
        name: What it is, as a file's name. Same name, same text.
        make: Makes it; the others wait meanwhile. If it raises, the next one tries.
    """
    folder = Path(os.environ[RUN_FOLDER])
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / name
        if not made.exists():
            text = make()
            made.write_text(text, encoding="utf-8")
        return made.read_text(encoding="utf-8")


def owner_of_the_run() -> int:
    """The process with which ends what is shared: the workers of pytest-xdist are its children."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
