"""Terminal output: encodings, closed pipes, colour, progress lines, and Ctrl-C."""

import codecs
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from seawall.lab.surge.outcome import Progress

__all__ = [
    "INTERRUPTED",
    "ProgressLine",
    "color",
    "discard_unwritten",
    "exit_on_interrupt",
    "prepare_streams",
    "print_line",
    "progress_bar",
    "show_progress",
]

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells: 128 and the number of the signal."""

_ESCAPE = "seawall.escape"
_COLORS = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
_BAR_WIDTH = 30


def prepare_streams() -> None:
    """Make everything printable: characters that the encoding lacks are escaped.

    The escapes are those of JSON, so that JSON stays valid.
    """
    codecs.register_error(_ESCAPE, _escape)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = _open_null()
    if sys.stderr is None:
        sys.stderr = _open_null()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPE)


def discard_unwritten() -> None:
    """Discard buffered output of a closed pipe, so that the exit reports no error."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(null, stream.fileno())
        except ValueError:  # closed
            pass
    os.close(null)


def _open_null() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for the process's life


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escaped = (f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return "".join(escaped), error.end


def color(text: str, name: str, stream: TextIO | None = None) -> str:
    """Color a text if the stream is a terminal, and neither NO_COLOR nor TERM=dumb is set.

    Args:
        text: Has no control characters.
        name: bold, dim, red, green, yellow or cyan.
        stream: Where it will be written; standard output by default.
    """
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_COLORS[name]}m{text}\x1b[0m"


def print_line(line: str) -> None:
    """Print a line about the progress of a command, on standard error."""
    print(line, file=sys.stderr, flush=True)


class ProgressLine:
    """Progress on standard error: a line that is rewritten on a terminal, else one every 2 s."""

    def __init__(self, *, only_terminal: bool = False, at_once: bool = True) -> None:
        """Show nothing yet.

        Args:
            only_terminal: Show nothing at all if standard error is not a terminal.
            at_once: Show the first line at once; otherwise when it is time for the second.
        """
        self._live = sys.stderr.isatty()
        self._silent = only_terminal and not self._live
        self._interval = 0.1 if self._live else 2.0
        self._shown_at = float("-inf") if at_once else time.monotonic()
        self._width = 0

    def show(self, line: str, *, now: bool = False) -> None:
        """Show a line if the last one is old enough, or if it must be shown `now`."""
        at = time.monotonic()
        if self._silent or not (now or at - self._shown_at >= self._interval):
            return
        self._shown_at = at
        sys.stderr.write(f"\r{line.ljust(self._width)}" if self._live else line + "\n")
        self._width = len(line)
        sys.stderr.flush()

    def end(self, line: str = "") -> None:
        """Show a last line; without one, clear the line on a terminal."""
        if line:
            self.show(line, now=True)
        if self._live and not self._silent:
            sys.stderr.write("\n" if line else "\r" + " " * self._width + "\r")
            sys.stderr.flush()


def progress_bar(done: int, total: int) -> str:
    """A bar of 30 characters that standard error can show."""
    full, empty = "█░" if (sys.stderr.encoding or "").lower().startswith("utf") else "#."
    filled = _BAR_WIDTH * min(done, total) // total
    return full * filled + empty * (_BAR_WIDTH - filled)


def show_progress() -> "Callable[[Progress], None]":
    """Make a callback that shows the progress of a surge on standard error."""
    shown = ProgressLine()

    def show(progress: "Progress") -> None:
        ended = progress.completed + progress.refused + progress.failed
        over = bool(progress.turns) and ended >= progress.turns
        bar = f"{progress_bar(ended, progress.turns)} " if progress.turns else ""
        line = (
            f"{progress.seconds:5.1f} s {bar}{progress.sent} sent, {progress.streaming} streaming, "
            f"{progress.completed} completed, {progress.refused} refused, {progress.failed} failed"
        )
        if over:
            shown.end(line)
        else:
            shown.show(line)

    return show


def exit_on_interrupt(work: Callable[[], int]) -> int:
    """Run compiled code on a thread, so that Ctrl-C ends the process at once.

    Python handles signals between its own instructions, and on the main thread only: that must
    not be in a loop of compiled code. Nothing is cleaned up: for work that only computes.
    """
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return work()
    done: list[int] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    def exit_now(*_: object) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\n")
        os._exit(INTERRUPTED)

    thread = threading.Thread(target=run, daemon=True)
    before = signal.signal(signal.SIGINT, exit_now)
    try:
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    if failed:
        raise failed[0]
    return done[0]
