"""The arguments of a tool call: read as models write them, and in one canonical form."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

__all__ = ["canonical", "decode_arguments"]

T = TypeVar("T", bound=Struct)

_encode = msgspec.json.Encoder(order="sorted").encode


def decode_arguments(arguments: str, kind: type[T]) -> T:
    """The arguments, with defaults filled in; none at all may also be written as `null`.

    What is not of the right type is taken where its value is the same: 3.0 or "3" for the integer
    3, "true" for a boolean. Where null is not a value, it means absent. Nothing is rounded, cut
    or guessed.

    Raises:
        DecodeError: They are not JSON, or do not fit.
        UnicodeEncodeError: They have half of a surrogate pair.
        RecursionError: They are nested too deeply.
    """
    text = arguments.strip() or "{}"
    if text == "null":
        text = "{}"
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as strict:
        values = _convert(msgspec.json.decode(text), kind)
        if values is None or not _finite(msgspec.to_builtins(values)):  # "nan" is text elsewhere
            raise strict from None  # it says what was really written
        return values


def _convert(decoded: Any, kind: type[T]) -> T | None:  # noqa: ANN401 - JSON of any kind
    try:
        return msgspec.convert(decoded, kind, strict=False)
    except msgspec.ValidationError:
        if not isinstance(decoded, dict) or None not in decoded.values():
            return None
        given = {name: value for name, value in decoded.items() if value is not None}
        return _convert(given, kind)


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(each) for each in value.values())
    if isinstance(value, list):
        return all(_finite(each) for each in value)
    return True


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
