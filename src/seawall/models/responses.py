"""A client of OpenAI's responses API, streaming and stateless.

Wire format: https://platform.openai.com/docs/api-reference/responses and its streaming events page.
Nothing is kept at the provider (`store` is false): the whole conversation goes with each request,
tool calls and their outputs as items of it.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct, field

from seawall.models.assembly import Assembly
from seawall.models.caching import cache_key
from seawall.models.exchange import Encoded, stream_answer, warm_connections
from seawall.models.port import Finish, FinishReason, ModelEvent, ModelRequest, Prompt, ToolSpec
from seawall.models.schemas import ANY_OBJECT, in_words, is_strict
from seawall.transport.http_client import Endpoint, HttpClient
from seawall.transport.sse import SseParser
from seawall.turn import AssistantMessage, Message, ToolCall, Usage, UserMessage

__all__ = ["ResponsesModel", "ResponsesSettings"]

_BASE_URL = "https://api.openai.com/v1"
_MAX_EVENT_BYTES = 4 << 20  # the last event repeats the whole response, instructions and all
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
    schema_in_words: bool = False
    warm: int = 1


class _Item(Struct):
    type: str = ""
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class _Error(Struct):
    code: str | None = None


class _Incomplete(Struct):
    reason: str | None = None


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _WireUsage(Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _PromptDetails = field(default_factory=_PromptDetails)


class _Response(Struct):
    usage: _WireUsage | None = None
    error: _Error | None = None
    incomplete_details: _Incomplete | None = None


class _Event(Struct):
    type: str
    delta: str = ""
    output_index: int = 0
    item: _Item | None = None
    response: _Response | None = None
    code: str | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode

_TEXT = frozenset({b"response.output_text.delta", b"response.refusal.delta"})
_READ = _TEXT | {
    b"response.output_item.added",
    b"response.output_item.done",
    b"response.function_call_arguments.delta",
    b"response.completed",
    b"response.incomplete",
    b"response.failed",
    b"error",
}
# What the code of an error in the stream would have been as a status; others are failures.
_STATUS_OF = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
}
_reasons: dict[str | None, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}


class ResponsesModel:
    """One model of one endpoint of the responses API; implements the model port."""

    def __init__(self, name: str, settings: ResponsesSettings, client: HttpClient) -> None:
        self._name = name
        self._settings = settings
        self._client = client
        self._endpoint = Endpoint.parse((settings.base_url or _BASE_URL).rstrip("/") + "/responses")
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
            ResponsesReader(self._name),
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
        items = [item for message in request.messages for item in _items(message)]
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


class ResponsesReader:
    """Reads one streamed response."""

    __slots__ = ("_argued", "_assembly", "_parser", "_refused")

    def __init__(self, model: str) -> None:
        self._assembly = Assembly(model)
        self._parser = SseParser(max_event_bytes=_MAX_EVENT_BYTES)
        self._argued: set[int] = set()
        self._refused = False

    def feed(self, received: bytes) -> str:
        """See `Reader.feed`."""
        text = ""
        for event in self._parser.feed(received):
            if event.name not in _READ:
                continue
            try:
                decoded = _decode_event(event.data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._assembly.unreadable() from error
            if event.name in _TEXT:
                text += decoded.delta
                self._refused |= event.name == b"response.refusal.delta"
            else:
                self._take(decoded, event.data)
        self._assembly.count(len(text))
        return text

    def end(self) -> tuple[tuple[ToolCall, ...], Finish]:
        """See `Reader.end`."""
        return self._assembly.end()

    def _take(self, event: _Event, data: bytes) -> None:
        index, kind = event.output_index, event.type
        if kind == "response.function_call_arguments.delta":
            self._argued.add(index)
            self._assembly.call(index, call_id=None, name=None, arguments=event.delta)
        elif event.item is not None:
            if event.item.type == "function_call":
                # Whole at its end, for those who do not stream the arguments.
                whole = kind == "response.output_item.done" and index not in self._argued
                arguments = event.item.arguments if whole else None
                self._assembly.call(
                    index, call_id=event.item.call_id, name=event.item.name, arguments=arguments
                )
        elif kind in ("error", "response.failed"):
            error = event.response.error if event.response else None
            code = event.code or (error.code if error else None) or ""
            raise self._assembly.failed_midway(data, _STATUS_OF.get(code))
        elif event.response is not None:
            self._finish(event.response, completed=kind == "response.completed")

    def _finish(self, response: _Response, *, completed: bool) -> None:
        if (used := response.usage) is not None:
            details = used.input_tokens_details
            self._assembly.usage = Usage(
                used.input_tokens,
                used.output_tokens,
                1,
                details.cached_tokens or 0,
                details.cache_write_tokens or 0,
            )
        if completed:
            self._assembly.reason = "content_filter" if self._refused else "stop"
        else:
            why = response.incomplete_details.reason if response.incomplete_details else None
            self._assembly.reason = _reasons.get(why, "other")


def _head(settings: ResponsesSettings, prompt: Prompt) -> bytes:
    """The request's JSON up to what all turns have in common, without the closing bracket."""
    parts = [b'{"model":', _encode(settings.model), b',"stream":true,"store":false']
    if prompt.tools:
        parts += [b',"tools":', _encode([_wire_tool(each) for each in prompt.tools])]
    instructions = prompt.instructions
    output = prompt.output
    if output is not None and (settings.schema_in_words or output.schema == ANY_OBJECT):
        instructions = f"{instructions}\n\n{in_words(output)}"
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


def _items(message: Message) -> Sequence[dict[str, object]]:
    if isinstance(message, UserMessage):
        return [{"role": "user", "content": message.text}]
    if isinstance(message, AssistantMessage):
        items: list[dict[str, object]] = []
        if message.text:
            items.append({"role": "assistant", "content": message.text})
        for call in message.tool_calls:
            item = {"name": call.name, "arguments": call.arguments}
            items.append({"type": "function_call", "call_id": call.id, **item})
        return items
    output = {"call_id": message.call_id, "output": message.content}
    return [{"type": "function_call_output", **output}]
