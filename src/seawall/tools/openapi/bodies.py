"""Bodies of requests: which of those that a document offers is sent, and how."""

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from seawall.tools.openapi.document import Document, DocumentFault, Node
from seawall.tools.openapi.parameters import Arguments, is_json
from seawall.tools.openapi.schemas import Key, SchemaReader
from seawall.tools.openapi.selection import argument_name
from seawall.tools.openapi.styles import STYLES

__all__ = ["Body", "Encoding", "is_media_type", "read_body"]

_media_type = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+/[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# The kinds of bodies, the preferred one first.
_KINDS: dict[str, Callable[[str], bool]] = {
    "json": is_json,
    "form": lambda each: each == "application/x-www-form-urlencoded",
    "multipart": lambda each: each == "multipart/form-data",
    "text": lambda each: each.startswith("text/") or each.endswith(("/xml", "+xml", "/yaml")),
}
_DEFAULTS = {"json": "application/json", "text": "text/plain"}
# Keywords beside which the properties of a body can become arguments of their own.
_PLAIN = frozenset(
    {"type", "properties", "required", "title", "description", "example", "examples", "deprecated"}
    | {"xml", "externalDocs", "additionalProperties"}
)


class Encoding(Struct, frozen=True):
    """How a property of a form is sent.

    Attributes:
        media_type: Of its part; empty for what its value suggests.
        style: Of a URL-encoded form; empty if the document does not say.
        explode: See `Parameter`.
        reserved: See `Parameter`.
        file: Whether its part is a file.
    """

    media_type: str = ""
    style: str = ""
    explode: bool = True
    reserved: bool = False
    file: bool = False


class Body(Struct, frozen=True):
    """The body of a request.

    Attributes:
        media_type: Its type.
        kind: "json", "form", "multipart" or "text".
        required: Whether it is always sent.
        argument: The argument that it is; empty if its properties are arguments.
        properties: Its properties by argument, in that case.
        encodings: Of properties of a form.
    """

    media_type: str
    kind: str
    required: bool
    argument: str
    properties: dict[str, str]
    encodings: dict[str, Encoding]


def read_body(
    document: Document, schemas: SchemaReader, given: object, file: str, arguments: Arguments
) -> Body | None:
    """The body of an operation; None if it has none, or an optional one that cannot be sent.

    If the body is an object whose properties can stand beside the parameters, they are arguments;
    else the body is one.

    Args:
        document: The document.
        schemas: Converts schemas.
        given: `requestBody`.
        file: The file that it is in.
        arguments: Those of the body are added.

    Raises:
        DocumentFault: It is required, and cannot be sent.
    """
    node = document.follow(given, file)
    value = node.value if isinstance(node.value, dict) else {}
    needed = value.get("required") is True
    content = value.get("content")
    offered = content if isinstance(content, dict) else {}
    chosen, kind = _choice(offered)
    if not kind:
        if needed:
            types = ", ".join(map(str, offered))[:200] or "none"
            raise DocumentFault(f"its body is required, in a form not supported: {types}")
        return None
    media_type = chosen.split(";", 1)[0].strip()
    if "*" in media_type:
        media_type = _DEFAULTS[kind]
    media = offered[chosen] if isinstance(offered[chosen], dict) else {}
    plain = document.follow(media.get("schema", {}), node.file)
    encodings = _encodings(document, media, plain, kind)
    if _is_flat(plain.value, kind, needed=needed):
        properties = _add_properties(schemas, plain, arguments)
        if properties is not None:
            return Body(media_type, kind, needed, "", properties, encodings)
    schema: dict[str, Any] = {"type": "string"}
    if kind != "text":
        schema = schemas.read(media.get("schema", {}), node.file, arguments.refers)
    if isinstance(said := value.get("description"), str) and said.strip():
        schema = {**schema, "description": said}
    argument = argument_name("body", "request", arguments.properties)
    arguments.add(argument, schema, required=needed)
    return Body(media_type, kind, needed, argument, {}, encodings)


def is_media_type(value: object) -> bool:
    """Whether a value is a media type without parameters."""
    return isinstance(value, str) and _media_type.fullmatch(value) is not None


def _choice(content: dict[str, Any]) -> tuple[str, str]:
    """The type of body to send of those that are offered, and its kind; empty if there is none."""
    for kind, fits in _KINDS.items():
        for media_type in content:
            plain = media_type.split(";", 1)[0].strip().lower()
            if fits(plain) and is_media_type(plain):
                return media_type, kind
    return "", ""


def _is_flat(schema: object, kind: str, *, needed: bool) -> bool:
    """Whether the properties of a body can be arguments of their own, and mean the same."""
    if kind == "text" or not isinstance(schema, dict):
        return False
    counts = {each for each in schema if not each.startswith("x-")}
    return (
        counts <= _PLAIN
        and isinstance(schema.get("properties"), dict)
        and bool(schema["properties"])
        and schema.get("type", "object") == "object"
        and schema.get("additionalProperties", False) is False
        and (needed or not schema.get("required"))
    )


def _add_properties(
    schemas: SchemaReader, plain: Node, arguments: Arguments
) -> dict[str, str] | None:
    """Add the properties of a body to the arguments, unless a name is there already.

    Returns:
        Properties by argument.
    """
    refers: set[Key] = set()
    schema = schemas.read(plain.value, plain.file, refers)
    table = schema.get("properties", {})
    names = {argument_name(name, "body", ()): name for name in table}
    if len(names) < len(table) or names.keys() & arguments.properties.keys():
        return None
    arguments.refers |= refers
    required = schema.get("required", ())
    for argument, name in names.items():
        arguments.add(argument, table[name], required=name in required)
    return names


def _encodings(
    document: Document, media: dict[str, Any], plain: Node, kind: str
) -> dict[str, Encoding]:
    """How properties of a form are sent, where it is not what their values suggest."""
    if kind not in ("form", "multipart"):
        return {}
    found: dict[str, Encoding] = {}
    properties = plain.value.get("properties") if isinstance(plain.value, dict) else None
    for name, each in properties.items() if isinstance(properties, dict) else ():
        node = document.follow(each, plain.file)
        schema = node.value
        if isinstance(schema, dict) and "items" in schema:  # each is a part
            schema = document.follow(schema["items"], node.file).value
        if isinstance(schema, dict) and (
            schema.get("format") == "binary" or "contentMediaType" in schema
        ):
            written = schema.get("contentMediaType")
            media_type = str(written) if is_media_type(written) else "application/octet-stream"
            found[name] = Encoding(media_type=media_type, file=True)
    given = media.get("encoding")
    for name, each in given.items() if isinstance(given, dict) else ():
        if isinstance(each, dict):
            found[name] = _encoding(name, each, found.get(name, Encoding()))
    return found


def _encoding(name: str, given: dict[str, Any], before: Encoding) -> Encoding:
    style = given.get("style", "form" if {"explode", "allowReserved"} & given.keys() else "")
    if style not in ("", *STYLES["query"]):
        raise DocumentFault(f"the encoding of {name[:80]!r} has the style {style!r:.40}")
    media_type = str(given.get("contentType", "")).split(",", 1)[0].strip()
    return Encoding(
        media_type=media_type if is_media_type(media_type) else before.media_type,
        style=style,
        explode=given.get("explode", style in ("form", "deepObject")) is True,
        reserved=given.get("allowReserved") is True,
        file=before.file,
    )
