"""Parameter styles: values as text in paths, queries, headers and cookies.

https://spec.openapis.org/oas/v3.1.1.html#style-values; null is a value that is not there, as in
RFC 6570. Values inside lists and objects that are lists or objects again are written as JSON:
there is no rule for them, except by `deepObject`.
"""

from typing import Any
from urllib.parse import quote

import msgspec

__all__ = [
    "COOKIE",
    "RESERVED",
    "STYLES",
    "escape",
    "form_pairs",
    "path_text",
    "query_pairs",
    "simple_text",
    "text_of",
]

STYLES: dict[str, tuple[str, ...]] = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
"""The styles of each location, its default first."""

RESERVED = ":/?@!$'()*,"
"""Characters that `allowReserved` leaves as they are; none that ends a name, a value or a query."""

COOKIE = "!#$%&'()*+-./:<=>?@[]^_`{|}~"
"""Characters that cookies may have (RFC 6265 §4.1.1): most servers do not decode them."""

_EXACT = 1 << 53
_MOST_LEVELS = 8  # of deepObject

_SEPARATORS = {"spaceDelimited": "%20", "pipeDelimited": "%7C"}


def escape(text: str, safe: str = "") -> str:
    """Percent-encode; unreserved characters are left.

    Args:
        text: The text.
        safe: Characters that are left, too.
    """
    return quote(text, safe=safe, errors="replace")


def text_of(value: Any) -> str:  # noqa: ANN401 - JSON
    """A value as text: strings as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        value = int(value)
    return msgspec.json.encode(value).decode()


def path_text(style: str, name: str, value: Any, *, explode: bool) -> str:  # noqa: ANN401 - JSON
    """A path parameter as what replaces its expression.

    Args:
        style: "simple", "label" or "matrix".
        name: Its name.
        value: Its value.
        explode: Whether each item stands for itself.
    """
    if style == "simple":
        return ",".join(_items(value, explode=explode, encoded=True))
    name = escape(name)
    if isinstance(value, dict) and explode:
        parts = _items(value, explode=True, encoded=True)
    elif isinstance(value, list) and explode:
        parts = _items(value, explode=True, encoded=True)
        if style == "matrix":
            parts = [f"{name}={each}" if each else name for each in parts]
    else:
        whole = ",".join(_items(value, explode=False, encoded=True))
        if style == "matrix":
            whole = f"{name}={whole}" if whole else name
        parts = [whole]
    mark = "." if style == "label" else ";"
    return "".join(f"{mark}{each}" for each in parts)


def simple_text(value: Any, *, explode: bool) -> str:  # noqa: ANN401 - JSON
    """A header's value; nothing is percent-encoded in headers."""
    return ",".join(_items(value, explode=explode, encoded=False))


def query_pairs(
    style: str,
    name: str,
    value: Any,  # noqa: ANN401 - JSON
    *,
    explode: bool,
    safe: str = "",
) -> list[str]:
    """A query or form parameter as `name=value` pairs, percent-encoded; none if it is not there.

    Args:
        style: "form", "spaceDelimited", "pipeDelimited" or "deepObject".
        name: Its name.
        value: Its value.
        explode: Whether each item is a pair of its own.
        safe: See `escape`.
    """
    if style == "deepObject" and isinstance(value, dict | list):
        return _deep_pairs(escape(name), value, safe=safe, level=0)
    key = escape(name)
    if value is None:
        return []
    if not isinstance(value, dict | list):
        return [f"{key}={escape(text_of(value), safe=safe)}"]
    if explode:
        items = _items(value, explode=True, encoded=True, safe=safe)
        return items if isinstance(value, dict) else [f"{key}={each}" for each in items]
    items = _items(value, explode=False, encoded=True, safe=safe.replace(",", ""))
    return [f"{key}={_SEPARATORS.get(style, ',').join(items)}"] if items else []


def form_pairs(name: str, value: Any) -> list[str]:  # noqa: ANN401 - JSON
    """A property of a form without an encoding: lists are repeated, objects are JSON."""
    if isinstance(value, dict):
        value = text_of(value)
    return query_pairs("form", name, value, explode=True)


def _items(
    value: Any,  # noqa: ANN401 - JSON
    *,
    explode: bool,
    encoded: bool,
    safe: str = "",
) -> list[str]:
    """A single value, the items of a list, or names and values of an object."""

    def written(each: Any) -> str:  # noqa: ANN401 - JSON
        text = text_of(each)
        return escape(text, safe=safe) if encoded else text

    if isinstance(value, list):
        return [written(each) for each in value if each is not None]
    if isinstance(value, dict):
        pairs = [(written(key), written(each)) for key, each in value.items() if each is not None]
        if explode:
            return [f"{key}={each}" for key, each in pairs]
        return [each for pair in pairs for each in pair]
    return [] if value is None else [written(value)]


def _deep_pairs(
    name: str,
    value: Any,  # noqa: ANN401 - JSON
    *,
    safe: str,
    level: int,
) -> list[str]:
    if value is None:
        return []
    if isinstance(value, dict | list) and level < _MOST_LEVELS:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        return [
            pair
            for key, each in members
            for pair in _deep_pairs(
                f"{name}%5B{escape(str(key))}%5D", each, safe=safe, level=level + 1
            )
        ]
    return [f"{name}={escape(text_of(value), safe=safe)}"]
