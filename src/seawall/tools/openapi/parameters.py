"""Parameters of an operation, and the object of arguments that a model fills in."""

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field

from seawall.tools.openapi.document import Document, DocumentFault
from seawall.tools.openapi.schemas import Key, SchemaReader
from seawall.tools.openapi.selection import Chosen, argument_name
from seawall.tools.openapi.styles import STYLES

__all__ = ["Arguments", "Parameter", "is_json", "read_parameters", "read_path"]

_MOST_PARAMETERS = 500
_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_expression = re.compile(r"\{([^{}]*)\}")
_LITERAL = "/:@!$&'()*+,;=-._~%"  # of a path; the specification wants the rest encoded


class Arguments(Struct):
    """The arguments of an operation while it is read.

    Attributes:
        properties: Schemas by name.
        required: The names of those that must be given.
        refers: What the schemas refer to.
    """

    properties: dict[str, Any] = field(default_factory=dict)
    required: list[str] = field(default_factory=list)
    refers: set[Key] = field(default_factory=set)

    def add(self, name: str, schema: dict[str, Any], *, required: bool) -> None:
        """Add an argument.

        Args:
            name: Its name.
            schema: Its schema.
            required: Whether it must be given.
        """
        self.properties[name] = schema
        if required:
            self.required.append(name)


class Parameter(Struct, frozen=True):
    """A parameter.

    Attributes:
        argument: Its name among the arguments.
        name: Its name in the request.
        location: "path", "query", "header" or "cookie".
        style: One of `STYLES`; "json" or "text" for one with `content`.
        explode: Whether each item stands for itself.
        reserved: Whether reserved characters are left as they are.
    """

    argument: str
    name: str
    location: str
    style: str
    explode: bool
    reserved: bool


def read_parameters(
    document: Document,
    schemas: SchemaReader,
    chosen: Chosen,
    hidden: Collection[tuple[str, str]],
    arguments: Arguments,
) -> list[Parameter]:
    """The parameters of an operation, those of its path included.

    Args:
        document: The document.
        schemas: Converts schemas.
        chosen: The operation.
        hidden: Location and name of parameters that are no arguments; headers in lower case.
        arguments: The parameters are added.

    Raises:
        DocumentFault: One cannot be sent.
    """
    declared = _declared(document, chosen)
    unknown = {where for where, _ in declared} - STYLES.keys()
    if unknown:
        raise DocumentFault(f"a parameter is in {min(unknown)[:40]!r}, which is not supported")
    found: list[Parameter] = []
    for location in STYLES:  # of two of one name, the first keeps it
        for (where, name), (value, file) in declared.items():
            folded = name.lower() if where == "header" else name
            if where != location or (where, folded) in hidden:
                continue
            if where == "path" and f"{{{name}}}" not in chosen.path:
                continue  # there is no place for it
            parameter = _parameter(value, name, where, arguments)
            schema = _schema(schemas, value, file, arguments.refers)
            required = value.get("required") is True or where == "path"
            arguments.add(parameter.argument, schema, required=required)
            found.append(parameter)
    return found


def _declared(
    document: Document, chosen: Chosen
) -> dict[tuple[str, str], tuple[dict[str, Any], str]]:
    """Parameters and their files by location and name; an operation's replace its path's."""
    declared: dict[tuple[str, str], tuple[dict[str, Any], str]] = {}
    for owner in (chosen.item, chosen.operation):
        given = owner.value.get("parameters")
        for each in given if isinstance(given, list) else ():
            node = document.follow(each, owner.file)
            if not isinstance(node.value, dict) or not isinstance(node.value.get("name"), str):
                raise DocumentFault("a parameter has no name")
            declared[str(node.value.get("in")), node.value["name"]] = (node.value, node.file)
    if len(declared) > _MOST_PARAMETERS:
        raise DocumentFault(f"it has more than {_MOST_PARAMETERS} parameters")
    return declared


def _schema(
    schemas: SchemaReader, parameter: dict[str, Any], file: str, refers: set[Key]
) -> dict[str, Any]:
    _, media = _content(parameter)
    given = parameter.get("schema") if media is None else media.get("schema")
    schema = schemas.read(given if given is not None else {}, file, refers)
    if isinstance(said := parameter.get("description"), str) and said.strip():
        schema = {**schema, "description": said}
    if parameter.get("deprecated") is True:
        schema = {**schema, "deprecated": True}
    example = parameter.get("example")
    if "examples" not in schema and isinstance(example, str | int | float):
        schema = {**schema, "examples": [example]}
    return schema


def _parameter(value: dict[str, Any], name: str, where: str, arguments: Arguments) -> Parameter:
    media_type, media = _content(value)
    style = value.get("style", STYLES[where][0])
    if media is not None:
        style = "json" if is_json(media_type) else "text"
    elif style not in STYLES[where]:
        raise DocumentFault(
            f"the parameter {name[:80]!r} has the style {style!r:.40}; in {where} there are "
            f"{', '.join(STYLES[where])}"
        )
    if where == "header" and not _token.fullmatch(name):
        raise DocumentFault(f"{name[:80]!r} is no name of a header")
    return Parameter(
        argument=argument_name(name, where, arguments.properties),
        name=name,
        location=where,
        style=style,
        explode=value.get("explode", style in ("form", "deepObject")) is True,
        reserved=value.get("allowReserved") is True,
    )


def read_path(template: str, parameters: list[Parameter], arguments: Arguments) -> tuple[str, ...]:
    """Text and arguments of a path, alternating; a query that it has stands at the end.

    Args:
        template: As the document has it.
        parameters: Those of the operation; what the document forgot to declare is added.
        arguments: Likewise.

    Raises:
        DocumentFault: There is an expression in a query.
    """
    # Some documents tell operations of one path apart by a fragment, which is never sent.
    template, mark, query = template.partition("#")[0].partition("?")
    if _expression.search(query):
        raise DocumentFault("the query of its path has an expression")
    names = {each.name: each.argument for each in parameters if each.location == "path"}
    parts = _expression.split(template)
    for index in range(1, len(parts), 2):
        name = parts[index]
        if name not in names:
            names[name] = argument_name(name, "path", arguments.properties)
            arguments.add(names[name], {"type": "string"}, required=True)
            parameters.append(
                Parameter(names[name], name, "path", "simple", explode=False, reserved=False)
            )
        parts[index] = names[name]
    path = [part if index % 2 else _literal(part) for index, part in enumerate(parts)]
    path[-1] += mark + _literal(query)
    return tuple(path)


def _literal(text: str) -> str:
    """The text of a path as it is sent; what is percent-encoded already stays."""
    return quote(text, safe=_LITERAL, errors="replace")


def _content(parameter: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """The type of a parameter with `content`, of which there is one, and its entry."""
    content = parameter.get("content")
    if isinstance(content, dict) and content:
        media_type, media = next(iter(content.items()))
        return media_type, media if isinstance(media, dict) else {}
    return "", None


def is_json(media_type: str) -> bool:
    """Whether a media type is JSON, or any."""
    plain = media_type.split(";", 1)[0].strip().lower()
    return plain in ("application/json", "*/*", "application/*") or plain.endswith("+json")
