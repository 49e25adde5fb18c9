"""Reads documents in a process of its own, whose memory and time are limited.

Documents come from anywhere: one that is made to exhaust its reader, or to crash it, ends that
process, and the build says which document it was. `python -m seawall.knowledge.reader` is the
process: requests on standard input, answers on standard output, each behind its length.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO

import msgspec
from msgspec import Struct

from seawall.knowledge.document import Document, Unreadable
from seawall.knowledge.read import is_plain_text, read_document
from seawall.knowledge.settings import KnowledgeLimits

__all__ = ["DocumentReader"]

_LENGTH = 8  # bytes
_END_SECONDS = 5.0


class _Request(Struct):
    path: str
    data: bytes
    pages: int
    characters: int


class _Answer(Struct):
    document: Document | None = None
    fault: str = ""


class DocumentReader:
    """The process that reads documents; started when it is needed, and again after its end."""

    def __init__(self, limits: KnowledgeLimits) -> None:
        """Create a reader; nothing is started yet.

        Args:
            limits: Of each document.
        """
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: str, data: bytes) -> Document:
        """Read a document.

        Args:
            path: Its name, relative to the folder.
            data: The file.

        Raises:
            Unreadable: It cannot be read, or not within the limits.
        """
        limits = self._limits
        if is_plain_text(path):  # which takes no parser
            return read_document(
                path, data, pages=limits.pages, characters=limits.document_characters
            )
        process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101 - see `_start`
        assert process.stdout is not None  # noqa: S101
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limits.document_seconds, end)
        timer.start()
        try:
            request = _Request(path, data, limits.pages, limits.document_characters)
            with suppress(OSError):
                _write(process.stdin, msgspec.msgpack.encode(request))
            answer = _read(process.stdout)
        finally:
            timer.cancel()
        if answer is None:
            self.close()
            if late.is_set():
                raise Unreadable(
                    f"is not read after {limits.document_seconds:g} s (limits.document_seconds)"
                )
            raise Unreadable(
                "has ended its reader; it is damaged, or needs more memory than "
                f"limits.document_mebibytes, {limits.document_mebibytes:,}"
            )
        found = msgspec.msgpack.decode(answer, type=_Answer)
        if found.document is None:
            raise Unreadable(found.fault)
        return found.document

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: what is in the working directory, which may be the documents', is not imported.
        command = [sys.executable, "-P", "-m", __name__, str(self._limits.document_mebibytes)]
        self._process = subprocess.Popen(  # noqa: S603 - this very module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self._process

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(_END_SECONDS)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(len(data).to_bytes(_LENGTH, "big"))
    stream.write(data)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """The next message; None at the end of the stream."""
    length = int.from_bytes(head, "big") if len(head := stream.read(_LENGTH)) == _LENGTH else -1
    data = stream.read(length) if length >= 0 else b""
    return data if len(data) == length else None


def _limit_memory(mebibytes: int) -> None:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    size = mebibytes << 20
    with suppress(ValueError, OSError):  # it is limited to less
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(request: _Request) -> _Answer:
    try:
        document = read_document(
            request.path, request.data, pages=request.pages, characters=request.characters
        )
    except Unreadable as fault:
        return _Answer(fault=str(fault))
    except MemoryError:
        return _Answer(fault="needs more memory than limits.document_mebibytes")
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is of the document
        return _Answer(fault=f"cannot be read: {type(error).__name__}: {str(error)[:200]}")
    return _Answer(document)


def _run() -> None:
    _limit_memory(int(sys.argv[1]))
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints is no answer
    while (data := _read(sys.stdin.buffer)) is not None:
        _write(output, msgspec.msgpack.encode(_answer(msgspec.msgpack.decode(data, type=_Request))))


if __name__ == "__main__":
    _run()
