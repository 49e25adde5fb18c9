"""What users ask for in the harness: a text that names operations, which the model can read."""

import json

import msgspec
from msgspec import Struct

__all__ = ["KEYED", "TOOLS", "Operation", "Wish", "parse", "render"]

KEYED = "refund_keyed"
TOOLS = (KEYED, "refund_unkeyed", "refund_checked")


class Operation(Struct, frozen=True, kw_only=True):
    """A refund that a user wants once.

    Attributes:
        op: Its id, which every call carries.
        order: The order.
        amount: The amount.
        tool: The tool that makes it.
    """

    op: str
    order: str
    amount: float
    tool: str


class Wish(Struct, frozen=True, kw_only=True):
    """The text of a turn.

    Attributes:
        operations: In the order in which they are named.
        asks: Whether the user asks first whether they were made, and wants those that were not.
        fails: Whether the model fails as soon as the operations have outcomes.
    """

    operations: tuple[Operation, ...]
    asks: bool = False
    fails: bool = False


def render(wish: Wish) -> str:
    """The text of a wish."""
    return "Refunds: " + json.dumps(msgspec.to_builtins(wish))


def parse(text: str) -> Wish | None:
    """The wish of a text; None if it is another text."""
    _, found, rest = text.partition("Refunds: ")
    return msgspec.json.decode(rest, type=Wish) if found else None
