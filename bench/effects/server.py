"""A server of the harness: `seawall serve`, with kill points around the calls of its store.

    python -m bench.effects.server seawall.toml --port N --json

The product is not changed: this program replaces the function by which the composition root opens
the store with one whose store is wrapped, and then runs the command. `METHODS` names a file to
which it writes the methods that have kill points.
"""

import inspect
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from bench.effects.broken import BROKEN, break_it
from bench.effects.kill_points import hit

from seawall import composition
from seawall.cli.main import main as run_command
from seawall.storage.open import open_store
from seawall.storage.port import SessionStore
from seawall.storage.settings import SessionSettings
from seawall.turn import SessionKey

__all__ = ["METHODS", "writing_methods"]

METHODS = "EFFECTS_METHODS"
_READ_ONLY = {
    "open", "close", "load", "turns", "sessions", "archives", "find_job", "orphaned_jobs",
    "restore", "delete", "erase",
}  # fmt: skip


def writing_methods() -> list[str]:
    """The asynchronous methods of the store's port, without those that only read."""
    return sorted(
        name
        for name, found in vars(SessionStore).items()
        if inspect.iscoroutinefunction(found) and name not in _READ_ONLY and name[0] != "_"
    )


class _KillingStore:
    """A store with a kill point before and after each call of some of its methods."""

    def __init__(self, store: SessionStore, methods: list[str]) -> None:
        self._store = store
        for name in methods:
            setattr(self, name, _with_points(name, getattr(store, name)))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        return getattr(self._store, name)


def _with_points(
    name: str, method: Callable[..., Awaitable[object]]
) -> Callable[..., Awaitable[object]]:
    async def call(*arguments: object, **named: object) -> object:
        turn = _turn_of((*arguments, *named.values()))
        hit(f"{name}:before", **turn)
        result = await method(*arguments, **named)
        hit(f"{name}:after", **turn)
        return result

    return call


def _turn_of(arguments: tuple[object, ...]) -> dict[str, str]:
    """Session and idempotency key of the turn that a call is about, as far as they are found."""
    found = {"session": "", "key": ""}
    for each in arguments:
        key = each if isinstance(each, SessionKey) else getattr(each, "key", None)
        if isinstance(key, SessionKey):
            found["session"] = key.session
        inner = getattr(each, "request", each)
        found["key"] = getattr(inner, "idempotency_key", None) or found["key"]
    return found


async def _open_store(
    settings: SessionSettings,
    environment: Mapping[str, str] = os.environ,
    *,
    read_only: bool = True,
) -> SessionStore:
    store = await open_store(settings, environment, read_only=read_only)
    wrapped: Any = _KillingStore(store, writing_methods())
    return wrapped  # type: ignore[no-any-return]


def main(arguments: list[str]) -> int:
    """Run the server."""
    if path := os.environ.get(METHODS):
        Path(path).write_text(json.dumps(writing_methods()))
    setattr(composition, "open_store", _open_store)  # noqa: B010 - which it imports
    if name := os.environ.get(BROKEN):
        break_it(name)
    return run_command(["serve", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
