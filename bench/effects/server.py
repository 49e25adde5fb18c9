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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.effects.broken import BROKEN, break_code, broken_store
from bench.effects.kill_points import hit

from seawall import composition
from seawall.cli.main import main as run_command
from seawall.storage.open import open_store
from seawall.storage.port import SessionStore
from seawall.turn import SessionKey

__all__ = ["METHODS", "phase", "writing_calls"]

METHODS = "EFFECTS_METHODS"
_UNUSED = {
    "open", "close", "load", "turns", "sessions", "archives", "restore", "delete", "erase",
    "find_job", "orphaned_jobs", "waits", "find_wait", "decide", "audit", "append_audit",
}  # fmt: skip # they only read, or no turn of the harness calls them
_PHASES = ("begin", "outcome", "completed", "interrupted")


def writing_calls() -> list[str]:
    """The asynchronous methods of the store's port that a turn writes with; journals by phase."""
    methods = [
        name
        for name, found in vars(SessionStore).items()
        if inspect.iscoroutinefunction(found) and name not in _UNUSED and name[0] != "_"
    ]
    return sorted(
        call
        for name in methods
        for call in ([f"{name}.{each}" for each in _PHASES] if name == "journal" else [name])
    )


class _KillingStore:
    """A store with a kill point before and after each call that writes."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        for name in {each.partition(".")[0] for each in writing_calls()}:
            setattr(self, name, _with_points(name, getattr(store, name)))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        return getattr(self._store, name)


def _with_points(
    name: str, method: Callable[..., Awaitable[object]]
) -> Callable[..., Awaitable[object]]:
    async def call(*arguments: object, **named: object) -> object:
        turn = _turn_of((*arguments, *named.values()))
        session, key = turn
        if name == "journal":
            write = arguments[0]
            hit(f"journal.{phase(write)}:before", session=session, key=key)
            result = await method(write)
            point = f"journal.{phase(write)}:after"
            hit(point, session=session, key=key, recorded=_recorded(write))
            return result
        hit(f"{name}:before", session=session, key=key)
        result = await method(*arguments, **named)
        hit(f"{name}:after", session=session, key=key)
        return result

    return call


def phase(write: Any) -> str:  # noqa: ANN401 - there is no such type in versions without journals
    """What a journal write is for: effects that begin, an outcome, or the end of the turn."""
    status = str(write.turn.journal.status)
    if status != "open":
        return status
    return "outcome" if write.audit else "begin"


def _recorded(write: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """The operations that have outcomes in a journal."""
    return tuple(
        json.loads(each.arguments)["op"]
        for each in write.turn.journal.effects
        if each.status == "done"
    )


def _turn_of(arguments: tuple[object, ...]) -> tuple[str, str]:
    """Session and idempotency key of the turn that a call is about, as far as they are found."""
    session = key = ""
    for each in arguments:
        owner = each if isinstance(each, SessionKey) else getattr(each, "key", None)
        if isinstance(owner, SessionKey):
            session = owner.session
        inner = getattr(each, "request", each)
        key = getattr(inner, "idempotency_key", None) or key
    return session, key


async def _open_store(*arguments: Any, **named: Any) -> SessionStore:  # noqa: ANN401 - as `open_store`
    store = await open_store(*arguments, **named)
    wrapped: Any = _KillingStore(broken_store(os.environ.get(BROKEN, ""), store))
    return wrapped  # type: ignore[no-any-return]


def main(arguments: list[str]) -> int:
    """Run the server."""
    if path := os.environ.get(METHODS):
        Path(path).write_text(json.dumps(writing_calls()))
    setattr(composition, "open_store", _open_store)  # noqa: B010 - which it imports
    break_code(os.environ.get(BROKEN, ""))
    return run_command(["serve", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
