"""The process that checks files: reads them from its input, answers on its output.

`python -m seawall.attachments.child MEGABYTES`. See `checker`.
"""

import codecs
import resource
import sys
import warnings
from importlib import import_module
from typing import BinaryIO

import msgspec
from PIL import Image

from seawall.attachments.documents import inspect_pdf
from seawall.attachments.images import Refused, reencoded
from seawall.attachments.inspection import Inspected, Inspection
from seawall.attachments.media import PDF

__all__ = ["main", "serve"]

_OPEN_FILES = 3  # standard input, output and errors
_MAX_DENIED = 10
_MAX_NAME = 200
# Photos of several pictures are JPEG with an index in the form of TIFF, as EXIF is.
_IMPORTED_LATE = (
    "PIL.MpoImagePlugin",
    "PIL.TiffImagePlugin",
    "PIL.WebPImagePlugin",
    "pypdf._configuration",
    "pypdf.filters",
    "pypdf.generic._image_inline",
    "pypdf.generic._image_xobject",
    "pypdf.xmp",
)
_CODECS = ("utf-16", "utf-16-be", "utf-16-le", "cp1252", "charmap", "gbk")  # of text in PDFs
_DAMAGED = "The file is damaged, or not what it seems to be."
_TOO_MUCH_MEMORY = "The file needs too much memory to be read."


def main() -> None:
    """Serve standard input and output under limits."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    megabytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    warnings.simplefilter("ignore")  # shown, they quote a source file, which cannot be opened
    _load_decoders()
    # A flaw of a decoder opens nothing: no file, no socket.
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    serve(sys.stdin.buffer, sys.stdout.buffer, _watched())


def serve(source: BinaryIO, target: BinaryIO, denied: list[str]) -> None:
    """Answer until the input ends.

    A file during which a decoder tried to import a module or to open a file is refused: it was
    denied, and a decoder that goes on without it reads something else.

    Args:
        source: Requests: a length in four bytes, an `Inspection` in JSON, the file.
        target: Answers: a length in four bytes, an `Inspected` in JSON, the new file.
        denied: Where each such attempt is noted.
    """
    target.write(b"+")
    target.flush()
    while len(prefix := source.read(4)) == 4:
        asked = msgspec.json.decode(source.read(int.from_bytes(prefix)), type=Inspection)
        content = source.read(asked.size)
        if len(content) < asked.size:
            return
        _limit_time(asked.seconds)
        denied.clear()
        answer, made = _answer(asked, content)
        if denied:
            answer, made = Inspected(answer.fault or _DAMAGED, denied=denied[0]), b""
        head = msgspec.json.encode(answer)
        target.write(len(head).to_bytes(4) + head + made)
        target.flush()


def _load_decoders() -> None:
    """Import what Pillow and pypdf import when they meet a file."""
    Image.preinit()
    for name in _IMPORTED_LATE:
        import_module(name)
    for name in _CODECS:
        codecs.lookup(name)


def _watched() -> list[str]:
    """A list that gets the names of all modules and files that are asked for from now on."""
    denied: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("import", "open") and len(denied) < _MAX_DENIED:
            denied.append(str(arguments[0])[:_MAX_NAME])

    sys.addaudithook(note)
    return denied


def _limit_time(seconds: float) -> None:
    """Bound the processor time of one file, also where the server is gone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _answer(asked: Inspection, content: bytes) -> tuple[Inspected, bytes]:
    try:
        if asked.media_type == PDF:
            return Inspected(tokens=inspect_pdf(content, pages=asked.pages)), b""
        image = reencoded(content, pixels=asked.pixels, side=asked.side)
    except Refused as refusal:
        return Inspected(str(refusal)), b""
    except MemoryError:
        return Inspected(_TOO_MUCH_MEMORY), b""
    except Exception:  # noqa: BLE001 - decoders raise anything for damaged files
        return Inspected(_DAMAGED), b""
    return Inspected("", image.media_type, image.tokens, len(image.content)), image.content


if __name__ == "__main__":
    main()
