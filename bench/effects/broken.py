"""Deliberately broken variants of the product, by which the checker is checked.

Each replaces something in a running server, in this process only: a method of the store, or a
function of the product.
"""

import importlib
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import structs

from seawall.errors import SessionConflict
from seawall.storage.port import SessionStore

__all__ = ["BROKEN", "VARIANTS", "break_code", "broken_store"]

BROKEN = "EFFECTS_BROKEN"
VARIANTS = {
    "journal-late": "an effect begins before its step is journaled",
    "outcome-late": "outcomes are recorded only when the turn ends",
    "fencing-ignored": "an attempt that has lost its lease goes on",
    "key-anew": "every call of an effect has another key",
    "asked-again": "an attempt that continues asks the model again",
}


class _Store:
    """A store of which some methods are replaced."""

    def __init__(self, store: SessionStore) -> None:
        self._store: Any = store

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        return getattr(self._store, name)


class _Late(_Store):
    """Journal writes of one kind are done together with the next write of the turn."""

    def __init__(self, store: SessionStore, late: Callable[[Any], bool]) -> None:
        super().__init__(store)
        self._late = late
        self._held: dict[str, list[Any]] = defaultdict(list)

    async def journal(self, write: Any) -> None:  # noqa: ANN401 - as in server.py
        held = self._held[write.turn.id]
        if self._late(write):
            held.append(write)
            return
        while held:
            await self._store.journal(held.pop(0))
        await self._store.journal(write)


class _Unfenced(_Store):
    """No turn learns that its lease was lost."""

    async def journal(self, write: Any) -> None:  # noqa: ANN401 - as in server.py
        try:
            await self._store.journal(write)
        except SessionConflict:
            return

    async def renew(self, begin: object) -> bool:
        await self._store.renew(begin)
        return True


def broken_store(name: str, store: SessionStore) -> SessionStore:
    """The store of a variant; the store itself if it breaks something else, or nothing."""
    broken: Any = store
    if name == "journal-late":
        broken = _Late(store, lambda write: _is_open(write) and not write.audit)
    elif name == "outcome-late":
        broken = _Late(store, lambda write: _is_open(write) and bool(write.audit))
    elif name == "fencing-ignored":
        broken = _Unfenced(store)
    return broken  # type: ignore[no-any-return]


def _is_open(write: Any) -> bool:  # noqa: ANN401 - as in server.py
    return bool(write.turn.journal.status == "open")


def break_code(name: str) -> None:
    """Replace a function of the product, if the variant does."""
    if name == "key-anew":
        _key_anew()
    elif name == "asked-again":
        _asked_again()


def _key_anew() -> None:
    module: Any = importlib.import_module("seawall.agents.effects")
    make: Callable[..., object] = module.tool_context

    def broken(agent: object, call: object, turn: object, _: str, span: object) -> object:
        return make(agent, call, turn, secrets.token_hex(8), span)

    module.tool_context = broken


def _asked_again() -> None:
    module: Any = importlib.import_module("seawall.pipeline.answering")
    run: Callable[..., Awaitable[object]] = module.run_agent

    async def broken(agents: object, start: str, turn: Any, emit: object, answer: object) -> object:  # noqa: ANN401 - as in server.py
        if turn.pending is not None:
            turn = structs.replace(turn, pending=None, steps=0)
            answer = module.Answer(start)
        return await run(agents, start, turn, emit, answer)

    module.run_agent = broken
