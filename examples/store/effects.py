"""Idempotent changes: a repeated tool call returns the recorded answer."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from examples.store.catalogue import Catalogue

from seawall import ToolContext

__all__ = ["once"]


class _OnCatalogue(Protocol):
    catalogue: Catalogue


def once(change: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method idempotent: it runs `change` only the first time that a call arrives.

    A call whose outcome was lost is repeated with the same key (`ToolContext.idempotency_key`),
    which is what `retry="key"` declares. The answer is recorded in the transaction that makes the
    change. A refusal is not recorded: it changed nothing, so it is checked again.
    """

    @functools.wraps(change)
    def done_once(self: _OnCatalogue, *, context: ToolContext, **arguments: object) -> str:
        call = f"{change.__name__} {msgspec.json.encode(arguments).decode()}"
        with self.catalogue.change():
            answer = self.catalogue.effect(context.idempotency_key, call)
            if answer is None:
                result = change(self, **arguments, context=context)
                answer = msgspec.json.encode(result).decode()
                self.catalogue.record(context.idempotency_key, call, answer)
        return answer

    return done_once
