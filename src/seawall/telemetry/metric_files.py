"""Memory-mapped metric files, one set for each worker of a server, safe on a full disk.

The Prometheus client writes to sparse mapped files. On a full disk that is not an error but a
signal (SIGBUS), which ends the process. So space is allocated before a file is written to; where
there is none, the worker counts in anonymous memory.
"""

import logging
import mmap
import os
from pathlib import Path
from typing import ClassVar

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

__all__ = ["MetricFile", "use_metric_files"]

_log = logging.getLogger("seawall.metrics")
_FIRST_BYTES = 1 << 16
_ENTRY_BYTES = 32  # around a key: its length, padding, value and time


class MetricFile(MmapedDict):
    """A mapped file with allocated space, or anonymous memory where there is no space for one."""

    _reported: ClassVar[bool] = False

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            _allocate(Path(filename))
        except OSError as error:
            self._report(filename, error)
            self._f = None  # type: ignore[assignment] # as after its `close`
            self._fname = filename
            self._capacity = _FIRST_BYTES
            self._m = mmap.mmap(-1, self._capacity)
            self._positions: dict[str, int] = {}
            self._used = 8
        else:
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        needed = self._used + len(key.encode()) + _ENTRY_BYTES
        while needed > self._capacity:
            self._grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self) -> None:
        larger = self._capacity * 2
        if self._f is not None:
            try:
                os.posix_fallocate(self._f.fileno(), 0, larger)
                self._m = mmap.mmap(self._f.fileno(), larger)
            except OSError as error:
                self._report(self._fname, error)
                self._f.close()
                self._f = None  # type: ignore[assignment]
        if self._f is None:
            memory = mmap.mmap(-1, larger)
            memory[: self._used] = self._m[: self._used]
            self._m = memory
        self._capacity = larger

    @classmethod
    def _report(cls, filename: str, error: OSError) -> None:
        if not cls._reported:
            cls._reported = True
            _log.warning(
                "no space for metrics in %s (%s): some counts of this worker will be "
                "missing from /metrics",
                Path(filename).parent,
                error.strerror,
            )


def use_metric_files(worker: int) -> None:
    """Store metrics that are created from now on in the files of this worker."""
    values.MmapedDict = MetricFile  # type: ignore[attr-defined] # the client has no API for it
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


def _allocate(path: Path) -> None:
    """Create the file atomically for its readers, unless it exists."""
    if path.exists():
        return
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _FIRST_BYTES)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
