"""Tools that a client offers: their definitions in a request, checked and bounded."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from seawall.errors import InvalidField
from seawall.turn import ClientTool

__all__ = ["MAX_TOOLS", "TOOL_NAME_PATTERN", "ToolDefinition", "client_tools"]

MAX_TOOLS = 128
"""Of a request; as in OpenAI's API."""

TOOL_NAME_PATTERN = "^[A-Za-z0-9_-]{1,64}$"

_MAX_BYTES = 65_536  # of all definitions of a request
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
        if not _name.match(each.name):
            raise InvalidField(
                "Must be 1 to 64 letters, digits, underscores or hyphens.", field=f"{path}name"
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
    try:
        check_parameters(parameters, strict=strict)
    except UnusableSchema as fault:
        raise InvalidField(fault.detail, field=f"{path}parameters.{fault.path}".rstrip(".")) from (
            fault
        )
    return ClientTool(definition.name, definition.description or "", parameters, strict)
