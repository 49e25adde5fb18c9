"""Arguments of tool calls: lenient decoding of what models write, and a canonical form."""

import math
import re
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

__all__ = ["by_name", "canonical", "canonical_json", "decode_arguments"]

T = TypeVar("T", bound=Struct)

_EXACT = 1 << 53  # up to here a float is the whole number that was written

_encode = msgspec.json.Encoder(order="sorted").encode
_long_number = re.compile(r"(?<!\d)\d{16,}[.eE]")  # begins once for a run of digits: linear


def decode_arguments(arguments: str, kind: type[T]) -> T:
    """Decode arguments and fill in defaults; no arguments at all may be written as `null`.

    A value of another type is accepted if its value is the same: 3.0 or "3" for the integer 3,
    "true" for a boolean. Where null is not a value, it means absent. Nothing is rounded, truncated
    or guessed.

    Args:
        arguments: JSON text.
        kind: The type to decode to.

    Raises:
        DecodeError: They are not JSON, or do not fit.
        UnicodeEncodeError: They contain half of a surrogate pair.
        RecursionError: They are nested too deeply.
    """
    text = arguments.strip() or "{}"
    if text == "null":
        text = "{}"
    try:
        taken = msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as strict:
        values = _convert(msgspec.json.decode(text), kind)
        if values is None or not _finite(
            msgspec.to_builtins(values)
        ):  # "nan" is accepted as a float
            raise strict from None  # it names the type that was written
        taken = values
    if _long_number.search(text) and _rounded(
        msgspec.json.decode(text), msgspec.to_builtins(taken)
    ):
        raise msgspec.ValidationError("A whole number is too long to be written as a decimal")
    return taken


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
    if isinstance(value, list | tuple):
        return all(_finite(each) for each in value)
    return True


def _rounded(written: Any, taken: Any) -> bool:  # noqa: ANN401 - JSON of any kind
    """Whether an integer lost precision because it was read as a float."""
    if type(taken) is int:
        fraction = type(written) is float or (type(written) is str and not written.isdigit())
        return fraction and abs(taken) >= _EXACT and written != str(taken)
    if isinstance(written, dict) and isinstance(taken, dict):
        return any(_rounded(written[key], taken[key]) for key in written.keys() & taken.keys())
    if isinstance(written, list) and isinstance(taken, list | tuple):
        return any(map(_rounded, written, taken))
    return False


def canonical(arguments: Struct) -> bytes:
    """Encode arguments so that all wordings of the same arguments are equal.

    Keys and sets are sorted, defaults are filled in, and numbers and times are compared by value.
    """
    plain = msgspec.to_builtins(
        arguments, builtin_types=(Decimal, datetime), str_keys=True, order="sorted"
    )
    return canonical_json(plain)


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - JSON of any kind
    """Encode decoded JSON so that equal values are equal: sorted keys, numbers by value."""
    return _encode(_by_value(value))


def by_name(arguments: Struct) -> dict[str, Any]:
    """Arguments as plain data for rules: as in JSON, but decimal numbers are numbers."""
    plain = msgspec.to_builtins(arguments, builtin_types=(Decimal,), str_keys=True, order="sorted")
    return {name: _as_in_json(value) for name, value in plain.items()}


def _as_in_json(value: Any) -> Any:  # noqa: ANN401 - JSON of any kind
    """A value with a list for each tuple."""
    if isinstance(value, dict):
        return {key: _as_in_json(each) for key, each in value.items()}
    return [_as_in_json(each) for each in value] if isinstance(value, list | tuple) else value


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
        digits = Context(prec=max(28, len(value.as_tuple().digits)))  # none is rounded away
        return str(value.normalize(digits)) if value else "0"
    except ArithmeticError:
        return str(value)
