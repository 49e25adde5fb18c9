"""Handlers that do what no handler should."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any


class Coded(Exception):
    """Has a code that is no text, as urllib's errors have."""

    code = 404


class Mute(Exception):
    """Has no string representation."""

    def __str__(self) -> str:
        raise ValueError("not even this")


def _misbehave(what: str) -> Any:  # noqa: C901, PLR0912 - a table
    match what:
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "stop-iteration":
            raise StopIteration
        case "cancelled":
            raise asyncio.CancelledError
        case "generator-exit":
            raise GeneratorExit
        case "base":
            raise BaseException("of no kind")  # noqa: TRY002
        case "coded":
            raise Coded
        case "mute":
            raise Mute
        case "surrogate":
            raise ValueError("\ud800 \0 \r\n" * 100_000)
        case "recursion":
            return _misbehave(what)
        case "unencodable":
            return {1: object()}
        case "nested":
            found: list[Any] = []
            for _ in range(100_000):
                found = [found]
            return found
    return {"ok": what}


async def awaited(event: Any, _: object) -> Any:
    """Awaits, and may not stop when it is cancelled."""
    what = event.get("do", "") if isinstance(event, dict) else ""
    if what == "hang":
        await asyncio.Event().wait()
    while what == "ignore":
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue
    if what.startswith("task-"):
        await asyncio.create_task(_later(what.removeprefix("task-")))
    return _misbehave(what)


async def _later(what: str) -> None:
    _misbehave(what)


def plain(event: Any, _: object) -> Any:
    """Runs on a thread, and may never return."""
    what = event.get("do", "") if isinstance(event, dict) else ""
    if what in ("hang", "ignore"):
        threading.Event().wait()
    return _misbehave(what)


async def streamed(event: Any, _: object) -> AsyncIterator[bytes]:
    """Begins an answer, and then does not go on as it should."""
    yield b"begun "
    what = event.get("do", "") if isinstance(event, dict) else ""
    while what in ("hang", "ignore"):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if what == "hang":
                raise
    yield str(_misbehave(what)).encode()


_all = threading.Barrier(40)


def meet(_: Any, __: object) -> str:
    """Returns when 40 calls are under way."""
    _all.wait(10)
    return "met"
