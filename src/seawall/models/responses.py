"""A client of OpenAI's responses API, streaming and stateless.

Wire format: https://platform.openai.com/docs/api-reference/responses and its streaming events page.
Nothing is kept at the provider (`store` is false): the whole conversation goes with each request,
tool calls and their outputs as items of it.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from seawall.models.assembly import as_object
from seawall.models.caching import cache_key
from seawall.models.history import (
    NO_CONTENT,
    WORD_IDS,
    CallIds,
    call_origin,
    tool_name,
    without_blanks,
)
from seawall.models.http_model import Encoded, stream_answer, warm_connections
from seawall.models.port import ModelEvent, ModelRequest, Prompt, ToolSpec
from seawall.models.responses_reading import ResponsesReader
from seawall.models.schemas import ANY_OBJECT, is_strict, schema_instructions
from seawall.models.unreadable import UnreadableLog
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.turn import AssistantMessage, Message, UserMessage

__all__ = ["ResponsesModel", "ResponsesReader", "ResponsesSettings"]

_BASE_URL = "https://api.openai.com/v1"
_LEAST_TOKENS = 16  # the API takes no smaller bound


class ResponsesSettings(Struct, frozen=True, kw_only=True):
    """Where the API is and how it is to be asked.

    base_url: up to and without `/responses`; empty for the maker's own. cache: what requests
    have in common that are to meet in one prompt cache: the agent, or the conversation.
    schema_in_words: for models that take no schema of their output.
    warm: connections to open ahead.
    """

    base_url: str = ""
    model: str
    api_key: str = ""
    cache: Literal["off", "prefix", "conversation"] = "prefix"
    schema_in_instructions: bool = False
    warm: int = 1


_encode = msgspec.json.Encoder().encode


class ResponsesModel:
    """One model of one endpoint of the responses API; implements the model port."""

    def __init__(self, name: str, settings: ResponsesSettings, client: HttpClient) -> None:
        self._name = name
        self._settings = settings
        self._client = client
        self._endpoint = Endpoint.parse((settings.base_url or _BASE_URL).rstrip("/") + "/responses")
        where = self._endpoint.authority.decode()
        self._origin = call_origin("responses", settings.base_url or _BASE_URL, settings.model)
        self._unreadable = UnreadableLog(name, f"responses at {where}")
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
            ResponsesReader(self._name, self._origin, self._unreadable),
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
        ids = CallIds(request.messages, self._origin, WORD_IDS)
        items = [
            item for message in without_blanks(request.messages) for item in _items(message, ids)
        ]
        parts = [head, b',"input":', _encode(items)]
        if request.max_tokens is not None:
            parts.append(b',"max_output_tokens":%d' % max(_LEAST_TOKENS, request.max_tokens))
        if request.temperature is not None:
            parts.append(b',"temperature":' + _encode(request.temperature))
        if self._settings.cache != "off":
            conversation = self._settings.cache == "conversation"
            key = cache_key(head, request.messages if conversation else ())
            parts.append(b',"prompt_cache_key":' + _encode(key))
        parts.append(b"}")
        return self._headers, b"".join(parts)


def _head(settings: ResponsesSettings, prompt: Prompt) -> bytes:
    """The request's JSON up to what all turns have in common, without the closing bracket."""
    parts = [b'{"model":', _encode(settings.model), b',"stream":true,"store":false']
    if prompt.tools:
        parts += [b',"tools":', _encode([_wire_tool(each) for each in prompt.tools])]
    instructions = prompt.instructions
    output = prompt.output
    if output is not None and (settings.schema_in_instructions or output.schema == ANY_OBJECT):
        instructions = f"{instructions}\n\n{schema_instructions(output)}"
    elif output is not None:
        wanted = {
            "type": "json_schema",
            "name": output.name,
            "schema": output.schema,
            "strict": is_strict(output.schema),
        }
        parts += [b',"text":', _encode({"format": wanted})]
    parts += [b',"instructions":', _encode(instructions)]
    return b"".join(parts)


def _wire_tool(tool: ToolSpec) -> dict[str, object]:
    # Strict is this API's default, and refuses schemas with optional parameters.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,
    }


def _items(message: Message, ids: CallIds) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        return [{"role": "user", "content": message.text}]
    if isinstance(message, AssistantMessage):
        items: list[dict[str, object]] = []
        if message.text and not message.text.isspace():
            items.append({"role": "assistant", "content": message.text})
        for call in message.tool_calls:
            arguments = bytes(as_object(call.arguments)).decode()
            item = {"name": tool_name(call.name), "arguments": arguments}
            items.append({"type": "function_call", "call_id": ids.of_call(call), **item})
        return items
    content = message.content if message.content.strip() else NO_CONTENT
    output = {"call_id": ids.of_result(message), "output": content}
    return [{"type": "function_call_output", **output}]
