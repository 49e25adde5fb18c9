"""The arguments of a tool call, decoded as models write them: strictly, then without loss."""

import math
from typing import TypeVar

import msgspec
from msgspec import Struct

__all__ = ["decode_arguments"]

T = TypeVar("T", bound=Struct)


def decode_arguments(arguments: str, kind: type[T]) -> T:
    """The arguments; no arguments at all may also be written as `null`.

    What is not of the right type is taken where its value is the same: 3.0 or "3" for the integer
    3, "true" for a boolean. Nothing is rounded, cut or guessed.

    Raises:
        DecodeError: They are not JSON, or do not fit.
        UnicodeEncodeError: They have half of a surrogate pair.
    """
    text = arguments.strip() or "{}"
    if text == "null":
        text = "{}"
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as strict:
        decoded = msgspec.json.decode(text)
        try:
            values = msgspec.convert(decoded, kind, strict=False)
        except msgspec.ValidationError:
            raise strict from None  # it says what was really written
        if not _finite(msgspec.to_builtins(values)):  # "nan" is a number to nobody else
            raise strict from None
        return values


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(each) for each in value.values())
    if isinstance(value, list):
        return all(_finite(each) for each in value)
    return True
