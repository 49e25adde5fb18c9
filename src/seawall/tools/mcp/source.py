"""The tools of an MCP server as operations of a source."""

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from seawall.errors import ConfigError
from seawall.printable import printable
from seawall.tools.foreign_schema import ForeignSchema
from seawall.tools.mcp.calls import PromptList, PromptText, ResourceList, ResourceText, ToolCall
from seawall.tools.mcp.client import McpClient
from seawall.tools.mcp.header_values import InvalidHeader, parameter_headers
from seawall.tools.mcp.jsonrpc import RpcError
from seawall.tools.mcp.protocol import Server
from seawall.tools.mcp.wire import Wire
from seawall.tools.remote import RemoteOperation
from seawall.tools.select import Selector, compile_select
from seawall.tools.settings import McpSettings
from seawall.tools.upstream import UpstreamFault

__all__ = ["McpSource"]

_MAX_TOOLS = 1_000
_MAX_TOOL_BYTES = 64 << 10
_MAX_NAMED = 100  # tools that are left out, of which each is logged
_name = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,126}[^\s\x00-\x1f\x7f])?")

_log = logging.getLogger("seawall.tools.mcp")


class _Annotations(Struct, rename="camel"):
    title: str | None = None
    read_only_hint: bool | None = None


class _Tool(Struct, rename="camel"):
    name: str
    input_schema: dict[str, Any]
    title: str | None = None
    description: str | None = None
    output_schema: dict[str, Any] | bool | None = None
    annotations: _Annotations | None = None


class _LeftOut(Exception):
    """A tool that cannot be used."""


class McpSource:
    """A source of tools, `remote.ToolSource`: one MCP server.

    Attributes:
        name: Of the source.
    """

    def __init__(self, name: str, wire: Wire, settings: McpSettings) -> None:
        """Create it; nothing is sent before `list`.

        Args:
            name: Of the source.
            wire: The way to the server; owned from now on.
            settings: Its table.

        Raises:
            ConfigError: A `select` is not one.
        """
        self.name = name
        self._wire = wire
        self._client = McpClient(
            wire, name, elicitation=settings.elicitation, redact=settings.redact_answers
        )
        self._settings = settings
        self._select = _selector(f"tools.{name}.select", settings.select)
        self._selects = {
            each: _selector(f"tools.{name}.overrides.{each}.select", own.select)
            for each, own in settings.overrides.items()
            if own.select is not None
        }
        self._changed: Callable[[], None] = lambda: None

    async def list(self, *, deadline: float) -> tuple[RemoteOperation, ...]:
        """See `ToolSource.list`."""
        server = await self._wire.open(deadline=deadline)
        found: dict[str, RemoteOperation] = {}
        for operation in (*await self._tools(server, deadline), *self._others(server)):
            if operation.name in found:
                _log.warning("%s: two tools are named %r", self.name, operation.name)
            else:
                found[operation.name] = operation
        return tuple(found.values())

    def subscribe(self, changed: Callable[[], None]) -> None:
        """See `ToolSource.subscribe`."""
        self._changed = changed
        self._wire.subscribe(changed)

    async def close(self) -> None:
        """See `ToolSource.close`."""
        await self._wire.close()

    async def _tools(self, server: Server, deadline: float) -> Iterable[RemoteOperation]:
        if server.capabilities.tools is None:
            return ()
        try:
            listed, all_of_them = await self._client.list_all(
                "tools/list", "tools", context=None, deadline=deadline, most=_MAX_TOOLS
            )
        except RpcError as error:
            raise UpstreamFault("failed", f"tools/list: {error.code} {error}") from None
        if not all_of_them:
            raise UpstreamFault(
                "broken", f"it lists more than {_MAX_TOOLS} tools, or too many pages"
            )
        operations = []
        left_out = 0
        for tool in listed:
            try:
                operations.append(self._operation(tool, modern=server.modern))
            except _LeftOut as reason:
                left_out += 1
                if left_out <= _MAX_NAMED:
                    _log.warning("%s: left out %s", self.name, reason)
        return operations

    def _operation(self, listed: Raw, *, modern: bool) -> RemoteOperation:
        if len(listed) > _MAX_TOOL_BYTES:
            raise _LeftOut(f"a tool of {len(listed)} bytes; {_MAX_TOOL_BYTES} are allowed")
        try:
            tool = msgspec.json.decode(listed, type=_Tool)
        except (msgspec.DecodeError, RecursionError) as error:
            raise _LeftOut(f"a tool whose definition is invalid: {error}") from None
        shown = f"the tool {printable(tool.name[:128])!r}"
        if not _name.fullmatch(tool.name):
            raise _LeftOut(f"{shown}: its name is not usable")
        if tool.input_schema.get("type", "object") != "object":
            raise _LeftOut(f"{shown}: its arguments are not an object")
        try:
            output = tool.output_schema  # that of arguments is checked when the tool is made
            check = ForeignSchema(output) if output is not None else None
            headers = parameter_headers(tool.input_schema) if modern else {}
        except (ValueError, InvalidHeader) as error:
            raise _LeftOut(f"{shown}: {printable(str(error))}") from None
        annotations = tool.annotations or _Annotations()
        return RemoteOperation(
            name=tool.name,
            description=tool.description or tool.title or annotations.title or tool.name,
            schema={"type": "object", **tool.input_schema},
            changes=not (self._settings.trust_annotations and annotations.read_only_hint is True),
            output_schema=output if isinstance(output, dict) else None,
            invoke=ToolCall(
                self._client,
                tool.name,
                headers=headers,
                output=check,
                select=self._selects.get(tool.name, self._select),
                outdated=self._tools_changed,
            ),
        )

    def _others(self, server: Server) -> Iterable[RemoteOperation]:
        if self._settings.resources and server.capabilities.resources is not None:
            yield ResourceList(self._client).operation()
            yield ResourceText(self._client).operation()
        if self._settings.prompts and server.capabilities.prompts is not None:
            yield PromptList(self._client).operation()
            yield PromptText(self._client).operation()

    def _tools_changed(self) -> None:
        self._changed()


def _selector(key: str, expression: str) -> Selector | None:
    try:
        return compile_select(expression)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
