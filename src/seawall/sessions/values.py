"""What a store is given to write, checked before it gets there; a database refuses whole batches.

A store must be able to read what it wrote: a lone surrogate cannot be encoded, and a number that
is not finite would come back as null.
"""

from math import isfinite
from typing import Any

import msgspec
from msgspec import structs

from seawall.errors import InvalidField, TurnLimitReached
from seawall.sessions.port import Commit, Pending
from seawall.turn import AssistantMessage, Message, ToolMessage, TurnRecord

__all__ = [
    "MAX_PAGE_BYTES",
    "check_limit",
    "check_size",
    "encode_pending",
    "encode_state",
    "encode_turn",
    "is_name",
    "size_of",
]

MAX_PAGE_BYTES = 8 << 20
"""A page of a list ends with the turn that reaches this."""

_MAX_TURN_BYTES = 32 << 20
_MAX_NAME_BYTES = 1_000  # of the 1,024 of a sort key of DynamoDB
_MAX_LIMIT = 1_000_000

_encode = msgspec.json.Encoder().encode


def is_name(*names: str) -> bool:
    """Whether there may be something of these names in a store: text of bounded length, no NUL."""
    for name in names:
        if "\0" in name or len(name) > _MAX_NAME_BYTES:
            return False
        if not name.isascii():
            try:
                if len(name.encode()) > _MAX_NAME_BYTES:
                    return False
            except UnicodeEncodeError:
                return False
    return True


def check_limit(limit: int) -> None:
    """How many things of a list are asked for.

    Raises:
        InvalidField: no store can be asked for so many.
    """
    if not 1 <= limit <= _MAX_LIMIT:
        raise InvalidField(f"Must be a number from 1 to {_MAX_LIMIT}.", field="limit")


def check_size(commit: Commit) -> None:
    """A turn must fit into a store.

    Raises:
        TurnLimitReached: it does not.
    """
    if (size := size_of(commit)) > _MAX_TURN_BYTES:
        raise TurnLimitReached(
            f"The turn is too large to be kept: {size} characters; {_MAX_TURN_BYTES} are possible."
        )


def size_of(commit: Commit) -> int:
    """About how many bytes a commit takes: the characters of its texts."""
    size = sum(map(_size, commit.turn.messages))
    return size + sum(len(name) + len(text) for name, text in commit.state.items())


def encode_turn(turn: TurnRecord) -> bytes:
    """A turn as JSON that can be read again; what cannot be kept of it is replaced."""
    if not isfinite(turn.confidence):
        turn = structs.replace(turn, confidence=0.0)
    return _encoded(turn)


def encode_state(state: dict[str, str]) -> bytes:
    """The notes of the tools as JSON."""
    return _encoded(state)


def encode_pending(pending: Pending) -> bytes:
    """A promise as JSON."""
    return _encoded(pending)


def _encoded(value: object) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_clean(msgspec.to_builtins(value)))


def _clean(value: Any) -> Any:  # noqa: ANN401 - plain data of any kind
    """Plain data with U+FFFD in place of each lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value


def _size(message: Message) -> int:
    if type(message) is AssistantMessage:
        return len(message.text) + sum(
            len(each.name) + len(each.arguments) for each in message.tool_calls
        )
    return len(message.content) if type(message) is ToolMessage else len(message.text)  # type: ignore[union-attr]
