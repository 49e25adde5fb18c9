"""Lenient JSON decoder for the deviations of model servers from their documented formats.

What strict decoding refuses (see `LenientDecoder`) is fitted to the expected
shape: null is absent, a number may be in quotes, values that are no objects are skipped, and bytes
that are not UTF-8 become replacement characters. Only an object that cannot be read at all, or that
has a wrong type where a part of the answer must be, is refused.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

__all__ = ["decode_leniently", "whole_number"]

T = TypeVar("T", bound=Struct)

_Shape: TypeAlias = Any  # of `msgspec.inspect`, which is imported when it is first needed
_BEFORE_JSON = b"\xef\xbb\xbf \t\r\n"
_ABSENT = object()


def decode_leniently(data: bytes, kind: type[T]) -> T | None:
    """See `LenientDecoder`, which tries strict decoding before."""
    import json  # noqa: PLC0415 - reads what msgspec refuses: NaN, control characters, surrogates

    if not data[:64].lstrip(_BEFORE_JSON).startswith((b"{", b"[")):
        return None  # a keep-alive of some form
    text = data.decode("utf-8-sig", "replace").strip()
    try:
        value = json.loads(text, strict=False, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        if text.startswith(("{", "[{")):
            raise ValueError("neither JSON nor a keep-alive") from error
        return None
    if isinstance(value, list):  # some servers wrap an error in a list
        value = next((each for each in value if isinstance(each, dict)), None)
    if not isinstance(value, dict):
        return None
    try:
        return _struct(value, _shape(kind))  # type: ignore[return-value]
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deeply") from error


@cache
def _shape(kind: type[Struct]) -> _Shape:
    from msgspec import inspect  # noqa: PLC0415 - only for what strict decoding refuses

    return inspect.type_info(kind)


def _fit(value: object, shape: _Shape) -> object:
    """Return the value in the expected shape; absent where it cannot be.

    Raises:
        ValueError: An object or a list is expected, and something else is there.
    """
    if value is None:
        return _ABSENT
    return _FITTING.get(type(shape).__name__, _as_it_is)(value, shape)


def _struct(value: object, shape: _Shape) -> object:
    if not isinstance(value, dict):
        raise _unfit(f"{shape.cls.__name__} expected, not {type(value).__name__}")
    fields = {}
    for field in shape.fields:
        found = _fit(value.get(field.encode_name), field.type)
        if found is not _ABSENT:
            fields[field.name] = found
    return shape.cls(**fields)


def _union(value: object, shape: _Shape) -> object:
    """Fit to the first of the shapes that accepts the value."""
    refused: ValueError | None = None
    for each in shape.types:
        if type(each).__name__ == "NoneType":
            continue
        try:
            found = _fit(value, each)
        except ValueError as error:
            refused = error
            continue
        if found is not _ABSENT:
            return found
    if refused is not None:
        raise refused
    return _ABSENT


def _list(value: object, shape: _Shape) -> object:
    """Keep the items that fit; a single object is a list of one."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise _unfit(f"a list expected, not {type(value).__name__}")
    item = shape.item_type
    if type(item).__name__ == "StructType":
        value = [each for each in value if isinstance(each, dict)]
    fitted = [_fit(each, item) for each in value]
    return [each for each in fitted if each is not _ABSENT]


def _dict(value: object, shape: _Shape) -> object:  # noqa: ARG001 - same signature for all
    return _encodable(value) if isinstance(value, dict) else _ABSENT


def _string(value: object, shape: _Shape) -> object:  # noqa: ARG001 - same signature for all
    return _encodable(value) if isinstance(value, str) else _ABSENT


def _integer(value: object, shape: _Shape) -> object:  # noqa: ARG001 - same signature for all
    whole = whole_number(value)
    return _ABSENT if whole is None else whole


def _raw(value: object, shape: _Shape) -> object:  # noqa: ARG001 - same signature for all
    return msgspec.Raw(msgspec.json.encode(_encodable(value)))


def _as_it_is(value: object, shape: _Shape) -> object:  # noqa: ARG001 - same signature for all
    return _encodable(value)


_FITTING: dict[str, Callable[[object, _Shape], object]] = {
    "StructType": _struct,
    "UnionType": _union,
    "ListType": _list,
    "DictType": _dict,
    "StrType": _string,
    "IntType": _integer,
    "RawType": _raw,
}


def _unfit(what: str) -> ValueError:
    return ValueError(what)


def whole_number(value: object) -> int | None:
    """Return an integer, also given as 3.0 or "3"; None for anything else."""
    if isinstance(value, str) and len(value) <= 20 and value.isascii():
        value = int(value) if value.isdigit() else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return None


def _encodable(value: object) -> object:
    """Replace unpaired surrogates, which can be neither sent nor stored."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    return value
