"""Each change once: a tool call that is repeated, because its turn was, answers as before."""

import functools
from collections.abc import Callable
from typing import Any

import msgspec
from examples.store.catalogue import Catalogue

from seawall import ToolContext

__all__ = ["once"]


def once(catalogue: Catalogue, change: Callable[..., Any]) -> Callable[..., Any]:
    """The tool `change`, which does its work only the first time that a call of it arrives.

    A turn whose server died between the change and the commit is run again under the same
    idempotency key, and its calls carry the same keys again (`ToolContext.idempotency_key`),
    however the model words the same arguments. What was answered is kept in the transaction that
    makes the change. A refusal is not kept: it changed nothing, so it is judged anew.
    """

    @functools.wraps(change)
    def done_once(*, context: ToolContext, **arguments: object) -> str:
        call = f"{change.__name__} {msgspec.json.encode(arguments).decode()}"
        with catalogue.change():
            answer = catalogue.effect(context.idempotency_key, call)
            if answer is None:
                result = change(**arguments, context=context)
                answer = msgspec.json.encode(result).decode()
                catalogue.record(context.idempotency_key, call, answer)
        return answer

    return done_once
