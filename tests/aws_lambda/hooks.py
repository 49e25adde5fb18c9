"""A function with hooks around its snapshot, registered as AWS documents it."""

import os
from typing import Any

from snapshot_restore_py import register_after_restore, register_before_snapshot

happened: list[str] = []


def note(what: str) -> None:
    if os.environ.get("FAIL", "nothing") in what:
        raise RuntimeError(f"{what} failed")
    happened.append(what)


async def note_later(what: str) -> None:
    note(what)


register_before_snapshot(note, "first before")
register_before_snapshot(note, what="second before")
register_after_restore(note_later, "first after")


def handler(_: Any, __: Any) -> list[str]:
    return happened
