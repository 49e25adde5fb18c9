"""What the operations of an MCP source do when they are called."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from seawall.tools.foreign_schema import ForeignSchema
from seawall.tools.mcp.client import McpClient
from seawall.tools.mcp.content import Contents, json_value, prompt_text, resource_text, result_text
from seawall.tools.mcp.elicitation import InputRequired
from seawall.tools.mcp.header_values import Paths, mirrored_headers
from seawall.tools.mcp.jsonrpc import HEADER_MISMATCH, INTERNAL_ERROR, URL_REQUIRED, RpcError
from seawall.tools.mcp.wire import Request, ResultTooLong
from seawall.tools.port import ToolContext, ToolOutcome
from seawall.tools.remote import RemoteOperation
from seawall.tools.select import Selector
from seawall.tools.upstream import UpstreamFault
from seawall.turn import Image

__all__ = [
    "IDEMPOTENCY_KEY",
    "PromptList",
    "PromptText",
    "ResourceList",
    "ResourceText",
    "ToolCall",
]

IDEMPOTENCY_KEY = "io.github.seawall-project/idempotency-key"
"""Where a call's key is in `_meta`. The protocol has no name for it."""

T = TypeVar("T")

_MAX_ENTRIES = 500  # of a list of resources or prompts
_MAX_URI_CHARACTERS = 2_048
_NOT_FOUND = -32002

_log = logging.getLogger("seawall.tools.mcp")


class _CallResult(Struct, rename="camel"):
    content: list[Raw] = []
    structured_content: Raw = Raw()
    is_error: bool = False


class _ReadResult(Struct):
    contents: list[Contents]


class _PromptResult(Struct):
    messages: list[Raw]


class _Entry(Struct, rename="camel"):
    name: str = ""
    uri: str = ""
    uri_template: str = ""
    mime_type: str | None = None
    description: str | None = None
    arguments: list["_Argument"] = []


class _Argument(Struct):
    name: str
    required: bool = False


class ToolCall:
    """Calls a tool of the server."""

    def __init__(
        self,
        client: McpClient,
        name: str,
        *,
        headers: Paths,
        output: ForeignSchema | None,
        select: Selector | None,
        outdated: Callable[[], None],
    ) -> None:
        """Create it.

        Args:
            client: Of the server.
            name: Of the tool.
            headers: In which arguments are mirrored.
            output: Of structured results; None for any.
            select: What a model gets of a result; None for all.
            outdated: Called when the server says that the tool is another one by now.
        """
        self._client = client
        self._name = name
        self._headers = headers
        self._output = output
        self._select = select
        self._outdated = outdated

    async def __call__(
        self, arguments: dict[str, Any], context: ToolContext, deadline: float
    ) -> ToolOutcome:
        """See `remote.Invoke`."""
        params = {"name": self._name, "arguments": arguments}
        headers = mirrored_headers(self._headers, arguments) if self._headers else ()
        request = Request("tools/call", params, _meta(context), headers)
        images: list[Image] = []
        try:
            result, asked = await self._client.complete(
                request, _CallResult, context=context, deadline=deadline
            )
            notes = [*map(_declined, asked)]
            structured = result.structured_content
            if self._output is not None and not result.is_error:
                fault = self._fault(structured)
                if fault:
                    structured = Raw()
                    notes.append(fault)
            if self._select is not None and not result.is_error:
                notes.insert(0, self._selected(result.content, structured, self._select))
                text = "\n".join(notes)
            else:
                shown = None if result.is_error else images
                text = "\n".join((result_text(result.content, structured, shown), *notes))
        except InputRequired as needed:
            return needed.outcome()
        except ResultTooLong as fault:  # it has been called, and a repetition would say the same
            said = f"{self._name} has answered with more than {fault.limit} bytes, which cannot"
            return ToolOutcome(f"{said} be shown. Ask for less at once.", partial=True)
        except RpcError as error:
            if error.code == HEADER_MISMATCH:
                self._outdated()
            return _refusal(self._name, error)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamFault("broken", f"an invalid result: {error}") from None
        return ToolOutcome(text, failed=result.is_error, images=tuple(images))

    def _fault(self, structured: Raw) -> str:
        """A note, if a result does not fit the schema; what it says as text is left."""
        assert self._output is not None  # noqa: S101 - checked by the caller
        if not structured:
            fault = "there is none"
        else:
            fault = self._output.fault(msgspec.json.decode(structured))
        if not fault:
            return ""
        _log.warning("the structured result of %r does not fit its schema", self._name)
        return f"[The structured result is left out: it does not fit the tool's schema: {fault}]"

    def _selected(self, content: list[Raw], structured: Raw, select: Selector) -> str:
        """The part of a result that a model gets."""
        value = json_value(content, structured)
        if value is msgspec.UNSET:
            return f"[The result of {self._name} is not JSON, of which a part was to be shown.]"
        try:
            return msgspec.json.encode(select(value)).decode()
        except ValueError as error:
            return f"[The part of the result that was to be shown cannot be found: {error}]"


class ResourceList:
    """Lists the server's resources."""

    def __init__(self, client: McpClient) -> None:
        self._client = client

    def operation(self) -> RemoteOperation:
        """The operation."""
        return RemoteOperation(
            name="list_resources",
            description="List the resources that can be read, and templates of their URIs.",
            schema={"type": "object", "properties": {}, "additionalProperties": False},
            changes=False,
            invoke=self,
        )

    async def __call__(
        self,
        arguments: dict[str, Any],  # noqa: ARG002 - has none
        context: ToolContext,
        deadline: float,
    ) -> ToolOutcome:
        """See `remote.Invoke`."""
        try:
            lines = await _listed(self._client, "resources/list", "resources", context, deadline)
            try:
                templates = "resources/templates/list", "resourceTemplates"
                lines += await _listed(self._client, *templates, context, deadline)
            except RpcError:
                pass  # many servers have none
        except RpcError as error:
            return _refusal("list_resources", error)
        return ToolOutcome("\n".join(lines) or "There are no resources.")


class ResourceText:
    """Reads a resource of the server."""

    def __init__(self, client: McpClient) -> None:
        self._client = client

    def operation(self) -> RemoteOperation:
        """The operation."""
        uri = {"type": "string", "minLength": 1, "maxLength": _MAX_URI_CHARACTERS}
        return RemoteOperation(
            name="read_resource",
            description="Read a resource that list_resources names.",
            schema={
                "type": "object",
                "properties": {"uri": uri},
                "required": ["uri"],
                "additionalProperties": False,
            },
            changes=False,
            invoke=self,
        )

    async def __call__(
        self, arguments: dict[str, Any], context: ToolContext, deadline: float
    ) -> ToolOutcome:
        """See `remote.Invoke`."""
        request = Request("resources/read", {"uri": arguments["uri"]}, _meta(context))
        try:
            result, asked = await self._client.complete(
                request, _ReadResult, context=context, deadline=deadline
            )
        except InputRequired as needed:
            return needed.outcome()
        except RpcError as error:
            return _refusal("read_resource", error)
        return ToolOutcome("\n".join((resource_text(result.contents), *map(_declined, asked))))


class PromptList:
    """Lists the server's prompts."""

    def __init__(self, client: McpClient) -> None:
        self._client = client

    def operation(self) -> RemoteOperation:
        """The operation."""
        return RemoteOperation(
            name="list_prompts",
            description="List the prepared prompts, with their arguments (* is required).",
            schema={"type": "object", "properties": {}, "additionalProperties": False},
            changes=False,
            invoke=self,
        )

    async def __call__(
        self,
        arguments: dict[str, Any],  # noqa: ARG002 - has none
        context: ToolContext,
        deadline: float,
    ) -> ToolOutcome:
        """See `remote.Invoke`."""
        try:
            lines = await _listed(self._client, "prompts/list", "prompts", context, deadline)
        except RpcError as error:
            return _refusal("list_prompts", error)
        return ToolOutcome("\n".join(lines) or "There are no prompts.")


class PromptText:
    """Gets a prompt of the server."""

    def __init__(self, client: McpClient) -> None:
        self._client = client

    def operation(self) -> RemoteOperation:
        """The operation."""
        return RemoteOperation(
            name="get_prompt",
            description="Get the text of a prompt that list_prompts names.",
            schema={
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "arguments": {"type": "object", "additionalProperties": {"type": "string"}},
                },
                "required": ["name"],
                "additionalProperties": False,
            },
            changes=False,
            invoke=self,
        )

    async def __call__(
        self, arguments: dict[str, Any], context: ToolContext, deadline: float
    ) -> ToolOutcome:
        """See `remote.Invoke`."""
        request = Request("prompts/get", arguments, _meta(context))
        try:
            result, asked = await self._client.complete(
                request, _PromptResult, context=context, deadline=deadline
            )
            text = prompt_text(result.messages)
        except InputRequired as needed:
            return needed.outcome()
        except RpcError as error:
            return _refusal("get_prompt", error)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamFault("broken", f"an invalid result: {error}") from None
        return ToolOutcome("\n".join((text, *map(_declined, asked))))


async def _listed(
    client: McpClient, method: str, member: str, context: ToolContext, deadline: float
) -> list[str]:
    items, all_of_them = await client.list_all(
        method, member, context=context, deadline=deadline, most=_MAX_ENTRIES
    )
    lines = []
    for item in items:
        try:
            lines.append(_line(msgspec.json.decode(item, type=_Entry)))
        except (msgspec.DecodeError, RecursionError):
            continue
    if not all_of_them:
        lines.append(f"[There are more than these {len(lines)}.]")
    return lines


def _line(entry: _Entry) -> str:
    named = entry.uri or entry.uri_template
    name = f"{named} ({entry.name})" if named and entry.name else named or entry.name
    kind = f" {entry.mime_type}" if entry.mime_type else ""
    names = ", ".join(each.name + "*" * each.required for each in entry.arguments)
    about = f": {entry.description}" if entry.description else ""
    return f"{name}{kind}{f' ({names})' if names else ''}{about}"


def _meta(context: ToolContext) -> dict[str, Any]:
    meta = {}
    if context.idempotency_key:
        meta[IDEMPOTENCY_KEY] = context.idempotency_key
    if context.traceparent:
        meta["traceparent"] = context.traceparent
    return meta


def _declined(question: str) -> str:
    asked = f": {question}" if question else "."
    return f"[It asked for input, which cannot be given while it runs and was declined{asked}]"


def _refusal(name: str, error: RpcError) -> ToolOutcome:
    """An error for the model to read.

    Raises:
        UpstreamFault: It is one of the server, not of the call.
    """
    implementation = -32019 <= error.code <= -32000 and error.code != _NOT_FOUND
    if error.code == INTERNAL_ERROR or implementation:
        raise UpstreamFault("failed", f"{error.code} {error}") from error
    if error.code == URL_REQUIRED:
        return ToolOutcome(
            f"{name} needs the user to visit a page first, and it was not visited.", True
        )
    return ToolOutcome(f"{name} was refused ({error.code}): {error}", failed=True)
