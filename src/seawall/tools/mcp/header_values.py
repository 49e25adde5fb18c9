"""Arguments that a tool wants mirrored in HTTP headers: `x-mcp-header` of 2026-07-28.

https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["InvalidHeader", "Paths", "encode_value", "mirrored_headers", "parameter_headers"]

_MAX_HEADERS = 32
_SAFE_INTEGER = 2**53 - 1
_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_plain = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")
_ANNOTATION = "x-mcp-header"
_TYPES = ("string", "integer", "boolean")
_DATA = ("default", "examples", "const", "enum")  # keywords whose values are no schemas

Paths = Mapping[tuple[str, ...], bytes]


class InvalidHeader(Exception):
    """A tool's schema asks for headers in a way that the protocol does not allow."""


def parameter_headers(schema: Mapping[str, Any]) -> Paths:
    """The arguments that are mirrored, by path, each with the name of its header.

    Args:
        schema: Of the tool's arguments.

    Raises:
        InvalidHeader: The tool must not be used.
    """
    found: dict[tuple[str, ...], bytes] = {}
    names = set()
    for path, inner in _schemas(schema):
        if _ANNOTATION not in inner:
            continue
        name = inner[_ANNOTATION]
        if not isinstance(name, str) or not _token.fullmatch(name):
            raise InvalidHeader(f"{_ANNOTATION} is not the name of a header")
        if not path:
            raise InvalidHeader(f"{_ANNOTATION} {name!r} is not on a property of an object")
        if inner.get("type") not in _TYPES:
            raise InvalidHeader(f"{_ANNOTATION} {name!r} is on another type than {_TYPES}")
        if name.lower() in names:
            raise InvalidHeader(f"{_ANNOTATION} {name!r} is there twice")
        names.add(name.lower())
        found[path] = f"Mcp-Param-{name}".encode()
        if len(found) > _MAX_HEADERS:
            raise InvalidHeader(f"more than {_MAX_HEADERS} headers")
    return found


def mirrored_headers(paths: Paths, arguments: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """The headers of a call.

    Args:
        paths: Of `parameter_headers`.
        arguments: Of the call; valid by the schema.
    """
    headers = []
    for path, header in paths.items():
        value: Any = arguments
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            headers.append((header, b"true" if value else b"false"))
        elif isinstance(value, int) and abs(value) <= _SAFE_INTEGER:
            headers.append((header, b"%d" % value))
        elif isinstance(value, float) and value.is_integer() and abs(value) <= _SAFE_INTEGER:
            headers.append((header, b"%d" % int(value)))
        elif isinstance(value, str):
            headers.append((header, encode_value(value)))
    return headers


def encode_value(value: str) -> bytes:
    """A header's value; in Base64 if it is not plain ASCII or looks as if it were Base64."""
    encoded = value.startswith("=?base64?") and value.endswith("?=")
    if _plain.fullmatch(value) and not encoded:
        return value.encode("ascii")
    data = base64.b64encode(value.encode("utf-8", "surrogatepass"))
    return b"=?base64?" + data + b"?="


def _schemas(root: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...] | None, Mapping[str, Any]]]:
    """Every schema within a schema, with its path of properties; None for one that has none."""
    waiting: list[tuple[tuple[str, ...] | None, Any]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list):
            waiting.extend((None, each) for each in node)
        if not isinstance(node, Mapping):
            continue
        yield path, node
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, Mapping):
                names = value.items()
                waiting.extend(
                    ((*path, n) if path is not None else None, each) for n, each in names
                )
            elif keyword in ("$defs", "definitions", "patternProperties", "dependentSchemas"):
                named = value.values() if isinstance(value, Mapping) else ()
                waiting.extend((None, each) for each in named)
            elif keyword not in _DATA:
                waiting.append((None, value))
