"""Standard output and error as they are: in any encoding, closed, or a pipe that nobody reads."""

import codecs
import os
import sys
from typing import TextIO

__all__ = ["discard_unwritten", "prepare_streams"]

_ESCAPE = "seawall.escape"


def prepare_streams() -> None:
    """Have everything that is printed be printable: what the encoding lacks is escaped.

    The escapes are those of JSON, so that what is JSON stays it.
    """
    codecs.register_error(_ESCAPE, _escape)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPE)


def discard_unwritten() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, and nobody is told."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
        except ValueError:  # closed
            pass
    os.close(nowhere)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for the process's life


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escaped = (f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return "".join(escaped), error.end
