"""Files that may be compressed with gzip."""

import gzip
import io
from typing import IO, cast

__all__ = ["unpacked"]


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """The content of a file, which can seek: as it is, or unpacked if it is gzip."""
    reader = io.BufferedReader(file) if isinstance(file, io.RawIOBase) else file
    packed = reader.read(2) == b"\x1f\x8b"
    reader.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=reader)) if packed else reader
