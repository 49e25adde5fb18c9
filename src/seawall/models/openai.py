"""A client of any server that speaks OpenAI's chat completions, streaming.

Wire format: https://platform.openai.com/docs/api-reference/chat/create and its streaming page.
"""

from collections.abc import AsyncGenerator
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from seawall.models.assembly import as_object
from seawall.models.caching import cache_key
from seawall.models.history import (
    NINE_CHARACTER_IDS,
    NO_CONTENT,
    CallIds,
    call_origin,
    tool_name,
    without_blanks,
)
from seawall.models.http_model import Encoded, stream_answer, warm_connections
from seawall.models.openai_reading import OpenAIReader
from seawall.models.port import ModelEvent, ModelRequest, Prompt
from seawall.models.schemas import ANY_OBJECT, is_strict, schema_instructions
from seawall.models.unreadable import UnreadableLog
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import AssistantMessage, Message, ToolCall, UserMessage

__all__ = ["OpenAIModel", "OpenAIReader", "OpenAISettings"]


class OpenAISettings(Struct, frozen=True, kw_only=True):
    """Where the endpoint is and how it wants to be asked.

    base_url: up to and without `/chat/completions`. api_key: empty for none.
    length_field: the name under which the server takes the bound on written tokens.
    cache: what requests have in common that are to meet in one prompt cache, by
    `prompt_cache_key`: the agent, or the conversation; not every server knows the key.
    schema_in_words: for servers that do not take a schema of the output. stop: texts that end an
    answer and are not part of it.
    warm: connections to open ahead.
    """

    base_url: str
    model: str
    api_key: str = ""
    length_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    cache: Literal["off", "prefix", "conversation"] = "off"
    schema_in_instructions: bool = False
    warm: int = 1
    stop: tuple[str, ...] = ()


_encode = msgspec.json.Encoder().encode


class OpenAIModel:
    """One model of one OpenAI-compatible endpoint; implements the model port."""

    def __init__(self, name: str, settings: OpenAISettings, client: HttpClient) -> None:
        self._name = name
        self._settings = settings
        self._client = client
        self._endpoint = Endpoint.parse(settings.base_url.rstrip("/") + "/chat/completions")
        where = self._endpoint.authority.decode()
        self._origin = call_origin("openai", settings.base_url, settings.model)
        self._unreadable = UnreadableLog(name, f"openai at {where}")
        headers = [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
        if settings.api_key:
            headers.append((b"authorization", b"Bearer " + settings.api_key.encode()))
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
            OpenAIReader(self._name, self._origin, self._unreadable),
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
        ids = CallIds(request.messages, self._origin, NINE_CHARACTER_IDS)
        messages = [_wire_message(each, ids) for each in without_blanks(request.messages)]
        # The head is cut off inside the list, which has a first message if there are instructions.
        comma = b"" if head.endswith(b"[") or not messages else b","
        parts = [head, comma, _encode(messages)[1:]]
        if request.max_tokens is not None:
            limit = self._settings.length_field
            parts.append(f',"{limit}":{request.max_tokens}'.encode())
        if request.temperature is not None:
            parts.append(b',"temperature":' + _encode(request.temperature))
        if stop := (*self._settings.stop, *request.stop):
            parts += [b',"stop":', _encode(stop)]
        if self._settings.cache != "off":
            conversation = self._settings.cache == "conversation"
            key = cache_key(head, request.messages if conversation else ())
            parts.append(b',"prompt_cache_key":' + _encode(key))
        parts.append(b"}")
        return self._headers, b"".join(parts)


def _head(settings: OpenAISettings, prompt: Prompt) -> bytes:
    """The request's JSON up to and including the system message, without closing brackets."""
    parts = [b'{"model":', _encode(settings.model), b',"stream":true,"stream_options":']
    parts.append(b'{"include_usage":true}')
    if prompt.tools:
        tools = [{"type": "function", "function": tool} for tool in prompt.tools]
        parts += [b',"tools":', _encode(tools)]
    instructions = prompt.instructions
    if (output := prompt.output) is not None and settings.schema_in_instructions:
        instructions = f"{instructions}\n\n{schema_instructions(output)}"
    elif output is not None and output.schema == ANY_OBJECT:
        instructions = (
            f"{instructions}\n\n{schema_instructions(output)}"  # it must be spoken of, too
        )
        parts.append(b',"response_format":{"type":"json_object"}')
    elif output is not None:
        strict = is_strict(output.schema)
        asked = {"name": output.name, "schema": output.schema, "strict": strict}
        wanted = {"type": "json_schema", "json_schema": asked}
        parts += [b',"response_format":', _encode(wanted)]
    parts.append(b',"messages":[')
    if instructions.strip():
        parts.append(_encode({"role": "system", "content": instructions}))
    return b"".join(parts)


def _wire_message(message: Message, ids: CallIds) -> dict[str, object]:
    if isinstance(message, UserMessage):
        return {"role": "user", "content": message.text}
    if isinstance(message, AssistantMessage):
        blank = not message.text or message.text.isspace()
        wire: dict[str, object] = {"role": "assistant", "content": None if blank else message.text}
        if message.tool_calls:
            wire["tool_calls"] = [_wire_call(call, ids) for call in message.tool_calls]
        return wire
    content = message.content if message.content.strip() else NO_CONTENT
    return {"role": "tool", "tool_call_id": ids.of_result(message), "content": content}


def _wire_call(call: ToolCall, ids: CallIds) -> dict[str, object]:
    # Some servers read the arguments of the history, and refuse what is no JSON object.
    arguments = bytes(as_object(call.arguments)).decode()
    wire: dict[str, object] = {
        "id": ids.of_call(call),
        "type": "function",
        "function": {"name": tool_name(call.name), "arguments": arguments},
    }
    if extra := ids.extra_of(call):
        wire.update(msgspec.json.decode(extra, type=dict[str, msgspec.Raw]))
    return wire
