"""Ctrl-C where compiled code computes: the process ends at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable

__all__ = ["exit_on_interrupt"]

_STATUS = 130


def exit_on_interrupt(work: Callable[[], int]) -> int:
    """Do it on a thread, so that the main one is free to see Ctrl-C and end the process.

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

    def leave(*_: object) -> None:
        if sys.stderr.isatty():
            os.write(2, b"\n")
        os._exit(_STATUS)

    thread = threading.Thread(target=run, daemon=True)
    before = signal.signal(signal.SIGINT, leave)
    try:
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    if failed:
        raise failed[0]
    return done[0]
