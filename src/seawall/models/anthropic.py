"""A client of Anthropic's messages API, streaming.

Wire format: https://platform.claude.com/docs/en/api/messages, its streaming page
https://platform.claude.com/docs/en/build-with-claude/streaming and, for errors,
https://platform.claude.com/docs/en/api/errors.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from seawall.models.alternation import alternate, declared_tools
from seawall.models.anthropic_reading import AnthropicReader
from seawall.models.assembly import as_object
from seawall.models.history import NO_CONTENT, WORD_IDS, CallIds, call_origin, tool_name
from seawall.models.http_model import Encoded, stream_answer, warm_connections
from seawall.models.port import ModelEvent, ModelRequest, Prompt, ToolSpec
from seawall.models.schemas import ANY_OBJECT, schema_instructions, simplify_schema
from seawall.models.unreadable import UnreadableLog
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import AssistantMessage, Message, UserMessage

__all__ = ["AnthropicModel", "AnthropicSettings"]

_VERSION = b"2023-06-01"
_BASE_URL = "https://api.anthropic.com/v1"
_DEFAULT_TOKENS = 4_096  # the API wants a bound


class AnthropicSettings(Struct, frozen=True, kw_only=True):
    """Where the API is and how it is to be asked.

    base_url: up to and without `/messages`; empty for the maker's own. cache: how much of a
    request is marked for the prompt cache: nothing, what all turns of an agent have in common, or
    the conversation as well. schema_in_words: for models that take no schema of their output.
    thinking: the type that is asked for, empty for what the model does by itself. Thinking counts
    as written tokens, and is neither shown nor sent back:
    https://platform.claude.com/docs/en/build-with-claude/thinking
    warm: connections to open ahead.
    """

    base_url: str = ""
    model: str
    api_key: str = ""
    cache: Literal["off", "prefix", "conversation"] = "prefix"
    schema_in_instructions: bool = False
    warm: int = 1
    thinking: str = ""


_encode = msgspec.json.Encoder().encode


class AnthropicModel:
    """One model of Anthropic's; implements the model port."""

    def __init__(self, name: str, settings: AnthropicSettings, client: HttpClient) -> None:
        self._name = name
        self._settings = settings
        self._client = client
        self._endpoint = Endpoint.parse((settings.base_url or _BASE_URL).rstrip("/") + "/messages")
        where = self._endpoint.authority.decode()
        self._origin = call_origin("anthropic", settings.base_url or _BASE_URL, settings.model)
        self._unreadable = UnreadableLog(name, f"anthropic at {where}")
        headers = [
            (b"content-type", b"application/json"),
            (b"accept", b"text/event-stream"),
            (b"anthropic-version", _VERSION),
        ]
        if settings.api_key:
            headers.append((b"x-api-key", settings.api_key.encode()))
        self._headers = tuple(headers)
        # Prompts live as long as their agents; each is encoded once.
        self._heads: WeakKeyDictionary[Prompt, bytes] = WeakKeyDictionary()

    def stream(self, request: ModelRequest, *, deadline: float) -> AsyncGenerator[ModelEvent, None]:
        """See `Model.stream`."""
        return stream_answer(
            self._name,
            self._client,
            self._endpoint,
            lambda: self._encoded(request),
            AnthropicReader(self._name, self._origin, self._unreadable),
            deadline=deadline,
        )

    async def warm(self) -> None:
        """See `Model.warm`."""
        await warm_connections(self._name, self._client, self._endpoint, self._settings.warm)

    async def close(self) -> None:
        """See `Model.close`; the connections belong to the client, which is closed apart."""

    def _encoded(self, request: ModelRequest) -> Encoded:
        head = self._heads.get(request.prompt)
        if head is None:
            head = self._heads[request.prompt] = _head(self._settings, request.prompt)
        parts = [head]
        if not request.prompt.tools and (tools := declared_tools(request.prompt, request.messages)):
            parts += [b',"tools":', _encode([_wire_tool(each) for each in tools])]
            parts.append(b',"tool_choice":{"type":"none"}')  # they are declared for the history
        ids = CallIds(request.messages, self._origin, WORD_IDS)
        messages = [
            {"role": role, "content": [block for each in side for block in _blocks(each, ids)]}
            for role, side in alternate(request.messages)
        ]
        if self._settings.cache == "conversation" and messages:
            blocks: list[dict[str, object]] = messages[-1]["content"]  # type: ignore[assignment]
            blocks[-1]["cache_control"] = {"type": "ephemeral"}
        limit = _DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
        parts += [b',"messages":', _encode(messages), b',"max_tokens":%d' % limit]
        if stop := [each for each in request.stop if each.strip()]:  # it refuses blank ones
            parts += [b',"stop_sequences":', _encode(stop)]
        if request.temperature is not None:
            parts.append(b',"temperature":' + _encode(request.temperature))
        parts.append(b"}")
        return self._headers, b"".join(parts)


def _head(settings: AnthropicSettings, prompt: Prompt) -> bytes:
    """The request's JSON up to what all turns have in common, without the closing bracket.

    The prompt cache takes tools, then system: the mark at the end of the system covers both.
    https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    parts = [b'{"model":', _encode(settings.model), b',"stream":true']
    if settings.thinking:
        parts += [b',"thinking":', _encode({"type": settings.thinking})]
    instructions = prompt.instructions
    output = prompt.output
    if output is not None and (settings.schema_in_instructions or output.schema == ANY_OBJECT):
        instructions = f"{instructions}\n\n{schema_instructions(output)}"
    elif output is not None:
        wanted = {"type": "json_schema", "schema": simplify_schema(output.schema)}
        parts += [b',"output_config":', _encode({"format": wanted})]
    if prompt.tools:
        parts += [b',"tools":', _encode([_wire_tool(each) for each in prompt.tools])]
    if instructions.strip():
        system: dict[str, object] = {"type": "text", "text": instructions}
        if settings.cache != "off":
            system["cache_control"] = {"type": "ephemeral"}
        parts += [b',"system":', _encode([system])]
    return b"".join(parts)


def _wire_tool(tool: ToolSpec) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}


def _blocks(message: Message, ids: CallIds) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        return [{"type": "text", "text": message.text}]
    if isinstance(message, AssistantMessage):
        blocks: list[dict[str, object]] = []
        if message.text and not message.text.isspace():
            blocks.append({"type": "text", "text": message.text})
        for call in message.tool_calls:
            use = {"type": "tool_use", "id": ids.of_call(call), "name": tool_name(call.name)}
            blocks.append({**use, "input": as_object(call.arguments)})
        return blocks
    result = {
        "type": "tool_result",
        "tool_use_id": ids.of_result(message),
        "content": message.content if message.content.strip() else NO_CONTENT,
        "is_error": message.failed,
    }
    return [result]
