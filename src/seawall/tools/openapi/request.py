"""Arguments of an operation as an HTTP request."""

import hashlib
import re
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from seawall.tools.openapi.bodies import Body, Encoding
from seawall.tools.openapi.operations import Operation
from seawall.tools.openapi.parameters import Parameter
from seawall.tools.openapi.styles import (
    COOKIE,
    RESERVED,
    form_pairs,
    path_text,
    query_pairs,
    simple_text,
    text_of,
)

__all__ = ["HttpRequest", "UnsendableArgument", "build_request"]

_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_separators = re.compile(r"[/\\]")
_DOTS = ("", ".", "..")


class UnsendableArgument(ValueError):
    """An argument fits its schema and cannot be sent all the same; the message is for the model."""


class HttpRequest(Struct, frozen=True):
    """A request.

    Attributes:
        method: In upper case.
        url: The whole address.
        headers: Without those that the connection needs.
        body: The body.
    """

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def build_request(
    operation: Operation, arguments: dict[str, Any], idempotency_key: str = ""
) -> HttpRequest:
    """The request of a call.

    Args:
        operation: The operation.
        arguments: Valid by its schema. What is not among them is not sent, defaults included.
        idempotency_key: Sent with an effect, unless empty.

    Raises:
        UnsendableArgument: A part of the path would be empty or "..", or a header has a line break.
    """
    given = {each.argument: each for each in operation.parameters if each.argument in arguments}
    path = list(operation.path)
    for index in range(1, len(path), 2):
        path[index] = _path_part(given.get(path[index]), path[index], arguments.get(path[index]))
    query: list[str] = []
    headers = [(b"accept", operation.accept.encode("ascii"))]
    cookies: list[str] = []
    for parameter in given.values():
        value = arguments[parameter.argument]
        if parameter.location == "query":
            query += _pairs(parameter, value, RESERVED if parameter.reserved else "")
        elif parameter.location == "header" and value is not None:
            headers.append((parameter.name.encode("ascii"), _header(parameter, value)))
        elif parameter.location == "cookie":
            cookies += _pairs(parameter, value, COOKIE)
    if cookies:
        headers.append((b"cookie", "; ".join(cookies).encode("ascii")))
    content = b""
    if operation.body is not None and (sent := _body_value(operation.body, arguments)) is not None:
        media_type, content = _encoded(operation.body, sent[0])
        headers.append((b"content-type", media_type.encode("ascii")))
    if idempotency_key and operation.changes and operation.key_header:
        headers.append((operation.key_header.encode("ascii"), idempotency_key.encode("ascii")))
    url = operation.server + "".join(path)
    if query:
        url = f"{url}{'&' if '?' in url else '?'}{'&'.join(query)}"
    return HttpRequest(operation.method, url, tuple(headers), content)


def _path_part(parameter: Parameter | None, argument: str, value: Any) -> str:  # noqa: ANN401 - JSON
    if parameter is None or value is None or value in ("", [], {}):
        raise UnsendableArgument(f"{argument} must not be empty.")
    if parameter.style in ("json", "text"):
        text = quote(_content_text(parameter, value), safe="", errors="replace")
    else:
        text = path_text(parameter.style, parameter.name, value, explode=parameter.explode)
    # A server may decode a path before it takes it apart.
    for each in _separators.split(_plain_text(value)):
        if each.split(";", 1)[0] in _DOTS[1:]:
            raise UnsendableArgument(f"{argument} must not have '.' or '..' as a part of its path.")
    if text in _DOTS:
        raise UnsendableArgument(f"{argument} must not be empty, '.' or '..'.")
    return text


def _plain_text(value: Any) -> str:  # noqa: ANN401 - JSON
    """A value's pieces of text, as parts of a path."""
    if isinstance(value, dict):
        return "/".join(f"{key}/{_plain_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "/".join(map(_plain_text, value))
    return text_of(value)


def _content_text(parameter: Parameter, value: Any) -> str:  # noqa: ANN401 - JSON
    if parameter.style == "text":
        return text_of(value)
    return msgspec.json.encode(value).decode()


def _pairs(parameter: Parameter, value: Any, safe: str) -> list[str]:  # noqa: ANN401 - JSON
    style = parameter.style
    if style in ("json", "text"):
        value, style = _content_text(parameter, value), "form"
    return query_pairs(style, parameter.name, value, explode=parameter.explode, safe=safe)


def _header(parameter: Parameter, value: Any) -> bytes:  # noqa: ANN401 - JSON
    if parameter.style in ("json", "text"):
        text = _content_text(parameter, value)
    else:
        text = simple_text(value, explode=parameter.explode)
    if _CONTROLS.search(text):
        raise UnsendableArgument(f"{parameter.argument} must not have line breaks.")
    return text.strip().encode("utf-8", "replace")


def _body_value(body: Body, arguments: dict[str, Any]) -> tuple[Any] | None:
    """The body's value; None if there is none to send."""
    if body.argument:
        return (arguments[body.argument],) if body.argument in arguments else None
    value = {name: arguments[key] for key, name in body.properties.items() if key in arguments}
    return (value,) if value or body.required else None


def _encoded(body: Body, value: Any) -> tuple[str, bytes]:  # noqa: ANN401 - JSON
    """Its media type with parameters, and its bytes."""
    if body.kind == "json":
        return body.media_type, msgspec.json.encode(value)
    if body.kind == "text":
        return f"{body.media_type}; charset=utf-8", text_of(value).encode("utf-8", "replace")
    members = value if isinstance(value, dict) else {}
    if body.kind == "form":
        pairs = [
            pair
            for name, each in members.items()
            for pair in _form(name, each, body.encodings.get(name, Encoding()))
        ]
        return body.media_type, "&".join(pairs).encode("ascii")
    parts = [
        _part(name, one, body.encodings.get(name, Encoding()))
        for name, each in members.items()
        for one in (each if isinstance(each, list) else [each])
        if one is not None
    ]
    boundary = hashlib.sha256(b"\0".join(parts)).hexdigest()  # in no part, short of a collision
    lines = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), each) for each in parts)
    return f"{body.media_type}; boundary={boundary}", b"%b--%b--\r\n" % (lines, boundary.encode())


def _form(name: str, value: Any, encoding: Encoding) -> list[str]:  # noqa: ANN401 - JSON
    if not encoding.style:
        return form_pairs(name, value)
    return query_pairs(
        encoding.style,
        name,
        value,
        explode=encoding.explode,
        safe=RESERVED if encoding.reserved else "",
    )


def _part(name: str, value: Any, encoding: Encoding) -> bytes:  # noqa: ANN401 - JSON
    """A part of a multipart body: its head and its content."""
    media_type = encoding.media_type
    if not media_type:
        media_type = (
            "application/json" if isinstance(value, dict | list) else "text/plain; charset=utf-8"
        )
    quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    file = f'; filename="{quoted}"' if encoding.file else ""
    head = f'content-disposition: form-data; name="{quoted}"{file}\r\ncontent-type: {media_type}'
    return f"{head}\r\n\r\n{text_of(value)}".encode("utf-8", "replace")
