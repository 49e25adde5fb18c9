"""Tools of clients: offered with a request, called by the model, run by the client.

A call waits for its result like an effect for its approval. Names, descriptions, schemas and
results are foreign data.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from seawall.models import ToolSpec
from seawall.tools.effort import check_effort
from seawall.tools.json_schema import SchemaFault, UnusableSchema, ValueCheck, check_schema
from seawall.tools.policy import Approval, EffectPolicy
from seawall.tools.port import (
    MAX_EFFECT_BYTES,
    PreparedCall,
    Tool,
    ToolContext,
    ToolError,
    ToolOutcome,
    truncate,
)
from seawall.turn import ClientTool

__all__ = ["ClientSideTool", "check_parameters", "client_side_tool"]


class ClientSideTool(Tool, frozen=True, kw_only=True, eq=False):
    """A tool of a client. Made by `client_side_tool`.

    Attributes:
        properties: Names of its parameters.
        schema_check: Of the arguments; None if they are only checked to be an object.
    """

    properties: tuple[str, ...]
    schema_check: ValueCheck | None

    @property
    def parameters(self) -> tuple[str, ...]:
        """See `Tool.parameters`."""
        return self.properties

    def has_parameter(self, path: Sequence[str]) -> bool:
        """See `Tool.has_parameter`."""
        return len(path) == 1 and path[0] in self.properties

    def prepare(self, arguments: str) -> PreparedCall:
        """See `Tool.prepare`. The client gets the arguments as the model wrote them."""
        text = arguments.strip()
        if text in ("", "null"):
            text = "{}"
        if len(text.encode("utf-8", "replace")) > MAX_EFFECT_BYTES:
            raise ToolError(f"Arguments exceed {MAX_EFFECT_BYTES} bytes.")
        try:
            values = msgspec.json.decode(text)
            if not isinstance(values, dict):
                raise ToolError(f"Invalid arguments for {self.name}: they must be an object.")
            if self.schema_check is not None:
                self.schema_check(values)
        except (msgspec.DecodeError, UnicodeError, SchemaFault) as error:
            raise ToolError(truncate(f"Invalid arguments for {self.name}: {error}")) from error
        except RecursionError:
            raise ToolError(f"Invalid arguments for {self.name}: nested too deeply.") from None
        return PreparedCall(values, text.encode())

    async def run(self, prepared: PreparedCall, context: ToolContext) -> ToolOutcome:  # noqa: ARG002
        """Never called, as every call waits for its client."""
        return ToolOutcome(f"{self.name} is run by the client.", failed=True)


def client_side_tool(offered: ClientTool, *, seconds: float) -> ClientSideTool:
    """The tool that a client offers.

    Args:
        offered: It; its schema has been checked.
        seconds: How long a result is waited for.
    """
    properties = offered.parameters.get("properties")
    return ClientSideTool(
        spec=ToolSpec(offered.name, offered.description, offered.parameters, offered.strict),
        policy=EffectPolicy(
            duplicates="allow",
            independent=True,
            approval=Approval(expires_seconds=seconds),
            waits_for="client",
        ),
        properties=tuple(properties) if isinstance(properties, dict) else (),
        schema_check=ValueCheck(offered.parameters) if offered.strict else None,
    )


def check_parameters(parameters: dict[str, Any], *, strict: bool) -> None:
    """Check the JSON Schema of a client's tool.

    Args:
        parameters: The schema.
        strict: Whether arguments are checked by it.

    Raises:
        UnusableSchema: It does not describe an object, or cannot be checked in bounded time.
    """
    if parameters.get("type", "object") != "object":
        raise UnusableSchema("type", 'Must be "object".')
    properties = parameters.get("properties", {})
    if not isinstance(properties, dict):
        raise UnusableSchema("properties", "Must be an object of schemas.")
    if strict:
        check_schema(parameters)
    try:
        check_effort(parameters)
    except ValueError as error:
        raise UnusableSchema("", f"The schema is not usable: {error}.") from error
    except RecursionError as error:
        raise UnusableSchema("", "The schema is nested too deeply.") from error
