"""Tools that a client offers: their definitions in a request, checked and bounded."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from seawall.config import ServerSettings
from seawall.errors import InvalidField
from seawall.hosts.http.bodies import checked_text, field_error
from seawall.turn import AnswerOptions, ClientTool

__all__ = [
    "MAX_TOOLS",
    "TOOL_NAME_PATTERN",
    "OwnToolDefinition",
    "ToolDefinition",
    "client_options",
    "client_tools",
    "tool_definitions",
]

MAX_TOOLS = 128
"""Of a request; as in OpenAI's API."""

TOOL_NAME_PATTERN = "^[A-Za-z0-9_-]{1,64}$"

_MAX_BYTES = 65_536  # of all definitions of a request
_MAX_USABLE = 2_048
_usable: OrderedDict[bytes, None] = OrderedDict()
"""Digests of schemas that were checked: a client sends the same with each of its requests."""

_CHOICES = ("auto", "none", "required")
_name = re.compile(TOOL_NAME_PATTERN[:-1] + r"\Z")


class ToolDefinition(Struct, frozen=True):
    """A tool as a client describes it.

    Attributes:
        name: Letters, digits, `_` and `-`.
        description: For the model.
        parameters: JSON Schema object; none for no parameters.
        strict: Whether only arguments that match the schema reach the client.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OwnToolDefinition(ToolDefinition, frozen=True, forbid_unknown_fields=True):
    """The same in formats of our own, where nothing else may be in it."""


def tool_definitions(
    sent: Sequence[object], field: str, *, closed: bool = False
) -> list[ToolDefinition]:
    """Definitions that were not decoded with their body.

    Args:
        sent: As sent.
        field: Path of their list in the body.
        closed: Whether unknown members are errors.

    Raises:
        InvalidField: A member is missing, unknown or of the wrong type.
    """
    kind = OwnToolDefinition if closed else ToolDefinition
    made: list[ToolDefinition] = []
    for index, each in enumerate(sent[: MAX_TOOLS + 1]):
        try:
            made.append(msgspec.convert(each, kind))
        except msgspec.ValidationError as error:
            fault = field_error(str(error))
            path = f"{field}[{index}].{fault.field or ''}".rstrip(".")
            raise InvalidField(fault.detail, field=path) from error
    return made


def client_options(
    tools: Sequence[object] | None,
    choice: str | None,
    *,
    parallel: bool | None,
    instructions: str | None,
    settings: ServerSettings,
) -> AnswerOptions | None:
    """What a client brings to a turn, in formats of our own; None for nothing.

    Args:
        tools: As sent.
        choice: "auto", "none", "required", or the name of a tool; as sent.
        parallel: Whether one step may have several calls; as sent.
        instructions: As sent.
        settings: Their limits apply.

    Raises:
        InvalidField: One of them is not valid.
    """
    text = checked_text(instructions, "instructions", settings) if instructions else ""
    offered = client_tools(tool_definitions(tools or (), "tools", closed=True), "tools")
    options = AnswerOptions(
        tools=offered,
        tool_choice=choice or "auto",
        parallel_tool_calls=parallel is not False,
        instructions=text,
    )
    return None if options == AnswerOptions() else options


def client_tools(
    definitions: Sequence[ToolDefinition], field: str, member: str = ""
) -> tuple[ClientTool, ...]:
    """The tools of a request.

    Args:
        definitions: As sent.
        field: Path of their list in the body.
        member: Of an entry, where the definition is; with a dot at its end. Empty for the entry.

    Raises:
        InvalidField: There are too many, they are too large, or one is not valid.
    """
    if not definitions:
        return ()
    if len(definitions) > MAX_TOOLS:
        raise InvalidField(f"There must be at most {MAX_TOOLS}.", field=field)
    if len(msgspec.json.encode(definitions)) > _MAX_BYTES:
        raise InvalidField(f"Must be at most {_MAX_BYTES} bytes together.", field=field)
    made: dict[str, ClientTool] = {}
    for index, each in enumerate(definitions):
        path = f"{field}[{index}].{member}"
        if not _name.match(each.name) or each.name in _CHOICES:
            raise InvalidField(
                "Must be 1 to 64 letters, digits, underscores or hyphens, and none of "
                f"{', '.join(_CHOICES)}.",
                field=f"{path}name",
            )
        if each.name in made:
            raise InvalidField("There is another tool of this name.", field=f"{path}name")
        made[each.name] = _checked(each, path)
    return tuple(made.values())


def _checked(definition: ToolDefinition, path: str) -> ClientTool:
    from seawall.tools.client import check_parameters  # noqa: PLC0415 - only with tools
    from seawall.tools.json_schema import UnusableSchema  # noqa: PLC0415 - as above

    parameters = definition.parameters or {"type": "object", "properties": {}}
    strict = bool(definition.strict)
    made = ClientTool(definition.name, definition.description or "", parameters, strict)
    digest = hashlib.sha256(msgspec.json.encode((parameters, strict))).digest()
    if digest in _usable:
        _usable.move_to_end(digest)
        return made
    try:
        check_parameters(parameters, strict=strict)
    except UnusableSchema as fault:
        raise InvalidField(fault.detail, field=f"{path}parameters.{fault.path}".rstrip(".")) from (
            fault
        )
    _usable[digest] = None
    if len(_usable) > _MAX_USABLE:
        _usable.popitem(last=False)
    return made
