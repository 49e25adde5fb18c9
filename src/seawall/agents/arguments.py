"""The arguments of a tool call: validated, and in one canonical form whatever their wording."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

__all__ = ["canonical", "decode_arguments"]

T = TypeVar("T", bound=Struct)

_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode


def decode_arguments(text: str, kind: type[T]) -> T:
    """The arguments that a model wrote as JSON; defaults are filled in.

    A whole number may be written as JSON Schema allows it: 3, 3.0 or 3e0. Where null is not a
    value, it means absent.

    Raises:
        msgspec.DecodeError, UnicodeEncodeError, RecursionError: they are not valid.
    """
    text = text or "{}"
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        try:
            given = _by_value(_decode_any(text))
            if type(given) is dict:
                given = {name: value for name, value in given.items() if value is not None}
            return msgspec.json.decode(_encode(given), type=kind)
        except (msgspec.DecodeError, ValueError):
            raise error from None


def canonical(arguments: Struct) -> bytes:
    """One encoding for all wordings of the same arguments.

    Keys are sorted, defaults are there, and numbers and moments stand by their value.
    """
    plain = msgspec.to_builtins(arguments, builtin_types=(Decimal, datetime), str_keys=True)
    return _encode(_by_value(plain))


def _by_value(value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    kind = type(value)
    if kind is dict:
        return {key: _by_value(each) for key, each in value.items()}
    if kind is list or kind is tuple:
        return [_by_value(each) for each in value]
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is Decimal:
        return _decimal(value)
    if kind is datetime:
        return (value if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _decimal(value: Decimal) -> str:
    try:
        return str(value.normalize() + 0)  # no -0
    except ArithmeticError:
        return str(value)
